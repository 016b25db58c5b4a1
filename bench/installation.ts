import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import pino from 'pino';
import { firstOwner, raisedTiers, startChild, tokenOf, type Child } from '../apps/server/src/bench/common.ts';
import { loadConfig } from '../apps/server/src/config.ts';
import { databaseFile } from '../apps/server/src/db/database.ts';
import type { Caller } from '../apps/server/src/domain.ts';
import type { Services } from '../apps/server/src/services.ts';
import { openServices } from '../apps/server/src/wiring/services.ts';

/** A new installation that a benchmark has filled, with its server not started. */
export interface Installation<T> {
  dataDir: string;
  databaseUrl: string | undefined;
  token: string;
  iTwinId: string;
  /** What `fill` returned. */
  content: T;
  start(): Promise<Child>;
}

/** Makes an installation in a folder and fills it through its services. Tokens are verified, rate limits raised. */
export async function makeInstallation<T>(
  dataDir: string,
  databaseUrl: string | undefined,
  fill: (services: Services, caller: Caller, iTwinId: string) => Promise<T>,
  settings: object = {},
): Promise<Installation<T>> {
  const file = path.join(dataDir, 'bench.json');
  writeFileSync(
    file,
    JSON.stringify({
      dataDir,
      logLevel: 'error',
      tiers: raisedTiers,
      checkpoints: { generate: 'off' },
      ...(databaseUrl !== undefined && { databaseUrl }),
      ...settings,
    }),
  );
  const services = await openServices(loadConfig({}, { file, env: {} }), pino({ level: 'error' }));
  try {
    const { iTwinId, caller } = await firstOwner(services);
    const content = await fill(services, caller, iTwinId);
    return {
      dataDir,
      databaseUrl,
      token: await tokenOf(dataDir),
      iTwinId,
      content,
      start: () => startChild(dataDir, databaseUrl),
    };
  } finally {
    await services.close();
  }
}

/** Creates an iModel without changesets. */
export async function emptyIModel(services: Services, caller: Caller, iTwinId: string): Promise<string> {
  const access = await services.permissions.onITwin(caller, iTwinId);
  if (access === undefined) throw new Error('the iTwin of the benchmark does not exist');
  const { imodel } = await services.iModels.create(caller, access, {
    name: randomUUID(),
    description: null,
    extent: null,
    containersEnabled: 0,
    geographicCrs: null,
  });
  return imodel.id;
}

/** Plain HTTP as one user. */
export class Api {
  readonly origin: string;
  readonly token: string;

  constructor(origin: string, token: string) {
    this.origin = origin;
    this.token = token;
  }

  get headers(): Record<string, string> {
    return { authorization: `Bearer ${this.token}` };
  }

  get jsonHeaders(): Record<string, string> {
    return { ...this.headers, 'content-type': 'application/json' };
  }

  async send(method: string, url: string, body?: object): Promise<Response> {
    const response = await fetch(url.startsWith('http') ? url : `${this.origin}${url}`, {
      method,
      headers: body === undefined ? this.headers : this.jsonHeaders,
      ...(body !== undefined && { body: JSON.stringify(body) }),
      signal: AbortSignal.timeout(120_000),
    });
    if (!response.ok) throw new Error(`${method} ${url} answered ${response.status}: ${await response.text()}`);
    return response;
  }

  async json<T>(method: string, url: string, body?: object): Promise<T> {
    return (await this.send(method, url, body)).json() as Promise<T>;
  }

  /** Clones an iModel. @returns the id of the clone */
  async clone(iModelId: string, iTwinId: string): Promise<string> {
    const response = await this.send('POST', `/imodels/${iModelId}/clone`, { iTwinId, name: randomUUID() });
    await response.arrayBuffer();
    return /[0-9a-f-]{36}$/.exec(response.headers.get('location') ?? '')?.[0] ?? '';
  }

  async briefcase(iModelId: string): Promise<number> {
    return (await this.json<{ briefcase: { briefcaseId: number } }>('POST', `/imodels/${iModelId}/briefcases`, {}))
      .briefcase.briefcaseId;
  }
  /** Pushes one changeset of random bytes from a new briefcase. @returns its id */
  async push(iModelId: string, parentId: string, size: number): Promise<string> {
    const briefcaseId = await this.briefcase(iModelId);
    const id = randomBytes(20).toString('hex');
    const { changeset } = await this.json<{
      changeset: { _links: { upload: { href: string }; complete: { href: string } } };
    }>('POST', `/imodels/${iModelId}/changesets`, { id, parentId, briefcaseId, fileSize: size });
    const uploaded = await fetch(changeset._links.upload.href, {
      method: 'PUT',
      headers: { 'x-ms-blob-type': 'BlockBlob', 'content-type': 'application/octet-stream' },
      body: randomBytes(size),
      signal: AbortSignal.timeout(120_000),
    });
    if (uploaded.status !== 201) throw new Error(`the upload answered ${uploaded.status}`);
    await this.json('PATCH', changeset._links.complete.href, { state: 'fileUploaded', briefcaseId });
    return id;
  }
}

/** Opens the database of an installation on SQLite, beside its server, for one look. */
export function lookInto<T>(dataDir: string, look: (database: DatabaseSync) => T): T {
  const database = new DatabaseSync(path.join(dataDir, databaseFile), { readOnly: true });
  try {
    return look(database);
  } finally {
    database.close();
  }
}

/** Bytes of the pages that are in use. */
export function databaseBytes(dataDir: string): number {
  return lookInto(dataDir, (database) => {
    const value = (pragma: string): number =>
      Number(Object.values(database.prepare(`pragma ${pragma}`).get() as Record<string, number>)[0]);
    return (value('page_count') - value('freelist_count')) * value('page_size');
  });
}
