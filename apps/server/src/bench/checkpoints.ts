import { randomUUID } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { copyFile, mkdir, open, readdir, readFile, stat } from 'node:fs/promises';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { brotliDecompressSync } from 'node:zlib';
import { guidBytes } from '../checkpoints/identity.ts';
import { describeMachine, folderBytes, percentile, raisedTiers, startChild, tokenOf, type Machine } from './common.ts';

/** The figures for one size of checkpoint. */
export interface CheckpointCase {
  sizeMB: number;
  /** From sending the clone's request to its create operation being `successful`, p50. */
  cloneToSuccessfulMs: number;
  /** Copying the same files and syncing them to disk, p50. */
  plainCopyMs: number;
  /** Bytes that the store grew by for each clone. */
  bytesAdded: number;
  clones: number;
}

export interface CheckpointBench {
  machine: Machine;
  cases: CheckpointCase[];
}

const sizesMB = [10, 100, 1000];
const rounds = 5;
const clonesPerRound = 10;
const rowBytes = 1_000_000;
const initializeWithinMs = 300_000;
const seedFile = new URL('../../assets/seed.bim.br', import.meta.url);

interface Source {
  sizeMB: number;
  iModelId: string;
  iTwinId: string;
  /** The files in the store that contain its checkpoint. */
  objects: string[];
  times: number[];
  copies: number[];
  bytes: number;
}

/**
 * Measures clones of iModels with checkpoints of 10 MB, 100 MB and 1 GB, compared with plain copies of the same files.
 * Each source is a real iModel file with padding; iTwin.js makes its checkpoint. The benchmark reads the checkpoint of
 * every clone and fails unless it contains the ids of that clone.
 */
export async function benchCheckpoints(options: {
  onStart: (machine: Machine) => void;
  onCase: (found: CheckpointCase) => void;
}): Promise<CheckpointBench> {
  const dataDir = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
  try {
    writeFileSync(
      path.join(dataDir, 'bench.json'),
      JSON.stringify({ dataDir, logLevel: 'error', checkpoints: { generate: 'here' }, tiers: raisedTiers }),
    );
    const machine = describeMachine(
      undefined,
      'tokens verified, server and load in two processes, one clone at a time; files and database on one disk',
    );
    options.onStart(machine);
    const server = await startChild(dataDir, undefined);
    try {
      const api = new Client(server.origin, await tokenOf(dataDir));
      const iTwinId = ((await api.json('GET', '/itwins')) as { iTwins: { id: string }[] }).iTwins[0]?.id ?? '';
      const sources: Source[] = [];
      for (const sizeMB of sizesMB) sources.push(await prepare(api, dataDir, iTwinId, sizeMB));
      // Cases alternate, so that other load on the machine affects all of them alike.
      for (let round = 0; round < rounds; round++)
        for (const source of sources) await measureRound(api, dataDir, source);
      const cases = sources.map(({ sizeMB, times, copies, bytes }) => ({
        sizeMB,
        cloneToSuccessfulMs: percentile(times, 0.5),
        plainCopyMs: percentile(copies, 0.5),
        bytesAdded: Math.round(bytes / times.length),
        clones: times.length,
      }));
      cases.forEach(options.onCase);
      return { machine, cases };
    } finally {
      await server.stop();
    }
  } finally {
    rmSync(dataDir, { recursive: true, force: true });
  }
}

class Client {
  readonly #origin: string;
  readonly #token: string;
  constructor(origin: string, token: string) {
    this.#origin = origin;
    this.#token = token;
  }

  async send(method: string, url: string, body?: unknown): Promise<Response> {
    const response = await fetch(`${this.#origin}${url}`, {
      method,
      headers: { authorization: `Bearer ${this.#token}`, 'content-type': 'application/json' },
      ...(body !== undefined && { body: JSON.stringify(body) }),
    });
    if (!response.ok) throw new Error(`${method} ${url} answered ${response.status}: ${await response.text()}`);
    return response;
  }

  async json(method: string, url: string, body?: unknown): Promise<unknown> {
    return (await this.send(method, url, body)).json();
  }
}

async function operationState(api: Client, iModelId: string): Promise<string> {
  return ((await api.json('GET', `/imodels/${iModelId}/operations/create`)) as { createOperation: { state: string } })
    .createOperation.state;
}

const objectsIn = async (dataDir: string): Promise<Set<string>> => {
  const folder = path.join(dataDir, 'blobs', 'objects');
  const names = await readdir(folder, { recursive: true, withFileTypes: true });
  return new Set(names.filter((entry) => entry.isFile()).map((entry) => path.join(entry.parentPath, entry.name)));
};

/** Creates an iModel from a baseline file of about this size, and waits for its checkpoint. */
async function prepare(api: Client, dataDir: string, iTwinId: string, sizeMB: number): Promise<Source> {
  const before = await objectsIn(dataDir);
  const file = path.join(dataDir, 'baseline.bim');
  writeFileSync(file, brotliDecompressSync(await readFile(seedFile)));
  const db = new DatabaseSync(file);
  db.exec('pragma journal_mode = off; create table bench_padding (data); begin');
  const insert = db.prepare(`insert into bench_padding values (randomblob(${rowBytes}))`);
  for (let n = (await stat(file)).size; n < sizeMB * 1_000_000; n += rowBytes) insert.run();
  db.exec('commit');
  db.close();
  const { size } = await stat(file);
  const created = (await api.json('POST', '/imodels', {
    iTwinId,
    name: `source of ${sizeMB} MB`,
    creationMode: 'fromBaseline',
    baselineFile: { size },
  })) as {
    iModel: { id: string; _links: { upload: { href: string } } };
  };
  const { id: iModelId, _links } = created.iModel;
  const uploaded = await fetch(_links.upload.href, {
    method: 'PUT',
    body: Readable.toWeb(createReadStream(file)) as ReadableStream,
    duplex: 'half',
  });
  if (uploaded.status !== 201) throw new Error(`the upload answered ${uploaded.status}`);
  await api.send('POST', `/imodels/${iModelId}/baselinefile`, {});
  const until = Date.now() + initializeWithinMs;
  for (let state = ''; state !== 'successful'; state = await operationState(api, iModelId)) {
    if (state === 'failed' || Date.now() > until)
      throw new Error(`the source of ${sizeMB} MB is not initialized: ${state}`);
    await pause(100);
  }
  rmSync(file);
  const objects = [...(await objectsIn(dataDir))].filter((name) => !before.has(name));
  return { sizeMB, iModelId, iTwinId, objects, times: [], copies: [], bytes: 0 };
}

async function measureRound(api: Client, dataDir: string, source: Source): Promise<void> {
  const store = path.join(dataDir, 'blobs', 'objects');
  const before = await folderBytes(store);
  for (let n = 0; n < clonesPerRound; n++) {
    const began = performance.now();
    const response = await api.send('POST', `/imodels/${source.iModelId}/clone`, {
      iTwinId: source.iTwinId,
      name: randomUUID(),
    });
    const id = /[0-9a-f-]{36}$/.exec(response.headers.get('location') ?? '')?.[0] ?? '';
    while ((await operationState(api, id)) !== 'successful') await pause(1);
    source.times.push(performance.now() - began);
    await requireOwnIds(api, id, source.iTwinId);
  }
  source.bytes += (await folderBytes(store)) - before;
  source.copies.push(await plainCopy(dataDir, source.objects));
}

/** @throws Error unless the clone has a checkpoint whose first pages contain the ids of the clone */
async function requireOwnIds(api: Client, iModelId: string, iTwinId: string): Promise<void> {
  const { checkpoint } = (await api.json('GET', `/imodels/${iModelId}/changesets/0/checkpoint`)) as {
    checkpoint: { state: string; directoryAccessInfo: object | null; _links: { download: { href: string } | null } };
  };
  if (
    checkpoint.state !== 'successful' ||
    checkpoint.directoryAccessInfo === null ||
    checkpoint._links.download === null
  )
    throw new Error('a clone has no checkpoint');
  const firstPages = Buffer.from(
    await (await fetch(checkpoint._links.download.href, { headers: { range: 'bytes=0-65535' } })).arrayBuffer(),
  );
  if (!firstPages.includes(guidBytes(iModelId)) || !firstPages.includes(guidBytes(iTwinId)))
    throw new Error('the checkpoint of a clone does not contain the ids of the clone');
}

/** Copies files and syncs them to disk. @returns milliseconds */
async function plainCopy(dataDir: string, files: readonly string[]): Promise<number> {
  const folder = path.join(dataDir, 'copies');
  await mkdir(folder);
  const began = performance.now();
  for (const [n, file] of files.entries()) {
    const copy = path.join(folder, String(n));
    await copyFile(file, copy);
    const handle = await open(copy, 'r+');
    await handle.sync();
    await handle.close();
  }
  const took = performance.now() - began;
  rmSync(folder, { recursive: true });
  return took;
}
