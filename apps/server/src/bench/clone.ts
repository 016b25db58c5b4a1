import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type * as Management from '@itwin/imodels-client-management';
import pg from 'pg';
import pino from 'pino';
import { loadConfig, type Config } from '../config.ts';
import { databaseFile, type Tx } from '../db/database.ts';
import type { ChangesetTable } from '../db/schema.ts';
import { insertHistory } from '../db/statements/insertHistory.ts';
import type { Caller } from '../domain.ts';
import { openServices } from '../wiring/services.ts';
import type { Services } from '../services.ts';
import {
  describeMachine,
  firstOwner,
  folderBytes,
  percentile,
  raisedTiers,
  startChild,
  tokenOf,
  type Machine,
} from './common.ts';

/** The figures of one kind of source. */
export interface CloneCase {
  changesets: number;
  /**
   * Ranges in the history of the source: 1 for an iModel that is no clone, n for a chain of n - 1 clones, each with a
   * push.
   */
  depth: number;
  p50Ms: number;
  p99Ms: number;
  /**
   * The official client's `clone()`, including its polling and its read of the new iModel. Null if it is not installed.
   */
  clientP50Ms: number | null;
  /** Bytes that the database grew by for each clone. */
  bytesAdded: number;
  rowsAdded: number;
  /** Bytes that the store grew by over all clones of the case. */
  blobBytesAdded: number;
  clones: number;
}

export interface CloneBench {
  machine: Machine;
  cases: CloneCase[];
}

const plan = [
  { changesets: 0, depth: 1 },
  { changesets: 10, depth: 1 },
  { changesets: 1000, depth: 1 },
  { changesets: 10_000, depth: 1 },
  { changesets: 100_000, depth: 1 },
  { changesets: 1000, depth: 10 },
  { changesets: 1000, depth: 100 },
  { changesets: 1000, depth: 1000 },
];
const warmUps = 30;
const rounds = 10;
const minClonesPerRound = 10;
/** Keeps a fast machine from making more clones than the figures need. */
const maxClonesPerRound = 100;
const clientClonesPerRound = 4;
const insertBatch = 500;

/**
 * Measures the clone operation: writes the sources directly to the database, starts a server in a separate process, and
 * clones over HTTP with tokens verified and rate limits counted (the limits are raised). The number of clones and the
 * time are bounded. The server listens on loopback only.
 */
export async function benchClone(options: {
  databaseUrl: string | undefined;
  secondsPerCase: number;
  onStart: (machine: CloneBench['machine']) => void;
  onCase: (found: CloneCase) => void;
}): Promise<CloneBench> {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
  try {
    const config = benchConfig(dataDir, options.databaseUrl);
    const { sources, iTwinId } = await prepare(config);
    const machine = describeMachine(
      options.databaseUrl,
      'tokens verified, rate limits counted (limits raised), server and load in two processes, one request at a time',
    );
    options.onStart(machine);
    const token = await tokenOf(dataDir);

    const server = await startChild(dataDir, options.databaseUrl);
    try {
      const tallies = sources.map((sourceId): Tally => ({
        target: { origin: server.origin, token, iTwinId, sourceId },
        times: [],
        clientTimes: [],
        bytes: 0,
        rows: 0,
        blobBytes: 0,
      }));
      for (const { target } of tallies) for (let n = 0; n < warmUps; n++) await clone(target);
      // Cases alternate, so that other load on the machine affects all of them alike and their ratios stay valid.
      for (let round = 0; round < rounds; round++)
        for (const tally of tallies)
          await measureRound(tally, dataDir, options.databaseUrl, options.secondsPerCase / rounds);
      const cases = plan.map((kind, index) => toCase(kind, tallies[index] as Tally));
      cases.forEach(options.onCase);
      return { machine, cases };
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

interface Target {
  origin: string;
  token: string;
  iTwinId: string;
  sourceId: string;
}

/** What has been measured of one case so far. */
interface Tally {
  target: Target;
  times: number[];
  clientTimes: number[];
  bytes: number;
  rows: number;
  blobBytes: number;
}

/**
 * One round of a case: clones over plain HTTP, with the growth of database and store, then some with the official
 * client.
 */
async function measureRound(
  tally: Tally,
  dataDir: string,
  databaseUrl: string | undefined,
  seconds: number,
): Promise<void> {
  const before = await measureSize(dataDir, databaseUrl);
  const until = performance.now() + seconds * 1000;
  for (let n = 0; n < maxClonesPerRound && (performance.now() < until || n < minClonesPerRound); n++)
    tally.times.push(await clone(tally.target));
  const after = await measureSize(dataDir, databaseUrl);
  tally.bytes += after.bytes - before.bytes;
  tally.rows += after.rows - before.rows;
  tally.blobBytes += after.blobBytes - before.blobBytes;
  tally.clientTimes.push(...(await cloneWithClient(tally.target)));
}

function toCase(kind: (typeof plan)[number], { times, clientTimes, bytes, rows, blobBytes }: Tally): CloneCase {
  return {
    ...kind,
    p50Ms: percentile(times, 0.5),
    p99Ms: percentile(times, 0.99),
    clientP50Ms: clientTimes.length === 0 ? null : percentile(clientTimes, 0.5),
    bytesAdded: Math.round(bytes / times.length),
    rowsAdded: Math.round((rows / times.length) * 10) / 10,
    blobBytesAdded: blobBytes,
    clones: times.length,
  };
}

/** Makes one clone over plain HTTP. @returns milliseconds from sending the request to receiving the whole 202 answer */
async function clone(target: Target): Promise<number> {
  const began = performance.now();
  const response = await fetch(`${target.origin}/imodels/${target.sourceId}/clone`, {
    method: 'POST',
    headers: { authorization: `Bearer ${target.token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ iTwinId: target.iTwinId, name: randomUUID() }),
  });
  const text = await response.text();
  const took = performance.now() - began;
  if (response.status !== 202) throw new Error(`clone answered ${response.status}: ${text}`);
  return took;
}

/**
 * Makes clones with the official client, a development dependency.
 * @returns milliseconds of each; empty if it is not installed
 */
async function cloneWithClient(target: Target): Promise<number[]> {
  const name = '@itwin/imodels-client-management';
  const module = (await import(name).catch(() => undefined)) as typeof Management | undefined;
  if (module === undefined) return [];
  const client = new module.IModelsClient({ api: { baseUrl: `${target.origin}/imodels` } });
  const authorization = async () => ({ scheme: 'Bearer', token: target.token });
  const times: number[] = [];
  for (let n = 0; n < clientClonesPerRound; n++) {
    const began = performance.now();
    await client.iModels.clone({
      authorization,
      iModelId: target.sourceId,
      iModelProperties: { iTwinId: target.iTwinId, name: randomUUID() },
    });
    times.push(performance.now() - began);
  }
  return times;
}

function benchConfig(dataDir: string, databaseUrl: string | undefined): Config {
  const file = path.join(dataDir, 'bench.json');
  writeFileSync(
    file,
    JSON.stringify({
      dataDir,
      logLevel: 'error',
      tiers: raisedTiers,
      ...(databaseUrl !== undefined && { databaseUrl }),
    }),
  );
  return loadConfig({}, { file, env: {} });
}

async function prepare(config: Config): Promise<{ sources: string[]; iTwinId: string }> {
  const services = await openServices(config, pino({ level: 'error' }));
  try {
    const { iTwinId, caller } = await firstOwner(services);
    const sources: string[] = [];
    for (const kind of plan) sources.push(await prepareSource(services, caller, iTwinId, kind));
    return { sources, iTwinId };
  } finally {
    await services.close();
  }
}

/**
 * Creates an iModel whose history has `depth` ranges and `changesets` changesets, as clones and pushes would leave it.
 */
export async function prepareSource(
  services: Services,
  caller: Caller,
  iTwinId: string,
  { changesets, depth }: { changesets: number; depth: number },
): Promise<string> {
  const { database, iModels, permissions } = services;
  const access = await permissions.onITwin(caller, iTwinId);
  if (access === undefined) throw new Error('the iTwin of the benchmark does not exist');
  const { imodel } = await iModels.create(caller, access, {
    name: `source ${changesets}/${depth}`,
    description: null,
    extent: null,
    containersEnabled: 0,
    geographicCrs: null,
  });
  if (changesets === 0) return imodel.id;
  await database.db.transaction().execute(async (tx) => {
    const now = Date.now();
    let historyId: string | null = null;
    const { blob_id } = await tx
      .selectFrom('baseline')
      .select('blob_id')
      .where('id', '=', imodel.baseline_id)
      .executeTakeFirstOrThrow();
    let first = 1;
    for (let range = 1; range <= depth; range++) {
      const open = range === depth;
      const last = open ? changesets : Math.floor((changesets * range) / depth);
      const segmentId = randomUUID();
      await tx
        .insertInto('segment')
        .values({ id: segmentId, owner_imodel_id: open ? imodel.id : null })
        .execute();
      const from = { history_id: historyId, head_index: first - 1 };
      historyId = await insertHistory(tx, { segmentId, firstIndex: first, from, now });
      await insertChangesets(tx, segmentId, blob_id, caller.user.id, first, last, now);
      first = last + 1;
    }
    await tx
      .updateTable('imodel')
      .set({
        history_id: historyId,
        head_index: changesets,
        head_changeset_id: idAt(changesets),
        last_pushed_at: now,
        clock: now,
      })
      .where('id', '=', imodel.id)
      .execute();
  });
  return imodel.id;
}

async function insertChangesets(
  tx: Tx,
  segmentId: string,
  blobId: string,
  creatorId: string,
  first: number,
  last: number,
  now: number,
): Promise<void> {
  for (let from = first; from <= last; from += insertBatch) {
    const rows: ChangesetTable[] = [];
    for (let index = from; index < from + insertBatch && index <= last; index++)
      rows.push({
        segment_id: segmentId,
        index,
        id: idAt(index),
        parent_id: index === 1 ? '' : idAt(index - 1),
        blob_id: blobId,
        file_size: 1000,
        description: null,
        containing_changes: 0,
        briefcase_id: 2,
        creator_id: creatorId,
        pushed_at: now,
        application_id: 'bench',
        application_name: 'Benchmark',
        synchronization_info: null,
      });
    await tx.insertInto('changeset').values(rows).execute();
  }
}

function idAt(index: number): string {
  return index.toString(16).padStart(40, '0');
}

/** The current size of database and store, measured without requests to the server. */
async function measureSize(
  dataDir: string,
  databaseUrl: string | undefined,
): Promise<{ bytes: number; rows: number; blobBytes: number }> {
  const database = databaseUrl === undefined ? readSqlite(dataDir) : await readPostgres(databaseUrl);
  return { ...database, blobBytes: await folderBytes(path.join(dataDir, 'blobs', 'objects')) };
}

const tablesOfClone = [
  'imodel',
  'operation',
  'audit',
  'history',
  'segment',
  'changeset',
  'baseline',
  'blob',
  'imodel_user',
];

function readSqlite(dataDir: string): { bytes: number; rows: number } {
  const database = new DatabaseSync(path.join(dataDir, databaseFile), { readOnly: true });
  try {
    const value = (text: string): number =>
      Number(Object.values(database.prepare(text).get() as Record<string, number>)[0]);
    const bytes = (value('pragma page_count') - value('pragma freelist_count')) * value('pragma page_size');
    return { bytes, rows: tablesOfClone.reduce((sum, table) => sum + value(`select count(*) from ${table}`), 0) };
  } finally {
    database.close();
  }
}

async function readPostgres(databaseUrl: string): Promise<{ bytes: number; rows: number }> {
  const client = new pg.Client({ connectionString: databaseUrl });
  await client.connect();
  try {
    let bytes = 0;
    let rows = 0;
    for (const table of tablesOfClone) {
      const found = await client.query<{ bytes: string; rows: string }>(
        `select pg_total_relation_size('${table}') as bytes, (select count(*) from ${table}) as rows`,
      );
      bytes += Number(found.rows[0]?.bytes);
      rows += Number(found.rows[0]?.rows);
    }
    return { bytes, rows };
  } finally {
    await client.end();
  }
}
