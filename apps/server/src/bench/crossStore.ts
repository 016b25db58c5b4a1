import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { createReadStream, createWriteStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { setTimeout as pause } from 'node:timers/promises';
import pMap from 'p-map';
import pino from 'pino';
import { loadConfig, type Config } from '../config.ts';
import { openDatabase, type Db } from '../db/database.ts';
import type { BlobTable, ChangesetTable } from '../db/schema.ts';
import { insertHistory } from '../db/statements/insertHistory.ts';
import { nobodysAccount } from '../quotas/accounts.ts';
import { openServices } from '../wiring/services.ts';
import type { Services } from '../services.ts';
import { openStores } from '../storage/stores.ts';
import { verify } from '../maintenance/verify.ts';
import { describeMachine, firstOwner, raisedTiers, startChild, tokenOf, type Child, type Machine } from './common.ts';

/** The figures of a clone into another data center, and of a plain copy of the same files. */
export interface CrossStoreBench {
  machine: Machine;
  files: number;
  bytes: number;
  /** From sending the clone request until its create operation is `successful`, including the restarts after kills. */
  seconds: number;
  filesPerSecond: number;
  mbPerSecond: number;
  /** Copying the same files with the same concurrency, without hashing or syncing them, as `rclone copy` does. */
  plainCopySeconds: number;
  /** The same copy, with each file hashed and synced, as the server does. */
  hashedCopySeconds: number;
  /** How often the server was killed during the clone. */
  kills: number;
  /** Files in the target store that the clone does not refer to. */
  orphanObjects: number;
}

const west = 'West Europe';
const concurrency = 16;
const insertBatch = 500;
const pollMs = 20;
const timeoutMs = 30 * 60_000;

/** The source of the clone, and its target. */
interface Source {
  iModelId: string;
  farITwinId: string;
  /** Keys of the source's files in the first store, in order of changesets. */
  keys: string[];
}

/**
 * Measures a clone from one folder store into another. Afterwards it compares every file and fails if one differs. The
 * number of files and the time are bounded. The server listens on loopback only.
 * @param options.kills how often to kill the server at a random point during the clone, and start it again
 */
export async function benchCrossStore(options: {
  files: number;
  megabytes: number;
  kills: number;
  onStart: (machine: Machine) => void;
}): Promise<CrossStoreBench> {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
  try {
    const file = path.join(dataDir, 'bench.json');
    writeFileSync(
      file,
      JSON.stringify({
        dataDir,
        logLevel: 'fatal',
        tiers: raisedTiers,
        checkpoints: { generate: 'off' },
        transfers: { parallelFiles: concurrency },
        dataCenters: { [west]: { type: 'files', folder: 'west' } },
      }),
    );
    const config = loadConfig({}, { file, env: {} });
    const machine = describeMachine(
      undefined,
      `two folders on one disk, ${concurrency} files at a time, each hashed and synced; recently written files, so read from the page cache`,
    );
    options.onStart(machine);
    const size = Math.floor((options.megabytes * 1e6) / options.files);
    const source = await prepare(config, options.files, size);
    const [store, target] = [path.join(dataDir, 'blobs'), path.join(dataDir, 'plain')];
    const plainCopySeconds = await plainCopy(store, source.keys, target);
    const hashedCopySeconds = await plainCopy(store, source.keys, target, true);
    const { seconds, cloneId } = await cloneAcross(dataDir, source, options.files, options.kills);
    const orphanObjects = await check(config, source.iModelId, cloneId, options.files);
    const bytes = size * options.files;
    return {
      machine,
      files: options.files,
      bytes,
      seconds: round(seconds),
      filesPerSecond: Math.round(options.files / seconds),
      mbPerSecond: round(bytes / 1e6 / seconds),
      plainCopySeconds: round(plainCopySeconds),
      hashedCopySeconds: round(hashedCopySeconds),
      kills: options.kills,
      orphanObjects,
    };
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

const round = (value: number): number => Math.round(value * 100) / 100;

/** Creates an iModel with one file per changeset by writing to store and database directly. */
async function prepare(config: Config, files: number, size: number): Promise<Source> {
  const services = await openServices(config, pino({ level: 'error' }));
  try {
    const { iTwinId, caller } = await firstOwner(services);
    const far = await services.iTwins.create(caller, {
      class: 'Endeavor',
      subClass: 'Project',
      type: null,
      number: undefined,
      displayName: 'Far away',
      geographicLocation: null,
      dataCenterLocation: west,
      status: 'Active',
      parentId: null,
      organizationId: caller.user.organizationId,
    });
    const access = await services.permissions.onITwin(caller, iTwinId);
    if (access === undefined) throw new Error('the iTwin of the benchmark does not exist');
    const { imodel } = await services.iModels.create(caller, access, {
      name: 'source',
      description: null,
      extent: null,
      containersEnabled: 0,
      geographicCrs: null,
    });
    const keys = await fill(services, imodel.id, caller.user.id, files, size);
    return { iModelId: imodel.id, farITwinId: far.id, keys };
  } finally {
    await services.close();
  }
}

/**
 * Gives an iModel this many changesets of random bytes.
 * @returns keys of the files in the store, in order of changesets
 */
export async function fill(
  { database: { db }, blobs }: Services,
  iModelId: string,
  creatorId: string,
  files: number,
  size: number,
): Promise<string[]> {
  const store = blobs.stores.home;
  const [segmentId, now] = [randomUUID(), Date.now()];
  await db.insertInto('segment').values({ id: segmentId, owner_imodel_id: iModelId }).execute();
  const from = { history_id: null, head_index: 0 };
  const historyId = await db.transaction().execute((tx) => insertHistory(tx, { segmentId, firstIndex: 1, from, now }));
  const keys: string[] = [];
  for (let first = 1; first <= files; first += insertBatch) {
    const indexes = Array.from({ length: Math.min(insertBatch, files - first + 1) }, (_, n) => first + n);
    const stored = await pMap(
      indexes,
      async (): Promise<BlobTable> => {
        const key = randomUUID();
        const { sha256 } = await store.put(key, Readable.from([randomBytes(size)]), size);
        return {
          id: randomUUID(),
          store: store.id,
          key,
          size,
          sha256,
          state: 'stored',
          created_at: now,
          released_at: null,
          ...nobodysAccount,
        };
      },
      { concurrency },
    );
    const changesets = indexes.map((index, n): ChangesetTable => ({
      segment_id: segmentId,
      index,
      id: idAt(index),
      parent_id: index === 1 ? '' : idAt(index - 1),
      blob_id: (stored[n] as BlobTable).id,
      file_size: size,
      description: null,
      containing_changes: 0,
      briefcase_id: 2,
      creator_id: creatorId,
      pushed_at: now,
      application_id: 'bench',
      application_name: 'Benchmark',
      synchronization_info: null,
    }));
    await db.insertInto('blob').values(stored).execute();
    await db.insertInto('changeset').values(changesets).execute();
    keys.push(...stored.map(({ key }) => key as string));
  }
  await db
    .updateTable('imodel')
    .set({ history_id: historyId, head_index: files, head_changeset_id: idAt(files), last_pushed_at: now })
    .where('id', '=', iModelId)
    .execute();
  return keys;
}

const idAt = (index: number): string => index.toString(16).padStart(40, '0');

async function plainCopy(from: string, keys: readonly string[], to: string, durable = false): Promise<number> {
  await mkdir(to, { recursive: true });
  const objects = path.join(from, 'objects');
  const began = performance.now();
  await pMap(
    keys,
    async (key) => {
      const [source, sink] = [
        createReadStream(path.join(objects, key.slice(0, 2), key)),
        createWriteStream(path.join(to, key), { flush: durable }),
      ];
      if (!durable) return pipeline(source, sink);
      const hash = createHash('sha256');
      await pipeline(
        source,
        async function* (chunks: AsyncIterable<Buffer>) {
          for await (const chunk of chunks) {
            hash.update(chunk);
            yield chunk;
          }
        },
        sink,
      );
    },
    { concurrency },
  );
  const took = (performance.now() - began) / 1000;
  rmSync(to, { recursive: true });
  return took;
}

/** Clones into the other data center and waits for the result. Kills the server at random points of progress. */
async function cloneAcross(
  dataDir: string,
  source: Source,
  files: number,
  kills: number,
): Promise<{ seconds: number; cloneId: string }> {
  const token = await tokenOf(dataDir);
  const points = Array.from({ length: kills }, () => Math.floor(Math.random() * files * 0.98)).sort((a, b) => a - b);
  let server: Child | undefined = await startChild(dataDir, undefined);
  try {
    const began = performance.now();
    const cloneId = await clone(server.origin, token, source);
    for (const until = Date.now() + timeoutMs; ;) {
      const { state, done, failureReason } = await progressOf(server.origin, token, cloneId);
      if (state === 'successful' && points.length === 0)
        return { seconds: (performance.now() - began) / 1000, cloneId };
      if (state !== 'scheduled' || Date.now() > until)
        throw new Error(
          `the clone is ${state} after ${kills - points.length} of ${kills} kills: ${failureReason ?? 'no reason given'}`,
        );
      const [next] = points;
      if (next !== undefined && done >= next) {
        points.shift();
        await pause(Math.random() * 50);
        await server.kill();
        server = undefined;
        server = await startChild(dataDir, undefined);
      } else await pause(pollMs);
    }
  } finally {
    await server?.stop();
  }
}

async function clone(origin: string, token: string, { iModelId, farITwinId }: Source): Promise<string> {
  const response = await fetch(`${origin}/imodels/${iModelId}/clone`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ iTwinId: farITwinId, name: 'clone' }),
  });
  if (response.status !== 202) throw new Error(`clone answered ${response.status}: ${await response.text()}`);
  return (response.headers.get('location') ?? '').slice(-36);
}

async function progressOf(
  origin: string,
  token: string,
  iModelId: string,
): Promise<{ state: string; done: number; failureReason: string | null }> {
  const response = await fetch(`${origin}/imodels/${iModelId}/operations/create`, {
    headers: { authorization: `Bearer ${token}` },
  });
  const { createOperation } = (await response.json()) as {
    createOperation: { state: string; failureReason: string | null; progress: { changesets: number } };
  };
  return {
    state: createOperation.state,
    done: createOperation.progress.changesets,
    failureReason: createOperation.failureReason,
  };
}

/**
 * Compares every file of the clone with the source's.
 * @returns the number of files in the store that the clone does not refer to
 */
async function check(config: Config, sourceId: string, cloneId: string, files: number): Promise<number> {
  const database = await openDatabase(config);
  try {
    const stores = await openStores(config, database.db);
    const [source, made] = [await filesOf(database.db, sourceId), await filesOf(database.db, cloneId)];
    if (made.length !== files || made.some((row, n) => row.id !== source[n]?.id || row.sha256 !== source[n]?.sha256))
      throw new Error('the clone differs from its source');
    const found = await verify(database.db, stores, true);
    if (found.faults.length > 0) throw new Error(`${found.faults.length} files are missing or damaged`);
    let objects = 0;
    for await (const { key } of stores.ofDataCenter(west).list()) objects += key === '' ? 0 : 1;
    // The store of the data center also contains the seed.
    return objects - 1 - files;
  } finally {
    await database.close();
  }
}

function filesOf(db: Db, iModelId: string): Promise<{ id: string; sha256: string | null }[]> {
  return db
    .selectFrom('imodel as m')
    .innerJoin('history as h', 'h.id', 'm.history_id')
    .innerJoin('changeset as c', 'c.segment_id', 'h.segment_id')
    .innerJoin('blob as b', 'b.id', 'c.blob_id')
    .select(['c.id', 'b.sha256'])
    .where('m.id', '=', iModelId)
    .orderBy('c.index')
    .execute();
}
