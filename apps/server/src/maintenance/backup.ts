import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import pMap from 'p-map';
import { type Config, storeId } from '../config.ts';
import { databaseFile, lockFolder } from '../db/database.ts';
import { syncFileSync, syncFolderSync, writeFileDurably } from '../storage/durable.ts';
import { FileStore } from '../storage/fileStore.ts';
import { NoSuchObjectError, SizeMismatchError } from '../storage/blobStore.ts';
import type { Fault } from './verify.ts';

/** The result of a backup. */
export interface BackedUp {
  /** Number of files that the database of the backup refers to. */
  files: number;
  /** Number of files that this run copied. The others were copied by an earlier run. */
  copied: number;
  /** Number of files that were deleted because the database no longer refers to them. */
  removed: number;
  faults: Fault[];
  /** Ids of stores on object services, whose files are not backed up. */
  elsewhere: string[];
}

/** The backup cannot be made with this configuration or target. */
export class BackupError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'BackupError';
  }
}

interface StoredFile {
  id: string;
  key: string;
  size: number;
  sha256: string;
}

const concurrency = 4;

/**
 * Creates or updates a backup of an embedded installation; its server may be running. Takes a snapshot of the database
 * first, then copies every file that the snapshot refers to. Files never change, and the collector keeps released files
 * for a grace period, so all of them exist. Files copied by an earlier run are not read again. The snapshot is renamed
 * last: if a run is interrupted, the target is still a complete data folder, the previous or the new one, on which a
 * server can be started.
 * @throws BackupError; DataFolderInUseError if a server runs on the target folder
 */
export async function backUp(
  config: Pick<Config, 'dataDir' | 'databaseUrl' | 'dataCenter' | 'dataCenters' | 'store'>,
  target: string,
  onFile: (done: number, total: number) => void,
): Promise<BackedUp> {
  const { dataDir } = config;
  if (config.databaseUrl !== undefined)
    throw new BackupError(
      'this installation uses PostgreSQL: back it up with pg_dump as described in docs/operating.md',
    );
  if (!existsSync(path.join(dataDir, databaseFile))) throw new BackupError(`there is no installation at ${dataDir}`);
  const inside = path.relative(dataDir, target);
  if (inside === '' || !inside.startsWith('..')) throw new BackupError('the backup must be outside the data folder');
  mkdirSync(target, { recursive: true, mode: 0o700 });
  const lock = lockFolder(target);
  try {
    return await fill(config, target, onFile);
  } finally {
    lock.close();
  }
}

async function fill(
  { dataDir, store, dataCenters }: Pick<Config, 'dataDir' | 'dataCenters' | 'store'>,
  target: string,
  onFile: (done: number, total: number) => void,
): Promise<BackedUp> {
  const snapshot = path.join(target, `${databaseFile}.new`);
  takeSnapshot(path.join(dataDir, databaseFile), snapshot);
  const earlier = path.join(target, databaseFile);
  if (existsSync(earlier) && identityOf(earlier) !== identityOf(snapshot)) {
    rmSync(snapshot);
    throw new BackupError(`${target} contains another installation`);
  }
  const result: BackedUp = { files: 0, copied: 0, removed: 0, faults: [], elsewhere: [] };
  const stale: { store: FileStore; keys: string[] }[] = [];
  const reader = new DatabaseSync(snapshot, { readOnly: true });
  try {
    const { total } = reader.prepare("select count(*) as total from blob where state = 'stored'").get() as {
      total: number;
    };
    for (const settings of [store, ...Object.values(dataCenters)]) {
      const id = storeId(settings);
      if (settings.type !== 'files') {
        result.elsewhere.push(id);
        continue;
      }
      const { folder = 'blobs' } = settings;
      if (path.isAbsolute(folder) || folder.startsWith('..'))
        throw new BackupError(
          `the store '${id}' is outside the data folder: copy ${path.resolve(dataDir, folder)} separately`,
        );
      const files = reader
        .prepare(
          "select id, key, size, sha256 from blob where state = 'stored' and key is not null and store = ? order by id",
        )
        .iterate(id) as Iterable<unknown> as Iterable<StoredFile>;
      const [from, to] = [
        await FileStore.open(id, path.join(dataDir, folder)),
        await FileStore.open(id, path.join(target, folder)),
      ];
      stale.push({ store: to, keys: await copyFiles(from, to, files, result, () => onFile(result.files, total)) });
    }
  } finally {
    reader.close();
  }
  for (const name of ['users.json', 'issuer.json'])
    if (existsSync(path.join(dataDir, name)))
      writeFileDurably(path.join(target, name), readFileSync(path.join(dataDir, name)));
  for (const ending of ['-wal', '-shm']) rmSync(earlier + ending, { force: true });
  renameSync(snapshot, earlier);
  syncFolderSync(target);
  // Delete the stale files last: until the rename, the previous database still refers to them.
  for (const { store: copy, keys } of stale) {
    await pMap(keys, (key) => copy.delete(key), { concurrency });
    result.removed += keys.length;
  }
  return result;
}

/** Id of the installation, created at its first start. */
function identityOf(file: string): string | undefined {
  const reader = new DatabaseSync(file, { readOnly: true, timeout: 5000 });
  try {
    return (
      reader.prepare("select value from secret where name = 'installation'").get() as { value: string } | undefined
    )?.value;
  } finally {
    reader.close();
  }
}

/** Writes a consistent copy of the database, while a server may write to it. */
function takeSnapshot(file: string, snapshot: string): void {
  rmSync(snapshot, { force: true });
  const source = new DatabaseSync(file, { readOnly: true, timeout: 5000 });
  try {
    source.prepare('vacuum into ?').run(snapshot);
    // VACUUM INTO does not sync what it writes.
    syncFileSync(snapshot);
  } finally {
    source.close();
  }
}

/** Copies the missing files. @returns keys of files in the target that the database does not refer to */
async function copyFiles(
  from: FileStore,
  to: FileStore,
  files: Iterable<StoredFile>,
  result: BackedUp,
  onFile: () => void,
): Promise<string[]> {
  const existing = new Map<string, number>();
  for await (const { key, size } of to.list()) existing.set(key, size);
  await pMap(
    files,
    async (file) => {
      const size = existing.get(file.key);
      existing.delete(file.key);
      if (size !== file.size) {
        const fault = await copyFile(from, to, file);
        if (fault !== undefined) result.faults.push({ blobId: file.id, store: to.id, key: file.key, what: fault });
        else result.copied++;
      }
      result.files++;
      onFile();
    },
    { concurrency },
  );
  return [...existing.keys()];
}

async function copyFile(
  from: FileStore,
  to: FileStore,
  { key, size, sha256 }: StoredFile,
): Promise<Fault['what'] | undefined> {
  try {
    const stored = await to.put(key, await from.read(key), size);
    if (stored.sha256 === sha256) return undefined;
    await to.delete(key);
    return 'content';
  } catch (error) {
    if (error instanceof NoSuchObjectError) return 'missing';
    if (error instanceof SizeMismatchError) return 'size';
    throw error;
  }
}
