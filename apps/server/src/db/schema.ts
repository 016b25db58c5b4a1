import type { BaselineState, IModelState, OperationState } from '../domain.ts';

/**
 * The tables, one type each. Both databases hold the same values: ids as text, times as milliseconds since 1970 (integer,
 * so that order is exact to the millisecond everywhere), JSON as text, flags as integers.
 */
export interface Schema {
  user_account: UserAccountTable;
  itwin: ITwinTable;
  role: RoleTable;
  member: MemberTable;
  blob: BlobTable;
  baseline: BaselineTable;
  segment: SegmentTable;
  changeset: ChangesetTable;
  history: HistoryTable;
  history_segment: HistorySegmentTable;
  imodel: IModelTable;
  imodel_grant: IModelGrantTable;
  imodel_user: IModelUserTable;
  pending_changeset: PendingChangesetTable;
  upload: UploadTable;
  abandoned_push: AbandonedPushTable;
  briefcase: BriefcaseTable;
  named_version: NamedVersionTable;
  object_lock: ObjectLockTable;
  released_lock: ReleasedLockTable;
  changeset_group: ChangesetGroupTable;
  grouped_changeset: GroupedChangesetTable;
  extended_data: ExtendedDataTable;
  mark: MarkTable;
  thumbnail: ThumbnailTable;
  share: ShareTable;
  webhook: WebhookTable;
  owner: ITwinOwnerTable;
  user_group: UserGroupTable;
  group_user: GroupUserTable;
  group_member: GroupMemberTable;
  repository: RepositoryTable;
  itwin_image: ITwinImageTable;
  job: JobTable;
  block: BlockTable;
  model_file: ModelFileTable;
  model_file_block: ModelFileBlockTable;
  checkpoint: CheckpointTable;
  transfer: TransferTable;
  operation: OperationTable;
  repeatable_request: RepeatableRequestTable;
  audit: AuditTable;
  secret: SecretTable;
}

export interface UserAccountTable {
  id: string;
  /** Who names the user in tokens, and how; both null until a user of an earlier version comes again. */
  issuer: string | null;
  subject: string | null;
  /** As it is shown; empty where there is none that anybody has verified. */
  email: string;
  /** In lower case: by which the user is found. */
  verified_email: string | null;
  given_name: string;
  surname: string;
  organization_id: string | null;
  created_at: number;
}

export interface ITwinTable {
  id: string;
  organization_id: string | null;
  /** Who made it; who owns it stands in `owner`. */
  owner_id: string;
  class: string;
  sub_class: string;
  type: string | null;
  number: string;
  display_name: string;
  search_text: string;
  geographic_location: string | null;
  data_center: string;
  status: string;
  parent_id: string | null;
  created_at: number;
  deleted_at: number | null;
}

/** Users who may do everything on an iTwin: its creator at first. */
interface ITwinOwnerTable {
  itwin_id: string;
  user_id: string;
}

/** Users bundled, to be given roles together. */
export interface UserGroupTable {
  id: string;
  itwin_id: string;
  name: string;
  description: string | null;
}

interface GroupUserTable {
  group_id: string;
  user_id: string;
}

/** One row for each role that a group has on an iTwin. */
interface GroupMemberTable {
  itwin_id: string;
  group_id: string;
  role_id: string;
}

/** A place outside where more of an iTwin's data is. */
export interface RepositoryTable {
  id: string;
  itwin_id: string;
  class: string;
  sub_class: string | null;
  uri: string;
  /** Null: its address stands for it. */
  display_name: string | null;
  /** JSON: what a client needs to use it, whatever that is. */
  options: string | null;
  /** JSON: the key or password that members use it with. */
  authentication: string | null;
}

export interface ITwinImageTable {
  itwin_id: string;
  id: string;
  small_blob_id: string;
  large_blob_id: string;
}

/** An address that hears of what happens in an iTwin. */
export interface WebhookTable {
  id: string;
  itwin_id: string;
  callback_url: string;
  /** Key of the signature; the server must have it as it is to sign. */
  secret: string;
  /** JSON list. */
  event_types: string;
  is_active: 0 | 1;
  creator_id: string;
  created_at: number;
  /** Deliveries that failed in a row. */
  failures: number;
  /** Nothing is sent before this time; null where its receiver does not fail. */
  paused_until: number | null;
}

export interface RoleTable {
  id: string;
  itwin_id: string;
  display_name: string;
  description: string | null;
  /** JSON list of permission names. */
  permissions: string;
}

/** One row for each role that a user has on an iTwin. */
interface MemberTable {
  itwin_id: string;
  user_id: string;
  role_id: string;
}

export interface BlobTable {
  id: string;
  store: string;
  /** Opaque and random: says nothing of the iModel, so that clones outlive it. Null until stored. */
  key: string | null;
  /** Bytes, as declared before the upload and enforced by it. */
  size: number;
  /** Of the stored bytes, hex; null until stored. */
  sha256: string | null;
  /** `refused` = the upload had another size than declared. */
  state: 'pending' | 'refused' | 'stored';
  created_at: number;
  /** Since when nothing refers to it; the collector removes it after its grace. */
  released_at: number | null;
  /** iTwin that had it stored, and on whose account it counts; it may be gone. Null: the server's own. */
  itwin_id: string | null;
  /** The same for its organization (`org:…`) or, without one, its maker (`user:…`). */
  account_id: string | null;
}

export interface BaselineTable {
  id: string;
  blob_id: string;
  state: BaselineState;
  created_at: number;
}

/** `owner_imodel_id` is the only iModel that may append; null once that is gone. */
interface SegmentTable {
  id: string;
  owner_imodel_id: string | null;
}

export interface ChangesetTable {
  segment_id: string;
  index: number;
  id: string;
  parent_id: string;
  blob_id: string;
  file_size: number;
  description: string | null;
  containing_changes: number;
  briefcase_id: number;
  creator_id: string;
  pushed_at: number;
  application_id: string;
  application_name: string;
  /** JSON `{taskId, changedFiles}` or null. */
  synchronization_info: string | null;
}

interface HistoryTable {
  id: string;
  created_at: number;
}

/** Ranges of one history, without gaps from index 1; the last range is open (`last_index` = openEnd). */
interface HistorySegmentTable {
  history_id: string;
  first_index: number;
  last_index: number;
  segment_id: string;
}

export interface IModelTable {
  id: string;
  itwin_id: string;
  name: string;
  /** Lower-case name: order of lists, the same on both databases. */
  name_order: string;
  /** Lower-case name and description: what `$search` looks in. */
  search_text: string;
  description: string | null;
  /** JSON extent or null. */
  extent: string | null;
  containers_enabled: number;
  geographic_crs: string | null;
  state: IModelState;
  baseline_id: string;
  /** Null while there is no changeset. */
  history_id: string | null;
  head_index: number;
  head_changeset_id: string;
  last_pushed_at: number | null;
  creator_id: string;
  created_at: number;
  /** Highest time given to anything of this iModel, so that its times strictly increase. */
  clock: number;
  next_briefcase_id: number;
  /**
   * Changesets up to this index were made elsewhere: they came with what the iModel was derived from. Which objects were locked
   * for them is not known here.
   */
  inherited_index: number;
  /** Which iModel-level permissions replace the iTwin's. */
  secured_by: 'roles' | 'users' | null;
  deleted_at: number | null;
  /** When its creation failed: it stays readable by its id and no longer holds its name. */
  failed_at: number | null;
}

/** iModel-level permissions of a role or a user; `secured_by` of the iModel says which of the two all of them are. */
interface IModelGrantTable {
  imodel_id: string;
  holder_id: string;
  /** JSON list of permission names. */
  permissions: string;
}

/** Everyone who ever connected to an iModel. */
interface IModelUserTable {
  imodel_id: string;
  user_id: string;
  first_access_at: number;
  /** To the minute. Null only in rows that an earlier version wrote beside this one. */
  last_access_at: number | null;
}

/** The one push in progress on an iModel: its row is the turn to push, a lease that runs out. */
export interface PendingChangesetTable {
  imodel_id: string;
  changeset_id: string;
  parent_id: string;
  briefcase_id: number;
  blob_id: string;
  description: string | null;
  containing_changes: number;
  creator_id: string;
  application_id: string;
  application_name: string;
  synchronization_info: string | null;
  created_at: number;
  lease_until: number;
  group_id: string | null;
  /** Briefcase that made the changeset, where it is not the one that pushes it (an import). */
  recorded_briefcase_id: number | null;
}

/** What is known of the upload of a blob while it may still be repeated: only where it takes long, comes in blocks or is a baseline. */
interface UploadTable {
  blob_id: string;
  /** When bytes last came in; written now and then while they do. */
  active_at: number;
  /** SHA-256 (hex) of the block list that was committed, and the sizes of its blocks (JSON); null while none was. */
  block_list_sha256: string | null;
  block_sizes: string | null;
}

/** A push whose turn went to another one before it was complete; kept for a day so that it is told why. */
interface AbandonedPushTable {
  imodel_id: string;
  changeset_id: string;
  briefcase_id: number;
  parent_id: string;
  /** Of its upload; its row may be gone. */
  blob_id: string;
  abandoned_at: number;
}

export interface BriefcaseTable {
  imodel_id: string;
  briefcase_id: number;
  owner_id: string;
  device_name: string | null;
  application_id: string;
  application_name: string;
  acquired_at: number;
}

export interface NamedVersionTable {
  id: string;
  imodel_id: string;
  name: string;
  search_text: string;
  description: string | null;
  /** 0 and `""` for the baseline. */
  changeset_index: number;
  changeset_id: string;
  state: 'visible' | 'hidden';
  creator_id: string;
  application_id: string;
  application_name: string;
  created_at: number;
}

export type HeldLockLevel = 'shared' | 'exclusive';

/** A lock that a briefcase holds on an object (hex id with 0x, lower case). */
export interface ObjectLockTable {
  imodel_id: string;
  object_id: string;
  briefcase_id: number;
  level: HeldLockLevel;
}

/** The highest changeset at which a lock on an object was released, and the level it was released from. */
export interface ReleasedLockTable {
  imodel_id: string;
  object_id: string;
  level: HeldLockLevel;
  changeset_index: number;
}

export interface ChangesetGroupTable {
  id: string;
  imodel_id: string;
  state: 'inProgress' | 'completed' | 'timedOut';
  description: string | null;
  creator_id: string;
  created_at: number;
  /** When a changeset last joined it. */
  touched_at: number | null;
}

interface GroupedChangesetTable {
  imodel_id: string;
  changeset_index: number;
  group_id: string;
}

export interface ExtendedDataTable {
  imodel_id: string;
  changeset_index: number;
  changeset_id: string;
  /** Base64 of JSON, as it came. */
  data: string;
}

/** An iModel or iTwin that a user marked for the own use. */
export interface MarkTable {
  user_id: string;
  kind: 'favorite' | 'recent';
  subject: 'imodel' | 'itwin';
  subject_id: string;
  marked_at: number;
}

interface ThumbnailTable {
  imodel_id: string;
  small_blob_id: string;
  large_blob_id: string;
}

export interface ShareTable {
  id: string;
  imodel_id: string;
  owner_id: string;
  name: string;
  permission: 'imodels_webview' | 'imodels_read';
  /** SHA-256 of the key, hex. */
  key_hash: string;
  created_at: number;
  expires_at: number;
}

export interface OperationTable {
  id: string;
  imodel_id: string;
  kind: 'create' | 'clone' | 'fork' | 'template';
  state: OperationState;
  cloned_from_imodel_id: string | null;
  cloned_from_changeset_id: string | null;
  /** Changesets of the result, for the reader of the operation. */
  changesets: number;
  failure_reason: string | null;
  created_at: number;
  finished_at: number | null;
  forked_from_imodel_id: string | null;
  forked_from_changeset_id: string | null;
  /** Names the relation between a fork and what it was forked from. */
  relationship_id: string | null;
  /** Of `changesets`, those that a transfer has brought over. */
  changesets_done: number;
  /** Bytes that a transfer has to bring over; 0 where nothing has to move. Those of checkpoints join when their turn comes. */
  bytes: number;
  bytes_done: number;
  /** Bytes of files that are on their way; lost with the process that carries them. */
  bytes_under_way: number;
}

/**
 * An iModel that is being copied into the store of another data center. It holds on to what it is made from until the last
 * file is there, so that the source may be deleted meanwhile.
 */
export interface TransferTable {
  imodel_id: string;
  /** Id of the store that it is copied to. */
  store: string;
  from_baseline_id: string;
  /** With `head_index`: the changesets to copy. */
  history_id: string | null;
  head_index: number;
  /** The baseline in the new store, once that has it. */
  baseline_id: string | null;
  /** Takes the changesets as they come over. */
  segment_id: string | null;
  /** The latest run of the present job; what an earlier one still writes does not count. */
  attempt: number;
  /** The latest run that brought something over. */
  fruitful_attempt: number;
  /** When the first run began. */
  begun_at: number | null;
}

/** Work that outlives the process that accepted it. */
export interface JobTable {
  id: string;
  kind: string;
  /** What it works on: a checkpoint, an iModel, a webhook. */
  subject_id: string;
  /** iTwin that it is for. */
  tenant: string;
  /** User on whose account it runs, so that none keeps the others waiting. */
  user_id: string;
  /** JSON, read by the handler of its kind. */
  payload: string;
  /** `failed` ones stay where their kind keeps them, for people to look at. */
  state: 'ready' | 'running' | 'failed';
  /** Not before this time. */
  run_at: number;
  /** Attempts begun; with the owner of the lease it fences off whoever lost it. */
  attempt: number;
  lease_owner: string | null;
  lease_until: number | null;
  /** Length of the wait or lease that `run_at` or `lease_until` ends, ms: one that ends later than this from now was made on a clock that has been set back, and is over. */
  wait_ms: number;
  last_error: string | null;
  created_at: number;
  /** `traceparent` of the request that accepted it, so that its spans go on from there. */
  trace: string | null;
}

/** 4 MiB of model files (the last one of a file less), stored once per content and store; its id is its name in containers, opaque and random. */
interface BlockTable {
  id: string;
  /** That of its blob, kept here too: once per content and store. */
  store: string;
  sha256: string;
  /** A blob of its own, or the baseline file in which it lies. */
  blob_id: string;
  /** Where it begins in the blob. */
  start: number;
}

/** An iModel file in blocks. The ids of iModel and iTwin are written over it, at these offsets, whenever it is read. */
export interface ModelFileTable {
  id: string;
  /** Bytes. */
  size: number;
  imodel_id_offset: number;
  itwin_id_offset: number;
  created_at: number;
}

interface ModelFileBlockTable {
  file_id: string;
  position: number;
  block_id: string;
}

type CheckpointState = 'scheduled' | 'successful' | 'failed';

/** What an iModel holds at one changeset: of a segment (`segment_id`), or at index 0 of a baseline (`baseline_id`). */
export interface CheckpointTable {
  id: string;
  segment_id: string | null;
  baseline_id: string | null;
  changeset_index: number;
  state: CheckpointState;
  file_id: string | null;
  /** Changesets applied so far, of those that were to be. */
  applied: number;
  to_apply: number;
  failure_reason: string | null;
  created_at: number;
  finished_at: number | null;
}

/** A POST request that may be repeated, and its answer. */
interface RepeatableRequestTable {
  /** Hash of user, application and `Idempotency-Key`, or of the whole request where the answer to one without a key was lost. */
  id: string;
  /** Hash of operation, address and body. */
  fingerprint: string;
  /** The run that may write; an earlier one that comes back must not. */
  run_id: string;
  /** A run without an answer holds the request for so long. */
  lease_until: number;
  /** Results of the transactions of its runs that were committed: JSON, encrypted. */
  outcomes: string | null;
  /** JSON, encrypted; null while it runs. */
  answer: string | null;
  /** Hash of what the request made, as it was when the answer was lost; null with a key. */
  made: string | null;
  expires_at: number;
}

export interface AuditTable {
  id: string;
  at: number;
  actor_id: string;
  application_id: string;
  action: string;
  itwin_id: string;
  imodel_id: string | null;
  /** JSON. */
  detail: string;
}

/** Keys that every server of one installation shares, such as the one that signs links. */
interface SecretTable {
  name: string;
  value: string;
}

/** `last_index` of an open range: above any index, within the safe integers of JavaScript and int8. */
export const openEnd = Number.MAX_SAFE_INTEGER;
