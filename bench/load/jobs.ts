import { randomUUID } from 'node:crypto';
import { Connection, headOf, type LoadRequest } from './connection.ts';

/** Sends requests in turn over several connections. */
export interface RequestJob {
  kind: 'requests';
  requests: readonly LoadRequest[];
  connections: number;
  /** Ends after this time, or after `count` requests. */
  seconds?: number;
  count?: number;
}

/** Pushes changesets one after another: announces each, uploads it, completes it. */
export interface PushJob {
  kind: 'pushes';
  origin: string;
  token: string;
  iModelId: string;
  briefcaseId: number;
  /** Id of the changeset to start from; empty for none. */
  parentId: string;
  size: number;
  seconds?: number;
  count: number;
}

export type Job = RequestJob | PushJob;

export interface Loaded {
  /** Milliseconds of each request or push. */
  times: number[];
  seconds: number;
  /** Bytes received in bodies. */
  bytes: number;
  /** Id of the last changeset pushed. */
  lastId?: string;
}

export function run(job: Job): Promise<Loaded> {
  return job.kind === 'requests' ? runRequests(job) : runPushes(job);
}

async function runRequests({ requests, connections, seconds, count }: RequestJob): Promise<Loaded> {
  const prepared = requests.map(prepare);
  const open = await Promise.all(
    Array.from({ length: connections }, (_, n) =>
      Connection.open((requests[n % requests.length] as LoadRequest).origin),
    ),
  );
  const times: number[] = [];
  let next = 0;
  try {
    const began = performance.now();
    const until = began + (seconds ?? Infinity) * 1000;
    const most = count ?? Infinity;
    await Promise.all(
      open.map(async (connection) => {
        while (next < most && performance.now() < until) {
          const send = prepared[next++ % prepared.length] as (connection: Connection) => Promise<void>;
          const sent = performance.now();
          await send(connection);
          times.push(performance.now() - sent);
        }
      }),
    );
    const took = (performance.now() - began) / 1000;
    return { times, seconds: took, bytes: open.reduce((sum, { bytes }) => sum + bytes, 0) };
  } finally {
    for (const connection of open) connection.close();
  }
}

function prepare(request: LoadRequest): (connection: Connection) => Promise<void> {
  const { body, bodyBytes, method, path, status } = request;
  const check = (answer: { status: number; body: Buffer }): void => {
    if (answer.status !== status) throw new Error(`${method} ${path} answered ${answer.status}`);
  };
  if (bodyBytes !== undefined) {
    const head = headOf(request, bodyBytes);
    return async (connection) => check(await connection.sendBytes(head, bodyBytes));
  }
  if (body === undefined) {
    const head = headOf(request, undefined);
    return async (connection) => check(await connection.send(head, undefined));
  }
  // An id has 36 characters, `{uuid}` has 6.
  const head = headOf(request, Buffer.byteLength(body) + (body.includes('{uuid}') ? 30 : 0));
  return async (connection) =>
    check(await connection.send(head, Buffer.from(body.replace('{uuid}', randomUUID()), 'utf8')));
}

async function runPushes(job: PushJob): Promise<Loaded> {
  const { origin, token, iModelId, briefcaseId, size, count, seconds } = job;
  // Loaded here, because it takes as long as a short measurement.
  const { makeChangeset } = await import('../../test/support/changesetFile.ts');
  const { randomBytes } = await import('node:crypto');
  const changesets: ReturnType<typeof makeChangeset>[] = [];
  for (let n = 0; n < count; n++)
    changesets.push(makeChangeset(changesets.at(-1)?.id ?? job.parentId, randomBytes(size)));
  const connection = await Connection.open(origin);
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' };
  const json = async (method: string, path: string, body: object, status: number): Promise<unknown> => {
    const content = Buffer.from(JSON.stringify(body));
    const request = { origin, method, path, headers, status };
    const answer = await connection.send(headOf(request, content.length), content, true);
    if (answer.status !== status)
      throw new Error(`${method} ${path} answered ${answer.status}: ${answer.body.toString()}`);
    return JSON.parse(answer.body.toString());
  };
  const times: number[] = [];
  let lastId = job.parentId;
  try {
    const began = performance.now();
    const until = began + (seconds ?? Infinity) * 1000;
    for (const { id, parentId, bytes } of changesets) {
      if (performance.now() >= until) break;
      const sent = performance.now();
      const begun = { id, parentId, briefcaseId, fileSize: bytes.length };
      const { changeset } = (await json('POST', `/imodels/${iModelId}/changesets`, begun, 201)) as {
        changeset: { _links: { upload: { href: string }; complete: { href: string } } };
      };
      const upload = pathOf(changeset._links.upload.href);
      const uploadHeaders = { 'x-ms-blob-type': 'BlockBlob', 'content-type': 'application/octet-stream' };
      const put = { origin, method: 'PUT', path: upload, headers: uploadHeaders, status: 201 };
      const uploaded = await connection.send(headOf(put, bytes.length), bytes);
      if (uploaded.status !== 201) throw new Error(`the upload answered ${uploaded.status}`);
      await json('PATCH', pathOf(changeset._links.complete.href), { state: 'fileUploaded', briefcaseId }, 200);
      times.push(performance.now() - sent);
      lastId = id;
    }
    return { times, seconds: (performance.now() - began) / 1000, bytes: connection.bytes, lastId };
  } finally {
    connection.close();
  }
}

function pathOf(href: string): string {
  const { pathname, search } = new URL(href);
  return `${pathname}${search}`;
}
