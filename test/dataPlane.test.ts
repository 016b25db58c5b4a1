import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { request } from 'node:http';
import path from 'node:path';
import { test } from 'node:test';
import type { Answer } from './support/api.ts';
import { Api } from './support/api.ts';
import { makeIModel, workFolder, type MadeIModel } from './support/clients.ts';
import { beginPush, downloadLink } from './support/push.ts';
import { storeConfig, type Setup } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

/** Stores that clients do not reach: every byte comes through the server. */
const through = ({ store }: Setup) => ({ store: storeConfig(store, false) });

onEachDatabase('Signed links', through, (context) => {
  const plain = (): Api => new Api(context.server.origin);
  const blockBlob = { 'x-ms-blob-type': 'BlockBlob' };
  let made: Promise<MadeIModel> | undefined;
  const source = (): Promise<MadeIModel> => (made ??= makeIModel(context.olivia, context.iTwinId, { changesets: 2 }));

  const linkOf = async (index = 1): Promise<string> => downloadLink(context.api, (await source()).id, index);
  const begin = (fileSize: number) => beginPush(context.olivia, context.api, context.iTwinId, fileSize);
  const codeOf = (answer: Answer): string | null => answer.headers.get('x-ms-error-code');

  test('a download has ETag, Content-Length and ranges, and small files come in one piece', async () => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const response = await fetch(await linkOf());
    assert.equal(response.status, 200);
    assert.equal(response.headers.get('content-length'), String(bytes.length));
    assert.match(response.headers.get('etag') ?? '', /^"[0-9a-f]{32}"$/);
    assert.equal(response.headers.get('accept-ranges'), 'bytes');
    const chunks: Uint8Array[] = [];
    for await (const chunk of response.body as ReadableStream<Uint8Array>) chunks.push(chunk);
    assert.equal(chunks.length, 1);
    assert.deepEqual(Buffer.from(chunks[0] as Uint8Array), bytes);
  });

  test('a download by range gives exactly that range', async () => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const cases: [header: string, value: string, from: number, to: number][] = [
      ['range', 'bytes=0-0', 0, 0],
      ['range', 'bytes=10-19', 10, 19],
      ['range', 'bytes=100-', 100, bytes.length - 1],
      ['range', 'bytes=-5', bytes.length - 5, bytes.length - 1],
      ['x-ms-range', 'bytes=5-9', 5, 9],
    ];
    for (const [header, value, from, to] of cases) {
      const response = await fetch(await linkOf(), { headers: { [header]: value } });
      assert.equal(response.status, 206);
      assert.equal(response.headers.get('content-range'), `bytes ${from}-${to}/${bytes.length}`);
      assert.deepEqual(Buffer.from(await response.arrayBuffer()), bytes.subarray(from, to + 1));
    }
    const beyond = await plain().get(await linkOf(), { range: `bytes=${bytes.length}-` });
    assert.deepEqual([beyond.status, beyond.headers.get('content-range')], [416, `bytes */${bytes.length}`]);
  });

  test('If-Match and If-None-Match are kept to', async () => {
    const link = await linkOf();
    const etag = (await fetch(link)).headers.get('etag') ?? '';
    assert.equal((await plain().get(link, { 'if-match': etag })).status, 200);
    assert.equal((await plain().get(link, { 'if-match': '"other"' })).status, 412);
    assert.equal((await plain().get(link, { 'if-none-match': etag })).status, 304);
  });

  test('HEAD tells the size and sends nothing', async () => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const response = await fetch(await linkOf(), { method: 'HEAD' });
    assert.deepEqual([response.status, response.headers.get('content-length'), await response.text()], [200, String(bytes.length), '']);
  });

  test('a link is good for one blob and one direction only, and not to be changed', async () => {
    const [first, second] = [new URL(await linkOf(1)), new URL(await linkOf(2))];
    const changed = (change: (url: URL) => void): string => {
      const url = new URL(first);
      change(url);
      return url.href;
    };
    const tampered = [
      changed((url) => (url.pathname = second.pathname)),
      changed((url) => url.searchParams.set('sig', second.searchParams.get('sig') ?? '')),
      changed((url) => url.searchParams.set('se', new Date(Date.now() + 1e9).toISOString())),
      changed((url) => url.searchParams.set('sp', 'w')),
      changed((url) => url.searchParams.set('nonce', 'another')),
      changed((url) => url.searchParams.delete('sig')),
      changed((url) => url.searchParams.append('sp', 'w')),
      changed((url) => (url.search = '')),
      changed((url) => (url.pathname = url.pathname.replace(/[^/]+$/, 'other.cs'))),
      changed((url) => (url.pathname = url.pathname.replace(/blobs\/[^/]+/, `blobs/${randomUUID()}`))),
      changed((url) => (url.pathname = url.pathname.replace(/blobs\/[^/]+/, 'blobs/..%2f..%2foffshoot.db'))),
    ];
    for (const url of tampered) {
      const answer = await plain().get(url);
      assert.deepEqual([answer.status, codeOf(answer)], [403, 'AuthenticationFailed'], url);
    }
    const written = await plain().put(first.href, 'overwritten', blockBlob);
    assert.deepEqual([written.status, codeOf(written)], [403, 'AuthorizationPermissionMismatch']);
    assert.deepEqual(Buffer.from(await (await fetch(first)).arrayBuffer()), (await source()).changesets[0]?.bytes);
    const { upload } = await begin(5);
    assert.equal((await plain().get(upload)).status, 403);
  });

  test('an upload is taken once: replayed after completion, the link changes nothing', async () => {
    const bytes = randomBytes(40);
    const { upload, complete, content } = await begin(40);
    assert.equal((await plain().put(upload, bytes, blockBlob)).status, 201);
    assert.equal((await plain().put(upload, bytes, blockBlob)).status, 201);
    const other = await plain().put(upload, randomBytes(40), blockBlob);
    assert.deepEqual([other.status, codeOf(other)], [409, 'BlobAlreadyExists']);
    assert.equal((await complete()).status, 200);
    for (const replayed of [bytes, randomBytes(40)]) {
      const answer = await plain().put(upload, replayed, blockBlob);
      assert.deepEqual([answer.status, codeOf(answer)], [409, 'BlobAlreadyExists']);
    }
    assert.deepEqual(await content(), bytes);
  });

  test('an upload without Content-Length, as Google clients send it, is taken and measured', async () => {
    const bytes = randomBytes(100_000);
    const { upload, complete, content } = await begin(bytes.length);
    const send = (body: Buffer): Promise<number> =>
      new Promise((resolve, reject) => {
        const sending = request(upload, { method: 'PUT', headers: { 'content-type': 'application/x-www-form-urlencoded', 'transfer-encoding': 'chunked' } }, (response) => {
          response.resume();
          response.once('end', () => resolve(response.statusCode ?? 0));
        });
        sending.once('error', reject);
        for (let at = 0; at < body.length; at += 10_000) sending.write(body.subarray(at, at + 10_000));
        sending.end();
      });
    assert.equal(await send(bytes.subarray(1)), 400);
    assert.equal(await send(bytes), 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('an upload that breaks off leaves nothing to be seen, and can be made again', async () => {
    const bytes = randomBytes(500_000);
    const { upload, complete, content } = await begin(bytes.length);
    await new Promise<void>((resolve) => {
      const sending = request(upload, { method: 'PUT', headers: { ...blockBlob, 'content-length': bytes.length } });
      sending.once('error', () => resolve());
      sending.write(bytes.subarray(0, 200_000), () => sending.destroy());
    });
    const early = await complete();
    assert.equal((early.body as { error: { code: string } }).error.code, 'FileNotFound');
    assert.equal((await plain().put(upload, bytes, blockBlob)).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('blocks are put together in the order of the list, however they came', async () => {
    const parts = [randomBytes(3000), randomBytes(4000), randomBytes(10)];
    const { upload, complete, content } = await begin(7010);
    const idOf = (n: number): string => Buffer.from(`block-${n}`).toString('base64');
    const block = (n: number, bytes: Buffer) => plain().put(`${upload}&comp=block&blockid=${encodeURIComponent(idOf(n))}`, bytes);
    const list = (ids: number[]) =>
      plain().put(`${upload}&comp=blocklist`, `<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.map((n) => `<Latest>${idOf(n)}</Latest>`).join('')}</BlockList>`, { 'content-type': 'application/xml' });
    for (const n of [2, 0, 1]) assert.equal((await block(n, parts[n] as Buffer)).status, 201);
    const unknown = await list([0, 1, 9]);
    assert.deepEqual([unknown.status, codeOf(unknown)], [400, 'InvalidBlockList']);
    const short = await list([0, 1]);
    assert.equal(short.status, 400);
    assert.equal((await plain().put(`${upload}&comp=blocklist`, 'no xml')).status, 400);
    assert.equal((await list([0, 1, 2])).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), Buffer.concat(parts));
  });

  test('blocks beyond the declared size are refused, so a link cannot fill the disk', async () => {
    const { upload } = await begin(1000);
    const block = (n: number, size: number) => plain().put(`${upload}&comp=block&blockid=${Buffer.from(`b${n}`).toString('base64url')}`, randomBytes(size));
    assert.equal((await block(1, 600)).status, 201);
    assert.equal((await block(2, 600)).status, 400);
    const odd = await plain().put(`${upload}&comp=block&blockid=${encodeURIComponent('../../x')}`, 'x');
    assert.equal(odd.status, 400);
    assert.equal((await plain().put(`${upload}&comp=metadata`, 'x')).status, 400);
  });

  test('an upload claimed to be another kind of blob is refused', async () => {
    const { upload } = await begin(4);
    assert.equal((await plain().put(upload, 'abcd', { 'x-ms-blob-type': 'PageBlob' })).status, 400);
  });
});

onEachDatabase('Links that live 10 s', (setup) => ({ ...through(setup), signedLinkSeconds: 10, collector: { intervalSeconds: 0, graceSeconds: 11 } }), (context) => {
  test('are refused once they have expired', async (t) => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const link = (await context.olivia.client.changesets.getSingle({ authorization: context.olivia.authorization, iModelId: made.id, changesetIndex: 1 }))._links.download?.href ?? '';
    assert.equal((await fetch(link)).status, 200);
    // The server runs in this process: its clock is moved, nobody waits.
    const later = Date.now() + 10_001;
    t.mock.method(Date, 'now', () => later);
    const answer = await new Api(context.server.origin).get(link);
    assert.deepEqual([answer.status, answer.headers.get('x-ms-error-code')], [403, 'AuthenticationFailed']);
  });
});

onEachDatabase('A file above 256 MiB', {}, (context) => {
  test('is uploaded in blocks by the official client', async () => {
    const size = 257 * 1024 * 1024;
    const work = workFolder();
    try {
      const filePath = path.join(work.path, 'large.cs');
      const file = openSync(filePath, 'w');
      ftruncateSync(file, size);
      closeSync(file);
      const made = await makeIModel(context.olivia, context.iTwinId);
      const { authorization } = context.olivia;
      const { briefcaseId } = await context.olivia.client.briefcases.acquire({ authorization, iModelId: made.id });
      const pushed = await context.olivia.client.changesets.create({ authorization, iModelId: made.id, changesetProperties: { id: 'c'.repeat(40), briefcaseId, filePath } });
      assert.equal(pushed.index, 1);
      const { _links } = await context.olivia.client.changesets.getSingle({ authorization, iModelId: made.id, changesetIndex: 1 });
      const head = await fetch(_links.download?.href ?? '', { method: 'HEAD' });
      assert.equal(head.headers.get('content-length'), String(size));
    } finally {
      work.remove();
    }
  });
});
