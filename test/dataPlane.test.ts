import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { closeSync, ftruncateSync, openSync } from 'node:fs';
import { request, type RequestOptions } from 'node:http';
import { connect } from 'node:net';
import path from 'node:path';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import { BlockBlobClient } from '@azure/storage-blob';
import type { BlobStore, Sink } from '../apps/server/src/storage/blobStore.ts';
import { type Answer, Api } from './support/api.ts';
import { makeIModel, workFolder, type MadeIModel } from './support/clients.ts';
import { errorsLogged } from './support/logs.ts';
import { beginPush, downloadLink } from './support/push.ts';
import { storeConfig, type Setup } from './support/server.ts';
import { onEachStore } from './support/suite.ts';

/** Stores without direct access: every byte passes through the server. */
const through = ({ store }: Setup) => ({ store: storeConfig(store, false) });

onEachStore('Signed links', through, (context) => {
  const plain = (): Api => new Api(context.server.origin);
  const blockBlob = { 'x-ms-blob-type': 'BlockBlob' };
  let made: Promise<MadeIModel> | undefined;
  const source = (): Promise<MadeIModel> => (made ??= makeIModel(context.olivia, context.iTwinId, { changesets: 2 }));

  const linkOf = async (index = 1): Promise<string> => downloadLink(context.api, (await source()).id, index);
  const begin = (fileSize: number) => beginPush(context.olivia, context.api, context.iTwinId, fileSize);
  const codeOf = (answer: Answer): string | null => answer.headers.get('x-ms-error-code');

  test('downloads have ETag, Content-Length and ranges, and small files arrive in one chunk', async () => {
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

  test('a download by range returns exactly that range', async () => {
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

  test('a suffix range longer than the file returns all of it, and an invalid range is ignored', async () => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const all = { 206: `bytes 0-${bytes.length - 1}/${bytes.length}`, 200: null } as const;
    const cases: [range: string, status: keyof typeof all][] = [
      [`bytes=-${bytes.length}`, 206],
      [`bytes=-${bytes.length + 4000}`, 206],
      [`bytes=-${'9'.repeat(400)}`, 206],
      [`BYTES = 0 - ${bytes.length + 5}`, 206],
      ['bytes=0-0,5-9', 200],
      ['bytes=9-5', 200],
      ['bytes=-', 200],
      ['bytes=a-b', 200],
      ['items=0-1', 200],
      ['bytes', 200],
      [`bytes=${' '.repeat(8000)}`, 200],
      [`bytes=${'1-2,'.repeat(2000)}`, 200],
    ];
    for (const [range, status] of cases) {
      const response = await fetch(await linkOf(), { headers: { range } });
      assert.deepEqual(
        [response.status, response.headers.get('content-range')],
        [status, all[status]],
        range.slice(0, 50),
      );
      assert.deepEqual(Buffer.from(await response.arrayBuffer()), bytes);
    }
    for (const range of ['bytes=-0', `bytes=${'9'.repeat(400)}-`])
      assert.equal((await plain().get(await linkOf(), { range })).status, 416);
    assert.equal(
      (await fetch(await linkOf(), { method: 'HEAD', headers: { range: 'bytes=0-0' } })).headers.get('content-length'),
      String(bytes.length),
    );
  });

  test('If-Match, If-None-Match and If-Range are honored', async () => {
    const link = await linkOf();
    const etag = (await fetch(link)).headers.get('etag') ?? '';
    const statusWith = async (headers: Record<string, string>): Promise<number> =>
      (await plain().get(link, headers)).status;
    for (const [value, status] of [
      [etag, 200],
      ['*', 200],
      [`"a,b", ${etag}`, 200],
      ['"other"', 412],
      [`W/${etag}`, 412],
      ['', 412],
      [etag.slice(1, -1), 412],
    ] as const)
      assert.equal(await statusWith({ 'if-match': value }), status, `If-Match: ${value}`);
    for (const [value, status] of [
      [etag, 304],
      ['*', 304],
      [`W/${etag}`, 304],
      [`"x" , W/${etag}`, 304],
      ['"other"', 200],
      [`"${' ,'.repeat(4000)}`, 200],
    ] as const)
      assert.equal(await statusWith({ 'if-none-match': value }), status, `If-None-Match: ${value.slice(0, 50)}`);
    for (const [value, status] of [
      [etag, 206],
      [`W/${etag}`, 200],
      ['"other"', 200],
      ['Wed, 25 Nov 2026 09:00:00 GMT', 200],
    ] as const)
      assert.equal(await statusWith({ range: 'bytes=0-0', 'if-range': value }), status, `If-Range: ${value}`);
  });

  test('a truncated stored file closes the connection at once and is logged, for whole downloads and ranges', async (t) => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const logged = errorsLogged(t, context.server);
    const store = context.server.services.blobs.stores.home;
    const short = (): Readable =>
      Readable.from([bytes.subarray(0, 100), bytes.subarray(100, 150)], { objectMode: false });
    let stored = short;
    t.mock.method(store, 'read', () => Promise.resolve(stored()));
    if (store.openObject !== undefined)
      t.mock.method(store as Required<BlobStore>, 'openObject', () =>
        Promise.resolve({
          pour: async (sink: Sink) => {
            for await (const chunk of stored()) await sink(chunk as Buffer);
          },
          close: () => Promise.resolve(),
        }),
      );
    const download = (headers: Record<string, string> = {}): Promise<string> =>
      new Promise((resolve, reject) => {
        linkOf().then((link) => {
          const asking = request(link, { headers }, (response) => {
            response.resume();
            response.once('close', () => resolve(response.complete ? 'complete' : 'cut off'));
            response.once('error', () => undefined);
          });
          asking.once('error', reject);
          asking.end();
        }, reject);
      });
    assert.equal(await download(), 'cut off');
    assert.ok(logged.some(({ msg }) => msg.startsWith('a file could not be sent to its end')));
    assert.equal(await download({ range: 'bytes=10-' }), 'cut off');
    // Before the first byte was sent, the client still gets an answer.
    stored = () => Readable.from([]);
    const empty = await plain().get(await linkOf(), { range: 'bytes=10-' });
    assert.deepEqual([empty.status, codeOf(empty)], [500, 'InternalError']);
  });

  test('HEAD returns the size and no body', async () => {
    const bytes = (await source()).changesets[0]?.bytes as Buffer;
    const response = await fetch(await linkOf(), { method: 'HEAD' });
    assert.deepEqual(
      [response.status, response.headers.get('content-length'), await response.text()],
      [200, String(bytes.length), ''],
    );
  });

  test('a link is valid for one blob and one direction, and cannot be modified', async () => {
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

  test('an upload is accepted once: replaying the link before or after completion changes nothing', async () => {
    const bytes = randomBytes(40);
    const { upload, complete, content } = await begin(40);
    const replay = async (): Promise<void> => {
      assert.equal((await plain().put(upload, bytes, blockBlob)).status, 201);
      const other = await plain().put(upload, randomBytes(40), blockBlob);
      assert.deepEqual([other.status, codeOf(other)], [409, 'BlobAlreadyExists']);
    };
    assert.equal((await plain().put(upload, bytes, blockBlob)).status, 201);
    await replay();
    assert.equal((await complete()).status, 200);
    await replay();
    assert.deepEqual(await content(), bytes);
  });

  test('an upload without Content-Length, as Google clients send it, is accepted and measured', async () => {
    const bytes = randomBytes(100_000);
    const { upload, complete, content } = await begin(bytes.length);
    const send = (body: Buffer): Promise<number> =>
      new Promise((resolve, reject) => {
        const sending = request(
          upload,
          {
            method: 'PUT',
            headers: { 'content-type': 'application/x-www-form-urlencoded', 'transfer-encoding': 'chunked' },
          },
          (response) => {
            response.resume();
            response.once('end', () => resolve(response.statusCode ?? 0));
          },
        );
        sending.once('error', reject);
        for (let at = 0; at < body.length; at += 10_000) sending.write(body.subarray(at, at + 10_000));
        sending.end();
      });
    assert.equal(await send(bytes.subarray(1)), 400);
    assert.equal(await send(bytes), 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('an interrupted upload stays invisible and can be repeated', async () => {
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

  const idOf = (name: string): string => Buffer.from(name).toString('base64');
  const block = (upload: string, name: string, bytes: Buffer, headers?: Record<string, string>) =>
    plain().put(`${upload}&comp=block&blockid=${encodeURIComponent(idOf(name))}`, bytes, headers);
  const blockList = (upload: string, names: readonly string[], headers?: Record<string, string>) =>
    plain().put(
      `${upload}&comp=blocklist`,
      `<?xml version="1.0" encoding="utf-8"?><BlockList>${names.map((name) => `<Latest>${idOf(name)}</Latest>`).join('')}</BlockList>`,
      { 'content-type': 'application/xml', ...headers },
    );

  test('blocks are assembled in the order of the list, whatever the order of arrival', async () => {
    const parts = [randomBytes(3000), randomBytes(4000), randomBytes(10)];
    const { upload, complete, content } = await begin(7010);
    for (const n of [2, 0, 1]) assert.equal((await block(upload, `b${n}`, parts[n] as Buffer)).status, 201);
    const unknown = await blockList(upload, ['b0', 'b1', 'b9']);
    assert.deepEqual([unknown.status, codeOf(unknown)], [400, 'InvalidBlockList']);
    const short = await blockList(upload, ['b0', 'b1']);
    assert.equal(short.status, 400);
    for (const text of ['no xml', '</BlockList><BlockList>', '<BlockList>'.repeat(200_000)])
      assert.equal((await plain().put(`${upload}&comp=blocklist`, text)).status, 400);
    assert.equal((await blockList(upload, ['b0', 'b1', 'b2'])).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), Buffer.concat(parts));
  });

  test('a block that is sent again replaces the earlier one and counts once', async () => {
    const bytes = randomBytes(6000);
    const { upload, complete, content } = await begin(bytes.length);
    for (let n = 0; n < 4; n++) assert.equal((await block(upload, 'b1', randomBytes(3000))).status, 201);
    assert.equal((await block(upload, 'b1', bytes.subarray(0, 3000))).status, 201);
    assert.equal((await block(upload, 'b2', bytes.subarray(3000))).status, 201);
    assert.equal((await blockList(upload, ['b1', 'b2'])).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('the official client can restart an interrupted upload through the same link any number of times', async () => {
    const bytes = randomBytes(100_000);
    const { upload, complete, content } = await begin(bytes.length);
    const client = new BlockBlobClient(upload);
    const inBlocks = { blockSize: 10_000, maxSingleShotSize: 0, concurrency: 5 };
    for (let attempt = 0; attempt < 3; attempt++) {
      const abort = new AbortController();
      const onProgress = ({ loadedBytes }: { loadedBytes: number }): void =>
        void (loadedBytes >= 60_000 && abort.abort());
      await assert.rejects(
        client.uploadData(randomBytes(bytes.length), { ...inBlocks, onProgress, abortSignal: abort.signal }),
      );
    }
    await client.uploadData(bytes, inBlocks);
    // Again, as a client does that lost the answer: the bytes are the same.
    await client.uploadData(bytes, inBlocks);
    await assert.rejects(client.uploadData(randomBytes(bytes.length), inBlocks), { statusCode: 409 });
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('a repeated block list answers 201 concurrently, before and after completion; other bytes are refused', async () => {
    const bytes = randomBytes(5000);
    const { upload, complete, content } = await begin(bytes.length);
    const stage = async (names: readonly string[], of: Buffer): Promise<void> => {
      for (const [n, name] of names.entries())
        assert.equal((await block(upload, name, of.subarray(2000 * n, 2000 * (n + 1)))).status, 201);
    };
    await stage(['b1', 'b2', 'b3'], bytes);
    const list = async (names: readonly string[]): Promise<unknown[]> => {
      const answer = await blockList(upload, names);
      return [answer.status, codeOf(answer)];
    };
    const all = ['b1', 'b2', 'b3'];
    assert.deepEqual(await Promise.all([list(all), list(all), list(all)]), [
      [201, null],
      [201, null],
      [201, null],
    ]);
    assert.deepEqual(await list(all), [201, null]);
    assert.deepEqual(await list(['b3', 'b2', 'b1']), [400, 'InvalidBlockList']);
    // A block that arrives late is staged again: the same bytes change nothing, others do.
    assert.equal((await block(upload, 'b2', bytes.subarray(2000, 4000))).status, 201);
    assert.deepEqual(await list(all), [201, null]);
    assert.equal((await block(upload, 'b2', randomBytes(2000))).status, 201);
    assert.deepEqual(await list(all), [409, 'BlobAlreadyExists']);
    await stage(['again1', 'again2', 'again3'], bytes);
    assert.deepEqual(await list(['again1', 'again2', 'again3']), [201, null]);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await list(all), [201, null]);
    assert.equal((await block(upload, 'b2', bytes.subarray(2000, 4000))).status, 409);
    assert.deepEqual(await content(), bytes);
  });

  test('a commit that was interrupted before the database recorded it can be repeated', async (t) => {
    const bytes = randomBytes(3000);
    const { upload, complete, content } = await begin(bytes.length);
    assert.equal((await block(upload, 'b1', bytes)).status, 201);
    const store = context.server.services.blobs.stores.home;
    const commit = store.commitBlocks.bind(store);
    const failing = t.mock.method(store, 'commitBlocks', async (...parameters: Parameters<typeof commit>) => {
      await commit(...parameters);
      throw new Error('the server dies here');
    });
    assert.equal((await blockList(upload, ['b1'])).status, 500);
    failing.mock.restore();
    // The collector, not the client, removes what is left of a finished upload.
    t.mock.method(store, 'dropBlocks', () => Promise.reject(new Error('the store does not answer')));
    assert.equal((await blockList(upload, ['b1'])).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('a block longer than the file is refused, and staged bytes are bounded, so that a link cannot fill the disk', async () => {
    const { upload } = await begin(1000);
    const home = context.server.services.blobs.stores.home;
    const blobId = new URL(upload).pathname.split('/')[3] ?? '';
    assert.equal((await block(upload, 'long', randomBytes(1001))).status, 400);
    for (let n = 0; n < 12; n++) assert.equal((await block(upload, `b${n}`, randomBytes(300))).status, 201);
    const staged = [...(await home.stagedBlocks(blobId)).values()].reduce((sum, size) => sum + size, 0);
    assert.ok(staged >= 1000 && staged <= 2000, `${staged} bytes are staged`);
    const odd = await plain().put(`${upload}&comp=block&blockid=${encodeURIComponent('../../x')}`, 'x');
    assert.equal(odd.status, 400);
    assert.equal((await plain().put(`${upload}&comp=metadata`, 'x')).status, 400);
  });

  test('bytes that do not match the MD5 sent with them are refused and not stored', async () => {
    const bytes = randomBytes(2000);
    const damaged = Buffer.from(bytes);
    damaged[7] = (damaged[7] as number) ^ 1;
    const md5 = (of: Buffer | string): string => createHash('md5').update(of).digest('base64');
    const refused = (answer: Answer): unknown[] => [answer.status, codeOf(answer)];
    const mismatch = [400, 'Md5Mismatch'];
    const whole = await begin(bytes.length);
    for (const header of ['content-md5', 'x-ms-blob-content-md5']) {
      assert.deepEqual(
        refused(await plain().put(whole.upload, damaged, { ...blockBlob, [header]: md5(bytes) })),
        mismatch,
      );
      assert.deepEqual(refused(await plain().put(whole.upload, bytes, { ...blockBlob, [header]: 'short' })), [
        400,
        'InvalidMd5',
      ]);
    }
    assert.equal(((await whole.complete()).body as { error: { code: string } }).error.code, 'FileNotFound');
    assert.equal(
      (
        await plain().put(whole.upload, bytes, {
          ...blockBlob,
          'content-md5': md5(bytes),
          'x-ms-blob-content-md5': md5(bytes),
        })
      ).status,
      201,
    );
    assert.equal((await whole.complete()).status, 200);

    const { upload, complete, content } = await begin(bytes.length);
    assert.deepEqual(refused(await block(upload, 'b1', damaged, { 'content-md5': md5(bytes) })), mismatch);
    assert.deepEqual(refused(await blockList(upload, ['b1'])), [400, 'InvalidBlockList']);
    assert.equal((await block(upload, 'b1', bytes, { 'content-md5': md5(bytes) })).status, 201);
    assert.deepEqual(refused(await blockList(upload, ['b1'], { 'content-md5': md5('another list') })), mismatch);
    assert.deepEqual(refused(await blockList(upload, ['b1'], { 'x-ms-blob-content-md5': md5(damaged) })), mismatch);
    assert.equal((await blockList(upload, ['b1'], { 'x-ms-blob-content-md5': md5(bytes) })).status, 201);
    assert.equal((await complete()).status, 200);
    assert.deepEqual(await content(), bytes);
  });

  test('an upload that claims another kind of blob is refused', async () => {
    const { upload } = await begin(4);
    assert.equal((await plain().put(upload, 'abcd', { 'x-ms-blob-type': 'PageBlob' })).status, 400);
  });
});

onEachStore('A refused body', through, (context) => {
  const long = Buffer.alloc(20_000_000);

  test('is read to its end while it is being sent, so that the client receives the answer', async () => {
    const { upload } = await beginPush(context.olivia, context.api, context.iTwinId, 1000);
    for (const [link, headers, status] of [
      [upload, {}, 400],
      [upload.replace('sig=', 'sig=x'), {}, 403],
      [upload.replace('sig=', 'sig=x'), { connection: 'close' }, 403],
      [`${upload}&comp=block&blockid=YQ%3D%3D`, {}, 400],
      [`${upload}&comp=blocklist`, {}, 413],
      [`${context.server.origin}/imodels`, { authorization: `Bearer ${await context.server.token('olivia')}` }, 413],
      [`${context.server.origin}/imodels`, {}, 401],
    ] as const)
      for (let n = 0; n < 3; n++) {
        const method = link.includes('/storage/') ? 'PUT' : 'POST';
        assert.equal(
          await statusOf(link, { method, headers: { 'content-type': 'application/json', ...headers } }, long),
          status,
          `${method} ${new URL(link).pathname}`,
        );
      }
  });

  test('is never requested from a client that waits for 100 Continue', async () => {
    const { upload, complete } = await beginPush(context.olivia, context.api, context.iTwinId, long.length);
    const expecting = { method: 'PUT', headers: { expect: '100-continue', 'content-length': String(long.length) } };
    assert.deepEqual(await sentAfterContinue(upload.replace('sig=', 'sig=x'), expecting, long), [403, false]);
    assert.deepEqual(await sentAfterContinue(upload, expecting, long), [201, true]);
    assert.equal((await complete()).status, 200);
    const post = { ...expecting, method: 'POST' };
    assert.deepEqual(await sentAfterContinue(`${context.server.origin}/imodels`, post, long), [401, false]);
  });
});

/** The status for a client that, like many, sends its whole request before it reads the answer. */
function statusOf(
  url: string,
  { method = '', headers = {} }: { method?: string; headers?: Record<string, string> },
  body: Buffer,
): Promise<number> {
  const { hostname, port, pathname, search } = new URL(url);
  const lines = [
    `${method} ${pathname}${search} HTTP/1.1`,
    `host: ${hostname}:${port}`,
    `content-length: ${body.length}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  return new Promise((resolve, reject) => {
    const socket = connect(Number(port), hostname);
    socket.once('error', reject);
    socket.write(`${lines.join('\r\n')}\r\n\r\n`);
    socket.write(body, (error) => {
      if (error != null) return reject(error);
      socket.once('data', (answer: Buffer) => {
        socket.destroy();
        resolve(Number(answer.toString('latin1').split(' ', 2)[1]));
      });
      socket.once('end', () => reject(new Error('the connection ended without an answer')));
    });
  });
}

/** Sends a body after 100 Continue. @returns the status, and whether the server asked for the body */
function sentAfterContinue(
  url: string,
  options: RequestOptions,
  body: Buffer,
): Promise<[status: number, continued: boolean]> {
  return new Promise((resolve, reject) => {
    let continued = false;
    const asking = request(url, { ...options, agent: false }, (response) => {
      response.resume();
      response.once('end', () => {
        resolve([response.statusCode ?? 0, continued]);
        asking.destroy();
      });
    });
    asking.once('continue', () => {
      continued = true;
      asking.end(body);
    });
    asking.on('error', reject);
    asking.flushHeaders();
  });
}

onEachStore(
  'Links that live 10 s',
  (setup) => ({ ...through(setup), signedLinkSeconds: 10, collector: { intervalSeconds: 0, graceSeconds: 11 } }),
  (context) => {
    test('are refused after they expire', async (t) => {
      const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
      const link =
        (
          await context.olivia.client.changesets.getSingle({
            authorization: context.olivia.authorization,
            iModelId: made.id,
            changesetIndex: 1,
          })
        )._links.download?.href ?? '';
      assert.equal((await fetch(link)).status, 200);
      // The server runs in this process: its clock is moved instead of waiting.
      const later = Date.now() + 10_001;
      t.mock.method(Date, 'now', () => later);
      const answer = await new Api(context.server.origin).get(link);
      assert.deepEqual([answer.status, answer.headers.get('x-ms-error-code')], [403, 'AuthenticationFailed']);
    });
  },
);

onEachStore('A file above 256 MiB', {}, (context) => {
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
      const pushed = await context.olivia.client.changesets.create({
        authorization,
        iModelId: made.id,
        changesetProperties: { id: 'c'.repeat(40), briefcaseId, filePath },
      });
      assert.equal(pushed.index, 1);
      const { _links } = await context.olivia.client.changesets.getSingle({
        authorization,
        iModelId: made.id,
        changesetIndex: 1,
      });
      const head = await fetch(_links.download?.href ?? '', { method: 'HEAD' });
      assert.equal(head.headers.get('content-length'), String(size));
    } finally {
      work.remove();
    }
  });
});
