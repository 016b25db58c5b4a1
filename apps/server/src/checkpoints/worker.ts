/**
 * The process that makes model files with iTwin.js: native code that blocks and may crash, so never in the server itself.
 * One request at a time, over IPC; files are the server's, in a folder of the request.
 */
import { DatabaseSync } from 'node:sqlite';
import { randomUUID } from 'node:crypto';
import { IModelNative } from '@itwin/core-backend';
import { OpenMode } from '@itwin/core-bentley';
import { startITwinJs } from './itwinjs.ts';
import { findInFile, guidBytes, writeAt, type IdentityOffsets } from './identity.ts';

/** A changeset file to be applied. */
export interface ChangesetFile {
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
  /** Briefcase that the file was; 0 for nobody's. */
  briefcaseId: number;
}

/** What the process tells: each `applied` as it happens, one of the last two at the end. */
export type WorkerMessage = { applied: number } | { result: WorkResult } | { fault: string };

/** A fault of the files, told in words; another attempt meets it again. */
class FileFault extends Error {}

/** How changesets are told to the library: 0 data, 1 with schemas. */
const changesType = (changeset: ChangesetFile): number => (changeset.schema ? 1 : 0);

process.on('message', (request: WorkRequest | 'end') => {
  if (request === 'end') process.exit(0);
  started
    .then(() => work(request))
    .then(
      (result) => tell({ result }),
      (error: unknown) => (error instanceof FileFault ? tell({ fault: error.message }) : crash(error)),
    );
});
process.on('disconnect', () => process.exit(0));
const started = startITwinJs({ cacheDir: process.argv[2] ?? '.' });
started.catch(crash);

function tell(message: WorkerMessage): void {
  process.send?.(message);
}

function crash(error: unknown): never {
  console.error(error);
  process.exit(1);
}

function work(request: WorkRequest): WorkResult {
  const { file } = request;
  const missing = (): number => (request.countMissingGuids ? countMissingGuids(file) : 0);
  // A baseline that needs nothing stays as it is, byte for byte: then its blocks are those of the file in the store.
  if (request.changesets.length === 0 && isClean(file)) {
    const places = identityByBytes(file, '');
    if (places !== undefined) return { ...places, missingGuids: missing(), briefcaseId: 0 };
  }
  const { changesetId, briefcaseId } = prepare(request);
  const places = findIdentity(file, changesetId);
  // Like in every other file, so that equal content gives equal blocks.
  for (const offset of [places.iModelIdOffset, places.iTwinIdOffset]) writeAt(file, offset, Buffer.alloc(16));
  return { ...places, missingGuids: missing(), briefcaseId };
}

/** Whether a file is a baseline as it should be: nobody's briefcase, nothing unsaved, at no changeset, with both ids. */
function isClean(file: string): boolean {
  const db = open(file, OpenMode.Readonly);
  try {
    return !db.hasPendingTxns() && db.getBriefcaseId() === 0 && db.getCurrentChangeset().id === '' && [db.getIModelId(), db.getITwinId()].every((id) => /[1-9a-f]/i.test(id));
  } finally {
    db.closeFile();
  }
}

/** Brings the file to its changeset, free of anybody's briefcase and unsaved work. @returns the changeset it is at, the briefcase it was */
function prepare({ file, changesets, purpose }: WorkRequest): { changesetId: string; briefcaseId: number } {
  const db = open(file, OpenMode.ReadWrite);
  try {
    const briefcaseId = db.getBriefcaseId();
    if (db.hasPendingTxns()) db.deleteAllTxns();
    if (briefcaseId !== 0) db.resetBriefcaseId(0);
    for (const changeset of changesets) {
      apply(db, changeset);
      tell({ applied: changeset.index });
    }
    db.saveChanges();
    const at = db.getCurrentChangeset();
    // Random ones, which occur nowhere else in the file: that is how their places are found. Setting them forgets the changeset.
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
    return { changesetId: kept ? at.id : '', briefcaseId };
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
    throw new FileFault(`The file cannot be opened as an iModel: ${(error as Error).message}`, { cause: error });
  }
  return db;
}

function apply(db: NativeFile, changeset: ChangesetFile): void {
  const { id, parentId, index, path: pathname } = changeset;
  try {
    if (IModelNative.platform.DgnDb.computeChangesetId({ parentId, pathname }) !== id) throw new Error('its bytes do not give its id');
    db.applyChangeset({ id, parentId, index, pathname, changesType: changesType(changeset), description: '', pushDate: '', userCreated: '', briefcaseId: 0 }, false);
  } catch (error) {
    db.abandonChanges();
    throw new FileFault(`Changeset ${index} (${id}) cannot be applied: ${(error as Error).message}`, { cause: error });
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
  if (again === undefined) throw new FileFault('The places of its ids cannot be found in the file.');
  return again;
}

function identityByBytes(file: string, changesetId: string): IdentityOffsets | undefined {
  const before = identityOf(file);
  for (const iModelIdOffset of findInFile(file, guidBytes(before.iModelId))) {
    for (const iTwinIdOffset of findInFile(file, guidBytes(before.iTwinId))) {
      const other = { iModelId: randomUUID(), iTwinId: randomUUID() };
      writeAt(file, iModelIdOffset, guidBytes(other.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(other.iTwinId));
      const now = identityOf(file);
      writeAt(file, iModelIdOffset, guidBytes(before.iModelId));
      writeAt(file, iTwinIdOffset, guidBytes(before.iTwinId));
      if (now.iModelId === other.iModelId && now.iTwinId === other.iTwinId && now.changesetId === changesetId) return { iModelIdOffset, iTwinIdOffset };
    }
  }
  return undefined;
}

function identityOf(file: string): { iModelId: string; iTwinId: string; changesetId: string } {
  const db = open(file, OpenMode.Readonly);
  try {
    return { iModelId: db.getIModelId().toLowerCase(), iTwinId: db.getITwinId().toLowerCase(), changesetId: db.getCurrentChangeset().id };
  } finally {
    db.closeFile();
  }
}

function countMissingGuids(file: string): number {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    return db.prepare('select count(*) as missing from bis_Element where FederationGuid is null').get()?.missing as number;
  } finally {
    db.close();
  }
}
