/**
 * The process that makes model files with iTwin.js: native code that blocks and may crash, so never in the server
 * itself. One request at a time, over IPC; files are the server's, in a folder of the request.
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

/** A changeset file to be applied. */
interface ChangesetFile {
  id: string;
  parentId: string;
  index: number;
  path: string;
  /** Changes schemas too. */
  schema: boolean;
}

/** What the server asks for. `file` is changed in place. */
export interface WorkRequest {
  file: string;
  changesets: ChangesetFile[];
  /** `baseline`: forgets which changeset it was made from, and may stand alone. */
  purpose: 'checkpoint' | 'baseline';
  /** Also count the elements that have no FederationGuid. */
  countMissingGuids: boolean;
}

/** A finished file and where its ids lie, proven by the library itself. */
export interface WorkResult extends IdentityOffsets {
  missingGuids: number;
  /** The highest briefcase that made anything in the file. */
  highestBriefcaseId: number;
}

/**
 * Why a file cannot be worked on; another attempt meets it again. `notAnIModel` and `briefcase` are known of the file
 * itself; `unreadable` says no more than that this version of iTwin.js cannot do it.
 */
export type FaultKind = 'notAnIModel' | 'briefcase' | 'unreadable';

/**
 * What the process tells: each `applied` as it happens, one of the last two at the end. `fault` is for users, `detail`
 * for the log.
 */
export type WorkerMessage =
  | { applied: number }
  | { result: WorkResult }
  | { fault: string; kind: FaultKind; detail: string; highestBriefcaseId: number };

/** A fault of the files, in words for users. */
class FileFault extends Error {
  readonly kind: FaultKind;
  /** The highest briefcase that made anything in a baseline that is kept all the same; 0 otherwise. */
  highestBriefcaseId = 0;
  constructor(message: string, kind: FaultKind, options?: ErrorOptions) {
    super(message, options);
    this.kind = kind;
  }
}

/**
 * Places at which an id is looked for: a real file has one or two; one in which its id was planted many times must not
 * be opened for each.
 */
const maxIdCandidates = 8;

/** How changesets are told to the library: 0 data, 1 with schemas. */
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

/** A baseline that iTwin.js cannot open is kept: the ids in it are taken all the same. */
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
  // A baseline that needs nothing stays as it is, byte for byte: then its blocks are those of the file in the store.
  if (request.changesets.length === 0 && isClean(file)) {
    const places = identityByBytes(file, '');
    if (places !== undefined)
      return { ...places, missingGuids: missing(), highestBriefcaseId: highestBriefcaseIn(file) };
  }
  const changesetId = prepare(request);
  const places = findIdentity(file, changesetId);
  // Like in every other file, so that equal content gives equal blocks.
  for (const offset of [places.iModelIdOffset, places.iTwinIdOffset]) writeAt(file, offset, Buffer.alloc(16));
  return { ...places, missingGuids: missing(), highestBriefcaseId: highestBriefcaseIn(file) };
}

/** Profiles of an iModel file, each on top of the one before it. */
const profiles = { be_Db: 'BeDb', ec_Db: 'ECDb', dgn_Db: 'DgnDb' } as const;

/**
 * Looks at a file without iTwin.js, whose version says nothing of whether it may be stored.
 * @throws FileFault when it is no iModel, or somebody's briefcase, which may hold work that was never pushed
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

/** Versions of the profiles of an iModel file, such as `BeDb 3.1.0.2`. @throws Error when it has none */
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

/** Why iTwin.js cannot open a file that is an iModel, in words for users. */
function unreadable(file: string, error: unknown): FileFault {
  const key = errorNameOf(error);
  const by = `iTwin.js ${iTwinJsVersion()}, by which this server makes checkpoints`;
  let versions = '';
  try {
    const db = new DatabaseSync(file, { readOnly: true });
    try {
      versions = ` (${versionsIn(db)})`;
    } finally {
      db.close();
    }
  } catch {
    // What its versions are is part of what is wrong with it.
  }
  const words = key.includes('ProfileTooOld')
    ? `The format of the file${versions} is too old for ${by}.`
    : /ProfileTooNew|InvalidProfileVersion/.test(key)
      ? `The format of the file${versions} is not known to ${by}: that takes a later version.`
      : `The file cannot be opened by ${by} (${key}).`;
  return new FileFault(words, 'unreadable', { cause: error });
}

/** The name of an error of iTwin.js, without its text, which has paths in it. */
function errorNameOf(error: unknown): string {
  const { iTwinErrorId, errorNumber } = error as { iTwinErrorId?: { key?: string }; errorNumber?: number };
  return iTwinErrorId?.key ?? (errorNumber === undefined ? 'unknown error' : `error ${errorNumber}`);
}

/**
 * Looks at the schema of a file before the library opens it: triggers, defaults and views of an uploaded file would run
 * with whatever the library does to it.
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
    // What else is wrong with it is told by what follows.
    if (error instanceof ForbiddenDdlError)
      throw new FileFault(`The file cannot be used as an iModel: ${error.message}.`, 'unreadable', { cause: error });
  } finally {
    db?.close();
  }
}

/**
 * Whether a file is a baseline as it should be: nobody's briefcase, nothing unsaved, at no changeset, with both ids.
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

/** Brings the file to its changeset, free of anybody's briefcase and unsaved work. @returns the changeset it is at */
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
    // Random ones, which occur nowhere else in the file: that is how their places are found. Setting them forgets the
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
      throw new FileFault(`Changeset ${index} (${id}) cannot be applied: its bytes do not give its id.`, 'unreadable');
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
 * What a changeset would have the library do, looked at before it does it. The library's own reader tells the
 * statements, so that they are the ones that it would execute.
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
 * Finds where the two ids lie, by looking for the bytes just written, and proves each place: other ids are written over
 * them, and the library must then read those, and the same changeset as before.
 */
function findIdentity(file: string, changesetId: string): IdentityOffsets {
  const found = identityByBytes(file, changesetId);
  if (found !== undefined) return found;
  // Old pages may hold copies that mislead; a file written anew has none.
  const db = new DatabaseSync(file);
  db.exec('vacuum');
  db.close();
  const again = identityByBytes(file, changesetId);
  if (again === undefined) throw new FileFault('The places of its ids cannot be found in the file.', 'unreadable');
  return again;
}

function identityByBytes(file: string, changesetId: string): IdentityOffsets | undefined {
  const before = identityOf(file);
  const iModelIdOffsets = findInFile(file, guidBytes(before.iModelId), maxIdCandidates + 1);
  const iTwinIdOffsets = findInFile(file, guidBytes(before.iTwinId), maxIdCandidates + 1);
  if (iModelIdOffsets.length > maxIdCandidates || iTwinIdOffsets.length > maxIdCandidates) return undefined;
  for (const iModelIdOffset of iModelIdOffsets) {
    for (const iTwinIdOffset of iTwinIdOffsets) {
      const other = { iModelId: randomUUID(), iTwinId: randomUUID() };
      writeAt(file, iModelIdOffset, guidBytes(other.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(other.iTwinId));
      const now = identityOf(file);
      writeAt(file, iModelIdOffset, guidBytes(before.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(before.iTwinId));
      if (now.iModelId === other.iModelId && now.iTwinId === other.iTwinId && now.changesetId === changesetId)
        return { iModelIdOffset, iTwinIdOffset };
    }
  }
  return undefined;
}

function identityOf(file: string): { iModelId: string; iTwinId: string; changesetId: string } {
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
