import type { Generated } from 'kysely';
import type { BaselineState, IModelState, OperationState } from '../domain.ts';
import type {
  UserAccountTable,
  ITwinTable,
  ITwinOwnerTable,
  UserGroupTable,
  GroupUserTable,
  GroupMemberTable,
  RepositoryTable,
  ITwinImageTable,
  WebhookTable,
  RoleTable,
  MemberTable,
} from './schemaOfITwins.ts';

/**
 * The tables, one type each. Both databases store the same values: ids as text, times as integer milliseconds since 1970
 * (so that both order them exactly), JSON as text, flags as integers.
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
  imodel: IModelTable;
  deleted_imodel: DeletedIModelTable;
  imodel_grant: IModelGrantTable;
  imodel_user: IModelUserTable;
  push_count: PushCountTable;
  search_key: SearchKeyTable;
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
  graphics: GraphicsTable;
  graphics_file: GraphicsFileTable;
  transfer: TransferTable;
  operation: OperationTable;
  repeatable_request: RepeatableRequestTable;
  audit: AuditTable;
  secret: SecretTable;
  orphan_check: OrphanCheckTable;
  sign_in_password: SignInPasswordTable;
  sign_in_state: SignInStateTable;
}

export interface BlobTable {
  id: string;
  store: string;
  /** Opaque and random: independent of the iModel, because clones can outlive it. Null until stored. */
  key: string | null;
  /** Bytes, as declared before the upload and enforced by it. */
  size: number;
  /** Of the stored bytes, hex; null until stored. */
  sha256: string | null;
  /** `refused` = the upload had another size than declared. */
  state: 'pending' | 'refused' | 'stored';
  created_at: number;
  /** Time of the last reference's removal; the collector removes the blob after the grace period. */
  released_at: number | null;
  /** iTwin whose quota it counts against; the iTwin may be deleted. Null for blobs of the server itself. */
  itwin_id: string | null;
  /** The same for the organization (`org:…`) or, without one, the user (`user:…`). */
  account_id: string | null;
}

export interface BaselineTable {
  id: string;
  blob_id: string;
  state: BaselineState;
  created_at: number;
}

/** `owner_imodel_id` is the only iModel that may append; null once that iModel is deleted. */
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

/** The changesets of its own segment, and before them what the parent has up to the index before `first_index`. Never changed. */
interface HistoryTable {
  id: string;
  created_at: number;
  /** No other history has this segment. */
  segment_id: string;
  /** Index of the first changeset of the segment. */
  first_index: number;
  /** Null if it begins at the baseline. */
  parent_id: string | null;
  /** Number of ancestors. */
  depth: number;
  /** An ancestor, see `jumps.ts`, and its `first_index`. An ancestor lives as long as its descendants. */
  jump_id: string | null;
  jump_first_index: number | null;
}

export interface IModelTable {
  id: string;
  itwin_id: string;
  name: string;
  /** Lower-case name: sort key that orders lists the same way on both databases. */
  name_order: string;
  /** Lower-case name and description, searched by `$search`. */
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
  /** Latest timestamp issued for this iModel, so that its timestamps strictly increase. */
  clock: number;
  next_briefcase_id: number;
  /**
   * Changesets up to this index were inherited when the iModel was derived. The objects that were locked for them are
   * unknown.
   */
  inherited_index: number;
  /** Kind of iModel-level permissions that replace those of the iTwin, if any. */
  secured_by: 'roles' | 'users' | null;
  deleted_at: number | null;
  /** When its creation failed: it stays readable by id, and its name is free again. */
  failed_at: number | null;
  /** The first ancestor of a derived iModel, deleted or not. This and the columns after it are null for others. */
  lineage_id: string | null;
  /** What it was derived from, deleted or not. */
  source_id: string | null;
  source_kind: DerivationKind | null;
  /** The last changeset of the source that went into it; index and id are null if unknown. */
  source_index: number | null;
  source_changeset_id: string | null;
  /** Its number in the search index; null while it is not in it. */
  search_doc: number | null;
}

/** The ways to derive an iModel from another one. */
export type DerivationKind = 'clone' | 'fork' | 'template';

/** A deleted iModel from which others were derived. Its row lasts as long as theirs. */
interface DeletedIModelTable extends Pick<
  IModelTable,
  'id' | 'lineage_id' | 'source_id' | 'source_kind' | 'source_index' | 'source_changeset_id'
> {
  /** Null if it was deleted before lineage was recorded. */
  itwin_id: string | null;
  created_at: number | null;
  deleted_at: number | null;
}

/** iModel-level permissions of a role or a user; `secured_by` of the iModel says which of the two all of them are. */
interface IModelGrantTable {
  imodel_id: string;
  holder_id: string;
  /** JSON list of permission names. */
  permissions: string;
}

/** Every user who has ever accessed an iModel. */
interface IModelUserTable {
  imodel_id: string;
  user_id: string;
  first_access_at: number;
  /** Accurate to the minute. Null only in rows written by an earlier version running at the same time. */
  last_access_at: number | null;
  /** Those of the account, kept by triggers: orders of the list. */
  given_name: Generated<string>;
  surname: Generated<string>;
}

/** The changesets that a user pushed to an iModel itself. A trigger of `changeset` counts them. */
interface PushCountTable {
  imodel_id: string;
  user_id: string;
  pushes: number;
  last_pushed_at: number;
}

/** Keys of the texts of iModels, for `$search`. */
interface SearchKeyTable {
  /** Hash of three characters that follow each other in the text, and of the iTwin. */
  key: number;
  /** `search_doc` of the iModel. */
  doc: number;
}

/** The one push in progress on an iModel; the row acts as an expiring lock (lease). */
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
  /** Briefcase that created the changeset, if it is not the one that pushes it (an import). */
  recorded_briefcase_id: number | null;
}

/** State of an upload that may still be repeated: only for long uploads, block uploads and baselines. */
interface UploadTable {
  blob_id: string;
  /** When bytes were last received; updated periodically during the upload. */
  active_at: number;
  /** SHA-256 (hex) of the committed block list, and the sizes of its blocks (JSON); null before the commit. */
  block_list_sha256: string | null;
  block_sizes: string | null;
}

/** A push whose lease expired and passed to another push; kept for a day to explain the failure to its client. */
interface AbandonedPushTable {
  imodel_id: string;
  changeset_id: string;
  briefcase_id: number;
  parent_id: string;
  /** Blob of its upload; the blob row may be deleted. */
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
  /** How many versions of the iModel its creator has made, up to this one. The database fills it. */
  creator_count?: number | null | undefined;
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
  /** Base64-encoded JSON, as received. */
  data: string;
}

/** A favorite or recent iModel or iTwin of a user. */
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
  /** Number of changesets of the new iModel, as shown in the operation. */
  changesets: number;
  failure_reason: string | null;
  created_at: number;
  finished_at: number | null;
  forked_from_imodel_id: string | null;
  forked_from_changeset_id: string | null;
  /** Id of the relationship between a fork and its source. */
  relationship_id: string | null;
  /** Number of `changesets` that a transfer has copied. */
  changesets_done: number;
  /** Bytes that a transfer has to copy; 0 without a transfer. Bytes of checkpoints are added when their copying starts. */
  bytes: number;
  bytes_done: number;
  /** Bytes copied so far of unfinished files; lost if the process ends. */
  bytes_under_way: number;
}

/**
 * A transfer of an iModel to the store of another data center. It references the source files until all are copied, so
 * that the source may be deleted in the meantime.
 */
export interface TransferTable {
  imodel_id: string;
  /** Id of the store that it is copied to. */
  store: string;
  from_baseline_id: string;
  /** With `head_index`: the changesets to copy. */
  history_id: string | null;
  head_index: number;
  /** The baseline in the target store, once it is copied. */
  baseline_id: string | null;
  /** Segment of the copied changesets. */
  segment_id: string | null;
  /** The latest attempt of the current job; writes of earlier attempts are rejected. */
  attempt: number;
  /** The latest attempt that made progress. */
  fruitful_attempt: number;
  /** When the first attempt started. */
  begun_at: number | null;
}

/** A durable job. */
export interface JobTable {
  id: string;
  kind: string;
  /** Id of a checkpoint, an iModel or a webhook, depending on the kind. */
  subject_id: string;
  /** Id of the iTwin that the job belongs to. */
  tenant: string;
  /** User that the job counts for in the fair order. */
  user_id: string;
  /** JSON, interpreted by the handler of its kind. */
  payload: string;
  /** Rows stay as `failed` only for kinds with `keepFailed`, so that an administrator can inspect them. */
  state: 'ready' | 'running' | 'failed';
  /** Earliest start. */
  run_at: number;
  /** Attempts started; together with the lease owner, it fences off servers that lost the lease. */
  attempt: number;
  lease_owner: string | null;
  lease_until: number | null;
  /** Duration in ms of the delay or lease that ends at `run_at` or `lease_until`. If more than this is left, the clock has been set back since, and the delay or lease counts as expired. */
  wait_ms: number;
  last_error: string | null;
  created_at: number;
  /** `traceparent` of the request that enqueued it, so that the spans of the job join its trace. */
  trace: string | null;
}

/** A block of a model file: 4 MiB (the last block of a file may be shorter), stored once per content and store. Its id is its opaque, random name in containers. */
interface BlockTable {
  id: string;
  /** Store of its blob, repeated here for the unique index over content and store. */
  store: string;
  sha256: string;
  /** A blob for this block alone, or the baseline file that contains the block. */
  blob_id: string;
  /** Offset in the blob. */
  start: number;
}

/** An iModel file in blocks. Every read overwrites the iModel and iTwin ids at these offsets with those of the reading iModel. */
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

/** The content of an iModel at one changeset: of a segment (`segment_id`), or of a baseline (`baseline_id`) at index 0. */
export interface CheckpointTable {
  id: string;
  segment_id: string | null;
  baseline_id: string | null;
  changeset_index: number;
  state: CheckpointState;
  file_id: string | null;
  /** Changesets applied so far, out of `to_apply`. */
  applied: number;
  to_apply: number;
  failure_reason: string | null;
  created_at: number;
  finished_at: number | null;
}

/** The graphics of an iModel at one changeset: what a viewer shows, and a picture. Keyed like a checkpoint. */
export interface GraphicsTable {
  id: string;
  segment_id: string | null;
  baseline_id: string | null;
  changeset_index: number;
  state: CheckpointState;
  failure_reason: string | null;
  /** `GraphicsSummary` as JSON; null until the graphics are drawn. */
  summary: string | null;
  /** 1 if there are files of kind `small` and `large`. */
  has_picture: number;
  created_at: number;
  finished_at: number | null;
}

/** A file of graphics. Files of equal content share one blob. */
export interface GraphicsFileTable {
  graphics_id: string;
  /** `chunk`: geometry. `elements`: the table of elements. `small`, `large`: the picture. */
  kind: 'chunk' | 'elements' | 'small' | 'large';
  /** Order of the chunks, in which a viewer loads them; 0 for the other kinds. */
  position: number;
  blob_id: string;
  /** `ChunkDetail` as JSON; null for the other kinds. */
  detail: string | null;
}

/** A repeatable POST request and its response. */
interface RepeatableRequestTable {
  /** Hash of user, application and `Idempotency-Key`, or of the whole request if it had no key and its response was lost. */
  id: string;
  /** Hash of operation, address and body. */
  fingerprint: string;
  /** The run that may write; writes of earlier runs are rejected. */
  run_id: string;
  /** Until when a run without a response holds the request. */
  lease_until: number;
  /** Results of the transactions that its runs committed: encrypted JSON. */
  outcomes: string | null;
  /** Response as encrypted JSON; null while the request runs. */
  answer: string | null;
  /** Hash of what the request created, in its state when the response was lost; null for a request with a key. */
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

/** A row that lost a reference, so that the collector has to look whether anything still refers to it. Written by triggers. */
export interface OrphanCheckTable {
  id: Generated<string>;
  kind: 'segment' | 'modelFile' | 'block';
  subject_id: string;
  /** ms since 1970 */
  due_at: number;
}

/** Keys shared by all servers of an installation, such as the key that signs links. */
interface SecretTable {
  name: string;
  value: string;
}

/** The password of a user of the users file. */
interface SignInPasswordTable {
  user_id: string;
  hash: string;
  changed_at: number;
}

/** What the embedded OpenID Provider remembers: sessions, grants, codes, refresh tokens, clients and one-time links. */
export interface SignInStateTable {
  kind: string;
  /** A hash where the id itself is a credential. */
  id: string;
  /** JSON. */
  payload: string;
  account_id: string | null;
  grant_id: string | null;
  /** Second key of a session. */
  uid: string | null;
  /** Code that a user enters for a device. */
  user_code: string | null;
  consumed_at: number | null;
  /** Null for what does not expire. */
  expires_at: number | null;
}
