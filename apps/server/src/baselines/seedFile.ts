import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { DatabaseSync } from 'node:sqlite';
import { ConfigError } from '../config.ts';
import { findInFile, writeAt, type IdentityOffsets } from '../checkpoints/identity.ts';

/** Largest seed, bytes: the file is read into memory, and every new iModel starts with it. */
const largestSeed = 256 * 1024 * 1024;

/** Properties of an iModel file that hold its two ids, 16 bytes each. */
const ids = { iModelIdOffset: 'DbGuid', iTwinIdOffset: 'ProjectGuid' } as const;

/** A custom seed. */
export interface SeedFile {
  bytes: Buffer;
  offsets: IdentityOffsets;
}

/**
 * Reads a custom seed for new empty iModels and checks that it is one: a complete SQLite file with the tables of an iModel,
 * which is not a briefcase, is at no changeset and has no unsaved changes. The offsets of its ids are found by searching for
 * their bytes, and proven by overwriting them with other ids, which SQLite must then read. This needs no iTwin.js.
 * @throws ConfigError
 */
export async function readSeedFile(file: string): Promise<SeedFile> {
  const refuse = (why: string): ConfigError => new ConfigError([`seedFile ${path.resolve(file)}: ${why}`]);
  const size = await stat(file).then(
    (found) => found.size,
    (error: unknown) => Promise.reject(refuse(`cannot be read: ${(error as Error).message}`)),
  );
  if (size > largestSeed) throw refuse(`is larger than ${largestSeed / 2 ** 20} MiB`);
  const wal = await stat(`${file}-wal`).catch(() => undefined);
  if (wal !== undefined && wal.size > 0)
    throw refuse('has changes in a write-ahead log beside it (-wal): open the file, save it and close it');
  const bytes = await readFile(file);
  if (bytes.toString('latin1', 0, 16) !== 'SQLite format 3\0') throw refuse('is not a SQLite file');
  const folder = await mkdtemp(path.join(tmpdir(), 'offshoot-seed-'));
  try {
    // A copy, because the ids are overwritten.
    const copy = path.join(folder, 'seed.bim');
    await writeFile(copy, bytes);
    const fault = faultOf(copy);
    if (fault !== undefined) throw refuse(fault);
    const offsets = provenOffsets(copy);
    if (offsets === undefined)
      throw refuse(
        'the offsets of its ids cannot be found; set both ids (of iModel and iTwin), close the file and vacuum it',
      );
    return { bytes, offsets };
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function withDatabase<T>(file: string, read: (db: DatabaseSync) => T): T {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    return read(db);
  } finally {
    db.close();
  }
}

/** Why a file cannot be a seed; undefined if it can. */
function faultOf(file: string): string | undefined {
  try {
    return withDatabase(file, (db) => {
      if (db.prepare('pragma quick_check(1)').get()?.['quick_check'] !== 'ok') return 'is damaged';
      const profile = db
        .prepare("select count(*) as count from be_Prop where Namespace = 'dgn_Db' and Name = 'SchemaVersion'")
        .get()?.['count'];
      if (profile !== 1) return 'is not an iModel';
      const repository = db.prepare("select Val as value from be_Local where Name = 'be_repositoryid'").get()?.[
        'value'
      ];
      if (!(repository instanceof Uint8Array) || repository.some((byte) => byte !== 0)) return 'is a briefcase';
      if (db.prepare("select 1 from be_Local where Name = 'ParentChangeSetId' and length(Val) > 0").get() !== undefined)
        return 'is at a changeset: a seed has no history';
      if (db.prepare('select 1 from dgn_Txns limit 1').get() !== undefined) return 'has changes that were never pushed';
      return undefined;
    });
  } catch {
    return 'is not an iModel: it lacks the tables of one';
  }
}

function provenOffsets(file: string): IdentityOffsets | undefined {
  const offsets = { iModelIdOffset: -1, iTwinIdOffset: -1 };
  const valueOf = (name: string): Buffer | undefined =>
    withDatabase(file, (db) => {
      const value = db.prepare("select Data as value from be_Prop where Namespace = 'be_Db' and Name = ?").get(name)?.[
        'value'
      ];
      return value instanceof Uint8Array && value.length === 16 && value.some((byte) => byte !== 0)
        ? Buffer.from(value)
        : undefined;
    });
  for (const [key, name] of Object.entries(ids) as [keyof IdentityOffsets, string][]) {
    const before = valueOf(name);
    if (before === undefined) return undefined;
    const proven = findInFile(file, before).filter((offset) => {
      const other = randomBytes(16);
      writeAt(file, offset, other);
      const read = valueOf(name)?.equals(other) === true;
      writeAt(file, offset, before);
      return read;
    });
    if (proven.length !== 1) return undefined;
    offsets[key] = proven[0] as number;
  }
  return offsets;
}
