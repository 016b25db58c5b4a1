/**
 * The process that makes model files with iTwin.js. Its native code blocks and may crash, so it must not run in the
 * server. Handles one request at a time over IPC. The server creates the folder of each request and owns its files.
 */
import { DatabaseSync } from 'node:sqlite';
import { randomUUID } from 'node:crypto';
import { inspect } from 'node:util';
import { IModelNative } from '@itwin/core-backend';
import { OpenMode } from '@itwin/core-bentley';
import { maxUnpackedBytes } from '../../changesets/changesetId.ts';
import { firstBriefcaseId } from '../../briefcases/counter.ts';
import { checkDdl, checkSchema, ForbiddenDdlError, type SchemaEntry } from './ddl.ts';
import { startITwinJs } from './itwinjs.ts';
import { highestBriefcaseIn } from './usedBriefcases.ts';
import { findInFile, guidBytes, writeAt, type IdentityOffsets } from '../identity.ts';
import { iTwinJsVersion } from './itwinjsVersion.ts';

/** A changeset file to apply. */
interface ChangesetFile {
  id: string;
  parentId: string;
  index: number;
  path: string;
  /** Whether it changes schemas. */
  schema: boolean;
}

/** A request of the server. `file` is changed in place. */
export interface WorkRequest {
  file: string;
  changesets: ChangesetFile[];
  /** `baseline`: the file no longer names the changeset it was made from, so that it can start a new history. */
  purpose: 'checkpoint' | 'baseline';
  /** Whether to count the elements without FederationGuid. */
  countMissingGuids: boolean;
}

/** A finished file and the offsets of its ids, verified with iTwin.js. */
export interface WorkResult extends IdentityOffsets {
  missingGuids: number;
  /** The highest briefcase id that was used to create ids in the file. */
  highestBriefcaseId: number;
}

/**
 * Why a file cannot be processed. Another attempt would fail the same way. `notAnIModel` and `briefcase` are properties
 * of the file itself; `unreadable` only means that this version of iTwin.js cannot process it.
 */
export type FaultKind = 'notAnIModel' | 'briefcase' | 'unreadable';

/**
 * Messages of the process: `applied` after each changeset, then `result` or `fault` at the end. `fault` is shown to
 * users, `detail` goes to the log.
 */
export type WorkerMessage<Result = WorkResult> =
  | { applied: number }
  | { result: Result }
  | { fault: string; kind: FaultKind; detail: string; highestBriefcaseId: number };

/** A file cannot be processed. The message is shown to users. */
class FileFault extends Error {
  readonly kind: FaultKind;
  /** The highest briefcase id used in a baseline that is kept despite the fault; 0 otherwise. */
  highestBriefcaseId = 0;
  constructor(message: string, kind: FaultKind, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/**
 * Maximum number of occurrences of an id that are tried. A real file has one or two. The limit prevents a file with
 * many planted copies from being opened for each of them.
 */
const maxIdCandidates = 8;

/** Type of a changeset for the library: 0 for data only, 1 if it changes schemas. */
const changesType = (changeset: ChangesetFile): number => (changeset.schema ? 1 : 0);

process.on('message', (request: WorkRequest | 'end') => {
  if (request === 'end') process.exit(0);
  started
    .then(() => handleRequest(request))
    .then(
      (result) => send({ result }),
      (error: unknown) =>
        error instanceof FileFault
          ? send({
              fault: error.message,
              kind: error.kind,
              detail: inspect(error),
              highestBriefcaseId: error.highestBriefcaseId,
            })
          : crash(error),
    );
});
process.on('disconnect', () => process.exit(0));
const started = startITwinJs({ cacheDir: process.argv[2] ?? '.' });
started.catch(crash);

function send(message: WorkerMessage): void {
  process.send?.(message);
}

function crash(error: unknown): never {
  console.error(error);
  process.exit(1);
}

/**
 * Runs a request. A baseline that iTwin.js cannot open is kept, so the error carries the highest briefcase id in it.
 */
function handleRequest(request: WorkRequest): WorkResult {
  try {
    return work(request);
  } catch (error) {
    if (error instanceof FileFault && error.kind === 'unreadable' && request.purpose === 'baseline')
      error.highestBriefcaseId = highestBriefcaseIn(request.file);
    throw error;
  }
}

function work(request: WorkRequest): WorkResult {
  const { file } = request;
  requireSafeSchema(file);
  if (request.purpose === 'baseline') requireBaseline(file);
  const missing = (): number => (request.countMissingGuids ? countMissingGuids(file) : 0);
  // A clean baseline is not changed, so that its blocks are the same bytes as in the stored file.
  if (request.changesets.length === 0 && isClean(file)) {
    const offsets = locateIds(file, '');
    if (offsets !== undefined)
      return { ...offsets, missingGuids: missing(), highestBriefcaseId: highestBriefcaseIn(file) };
  }
  const changesetId = prepare(request);
  const offsets = requireIdOffsets(file, changesetId);
  // Zero ids, as in every other stored file, so that equal content gives equal blocks.
  for (const offset of [offsets.iModelIdOffset, offsets.iTwinIdOffset]) writeAt(file, offset, Buffer.alloc(16));
  return { ...offsets, missingGuids: missing(), highestBriefcaseId: highestBriefcaseIn(file) };
}

/** Profiles of an iModel file. Each extends the previous one. */
const profiles = { be_Db: 'BeDb', ec_Db: 'ECDb', dgn_Db: 'DgnDb' } as const;

/**
 * Checks a file without iTwin.js, because the version of iTwin.js must not decide whether a file may be stored.
 * @throws FileFault if the file is not an iModel, or is a user's briefcase, which may contain changes that were never
 * pushed
 */
function requireBaseline(file: string): void {
  let briefcaseId: number;
  try {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      versionsIn(db);
      const row = db.prepare("select Val as value from be_Local where Name = 'be_repositoryid'").get() as
        { value: Uint8Array | number | null } | undefined;
      briefcaseId =
        row?.value instanceof Uint8Array && row.value.length >= 4
          ? Buffer.from(row.value).readUInt32LE(0)
          : Number(row?.value ?? 0);
    } finally {
      db.close();
    }
  } catch (error) {
    throw new FileFault(
      'The baseline file is not an iModel: it is a SQLite file without the tables of one, or damaged.',
      'notAnIModel',
      { cause: error },
    );
  }
  if (briefcaseId >= firstBriefcaseId)
    throw new FileFault(`The baseline file is a briefcase (number ${briefcaseId}).`, 'briefcase');
}

/** Versions of the profiles of an iModel file, such as `BeDb 3.1.0.2`. @throws Error if it has none */
function versionsIn(db: DatabaseSync): string {
  const rows = db
    .prepare("select Namespace as profile, StrData as version from be_Prop where Name = 'SchemaVersion'")
    .all() as { profile: string; version: string }[];
  return Object.entries(profiles)
    .map(([namespace, name]) => {
      const { major, minor, sub1, sub2 } = JSON.parse(
        rows.find(({ profile }) => profile === namespace)?.version ?? 'null',
      ) as Record<string, number>;
      return `${name} ${[major, minor, sub1, sub2].map((number) => Number(number)).join('.')}`;
    })
    .join(', ');
}

/** Explains to users why iTwin.js cannot open an iModel file. */
function unreadable(file: string, error: unknown): FileFault {
  const key = errorNameOf(error);
  const by = `iTwin.js ${iTwinJsVersion()}, which makes the checkpoints of this server`;
  let versions = '';
  try {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      versions = ` (${versionsIn(db)})`;
    } finally {
      db.close();
    }
  } catch {
    // The versions cannot be read either, so the message omits them.
  }
  const words = key.includes('ProfileTooOld')
    ? `The format of the file${versions} is too old for ${by}.`
    : /ProfileTooNew|InvalidProfileVersion/.test(key)
      ? `The format of the file${versions} is not known to ${by}. A later version is required.`
      : `The file cannot be opened by ${by} (${key}).`;
  return new FileFault(words, 'unreadable', { cause: error });
}

/** The name of an iTwin.js error. Its text is omitted because it contains paths. */
function errorNameOf(error: unknown): string {
  const { iTwinErrorId, errorNumber } = error as { iTwinErrorId?: { key?: string }; errorNumber?: number };
  return iTwinErrorId?.key ?? (errorNumber === undefined ? 'unknown error' : `error ${errorNumber}`);
}

/**
 * Checks the schema of a file before iTwin.js opens it, because triggers, defaults and views of an uploaded file would
 * run when iTwin.js reads or writes the file.
 */
function requireSafeSchema(file: string): void {
  let db: DatabaseSync | undefined;
  try {
    db = new DatabaseSync(file, { readOnly: true });
    db.exec('pragma trusted_schema = off; pragma cell_size_check = on');
    checkSchema(
      db.prepare('select type, name, sql from sqlite_schema').iterate() as Iterable<unknown> as Iterable<SchemaEntry>,
    );
  } catch (error) {
    // Other errors are reported by the steps that follow.
    if (error instanceof ForbiddenDdlError)
      throw new FileFault(`The file cannot be used as an iModel: ${error.message}.`, 'unreadable', { cause: error });
  } finally {
    db?.close();
  }
}

/**
 * Whether a file is a clean baseline: no briefcase, no pending transactions, at no changeset, and with both ids set.
 */
function isClean(file: string): boolean {
  const db = open(file, OpenMode.Readonly);
  try {
    return (
      !db.hasPendingTxns() &&
      db.getBriefcaseId() === 0 &&
      db.getCurrentChangeset().id === '' &&
      [db.getIModelId(), db.getITwinId()].every((id) => /[1-9a-f]/i.test(id))
    );
  } finally {
    db.closeFile();
  }
}

/**
 * Applies the changesets and removes the briefcase id and pending transactions.
 * @returns the id of the changeset that the file records
 */
function prepare({ file, changesets, purpose }: WorkRequest): string {
  const db = open(file, OpenMode.ReadWrite);
  try {
    if (db.hasPendingTxns()) db.deleteAllTxns();
    if (db.getBriefcaseId() !== 0) db.resetBriefcaseId(0);
    for (const changeset of changesets) {
      applyChangeset(db, changeset);
      send({ applied: changeset.index });
    }
    db.saveChanges();
    const at = db.getCurrentChangeset();
    // Random ids occur nowhere else in the file, so their offsets can be found. Setting them also resets the recorded
    // changeset.
    db.setITwinId(randomUUID());
    db.setIModelId(randomUUID());
    const kept = purpose === 'checkpoint' && at.id !== '';
    if (kept) {
      db.saveLocalValue('ParentChangeSetId', at.id);
      db.saveLocalValue('parentChangeSet', JSON.stringify(at));
    } else {
      db.deleteLocalValue('ParentChangeSetId');
      db.deleteLocalValue('parentChangeSet');
    }
    db.saveChanges();
    return kept ? at.id : '';
  } finally {
    db.closeFile();
  }
}

type NativeFile = InstanceType<typeof IModelNative.platform.DgnDb>;

function open(file: string, mode: OpenMode): NativeFile {
  const db = new IModelNative.platform.DgnDb();
  try {
    db.openIModel(file, mode);
  } catch (error) {
    throw unreadable(file, error);
  }
  return db;
}

function applyChangeset(db: NativeFile, changeset: ChangesetFile): void {
  const { id, parentId, index, path: pathname } = changeset;
  try {
    requireSafeContents(changeset);
    if (IModelNative.platform.DgnDb.computeChangesetId({ parentId, pathname }) !== id)
      throw new FileFault(
        `Changeset ${index} (${id}) cannot be applied: its id does not match its bytes.`,
        'unreadable',
      );
    db.applyChangeset(
      {
        id,
        parentId,
        index,
        pathname,
        changesType: changesType(changeset),
        description: '',
        pushDate: '',
        userCreated: '',
        briefcaseId: 0,
      },
      false,
    );
  } catch (error) {
    db.abandonChanges();
    if (error instanceof FileFault) throw error;
    throw new FileFault(
      `Changeset ${index} (${id}) cannot be applied: iTwin.js ${iTwinJsVersion()} refuses it (${errorNameOf(error)}).`,
      'unreadable',
      { cause: error },
    );
  }
}

/**
 * Checks what a changeset would make the library execute, before applying it. The statements come from the library's
 * own reader, so they are exactly those that it would execute.
 */
function requireSafeContents({ id, index, path: pathname }: ChangesetFile): void {
  const refusal = (why: string, cause?: unknown): FileFault =>
    new FileFault(`Changeset ${index} (${id}) cannot be applied: ${why}.`, 'unreadable', { cause });
  const bytes = Number(IModelNative.platform.RevisionUtility.getUncompressSize(pathname));
  if (bytes > maxUnpackedBytes) throw refusal(`its contents have more than ${maxUnpackedBytes / 2 ** 30} GiB`);
  const reader = new IModelNative.platform.ChangesetReader();
  try {
    reader.openFile(pathname, false);
    checkDdl(reader.getDdlChanges() ?? '');
  } catch (error) {
    throw error instanceof ForbiddenDdlError ? refusal(error.message, error) : error;
  } finally {
    reader.close();
  }
}

/**
 * Finds the offsets of the two ids by searching for the bytes just written. Verifies each candidate by writing other
 * ids there: the library must then read those ids, and the same changeset as before.
 */
function requireIdOffsets(file: string, changesetId: string): IdentityOffsets {
  const found = locateIds(file, changesetId);
  if (found !== undefined) return found;
  // Free pages may contain old copies of the ids. VACUUM writes a file without free pages.
  const db = new DatabaseSync(file);
  db.exec('vacuum');
  db.close();
  const again = locateIds(file, changesetId);
  if (again === undefined) throw new FileFault('The ids of the iModel cannot be located in the file.', 'unreadable');
  return again;
}

function locateIds(file: string, changesetId: string): IdentityOffsets | undefined {
  const before = readIds(file);
  const iModelIdOffsets = findInFile(file, guidBytes(before.iModelId), maxIdCandidates + 1);
  const iTwinIdOffsets = findInFile(file, guidBytes(before.iTwinId), maxIdCandidates + 1);
  if (iModelIdOffsets.length > maxIdCandidates || iTwinIdOffsets.length > maxIdCandidates) return undefined;
  for (const iModelIdOffset of iModelIdOffsets) {
    for (const iTwinIdOffset of iTwinIdOffsets) {
      const other = { iModelId: randomUUID(), iTwinId: randomUUID() };
      writeAt(file, iModelIdOffset, guidBytes(other.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(other.iTwinId));
      const now = readIds(file);
      writeAt(file, iModelIdOffset, guidBytes(before.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(before.iTwinId));
      if (now.iModelId === other.iModelId && now.iTwinId === other.iTwinId && now.changesetId === changesetId)
        return { iModelIdOffset, iTwinIdOffset };
    }
  }
  return undefined;
}

function readIds(file: string): { iModelId: string; iTwinId: string; changesetId: string } {
  const db = open(file, OpenMode.Readonly);
  try {
    return {
      iModelId: db.getIModelId().toLowerCase(),
      iTwinId: db.getITwinId().toLowerCase(),
      changesetId: db.getCurrentChangeset().id,
    };
  } finally {
    db.closeFile();
  }
}

function countMissingGuids(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    return db.prepare('select count(*) as missing from bis_Element where FederationGuid is null').get()?.[
      'missing'
    ] as number;
  } finally {
    db.close();
  }
}
