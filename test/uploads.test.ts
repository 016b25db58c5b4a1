import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { test, type TestContext } from 'node:test';
import { collect } from '../apps/server/src/collector/collect.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { Api, type Answer, type WireError } from './support/api.ts';
import { makeIModel } from './support/clients.ts';
import { onEachStore } from './support/suite.ts';
import { until } from './support/until.ts';

const linkSeconds = 100;
const leaseSeconds = 600;
/**
 * Links live 100 s, so that a slow machine stays far below what is left of one, and a push lease 600 s. File stores, because S3 refuses
 * clients whose clock is moved.
 */
const config = {
  store: { type: 'files' as const },
  signedLinkSeconds: linkSeconds,
  pushLeaseSeconds: leaseSeconds,
  collector: { intervalSeconds: 0, graceSeconds: linkSeconds + 1 },
};

onEachStore('Long uploads', config, (context) => {
  /** The server runs in this process: its clocks are moved instead of waiting. @returns moves them to this many seconds after now */
  function clock(t: TestContext): (seconds: number) => void {
    let ahead = 0;
    const [wall, steady] = [Date.now.bind(Date), performance.now.bind(performance)];
    t.mock.method(Date, 'now', () => wall() + ahead);
    t.mock.method(performance, 'now', () => steady() + ahead);
    return (seconds) => (ahead = seconds * 1000);
  }
  const put = (url: string, bytes: Buffer | string): Promise<Answer> =>
    new Api('').put(url, bytes, { 'x-ms-blob-type': 'BlockBlob' });
  const idOf = (name: string): string => Buffer.from(name).toString('base64');
  const block = async (upload: string, name: string, bytes: Buffer): Promise<number> =>
    (await put(`${upload}&comp=block&blockid=${encodeURIComponent(idOf(name))}`, bytes)).status;
  const blockList = async (upload: string, names: readonly string[]): Promise<number> =>
    (
      await put(
        `${upload}&comp=blocklist`,
        `<BlockList>${names.map((name) => `<Latest>${idOf(name)}</Latest>`).join('')}</BlockList>`,
      )
    ).status;
  const codeOf = ({ body }: Answer): string => (body as WireError).error.code;

  async function runCollector(): Promise<void> {
    const { database, blobs } = context.server.services;
    const seeds = await database.db.selectFrom('baseline').select('id').where('id', 'like', 'seed-%').execute();
    await collect(database, blobs.stores, {
      graceMs: 0,
      uploadLifeMs: linkSeconds * 1000,
      groupLifeMs: 1e9,
      seeds: new Map(seeds.map(({ id }) => [id, id])),
      thorough: true,
    });
  }

  async function beginBaseline(): Promise<{
    bytes: Buffer;
    upload: string;
    complete: () => Promise<Answer>;
    operation: () => Promise<{ state: string; failureReason: string | null }>;
  }> {
    const bytes = sampleBaseline();
    const created = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: randomUUID(),
      baselineFile: { size: bytes.length },
    });
    const { id, _links } = (
      created.body as { iModel: { id: string; _links: Record<'upload' | 'complete', { href: string }> } }
    ).iModel;
    return {
      bytes,
      upload: _links.upload.href,
      complete: () => context.api.post(_links.complete.href, {}),
      operation: async () =>
        (
          (await context.api.get(`/imodels/${id}/operations/create`)).body as {
            createOperation: { state: string; failureReason: string | null };
          }
        ).createOperation,
    };
  }

  test('a baseline that started in time completes over its expired link while bytes arrive, and waits a day for its completion', async (t) => {
    const at = clock(t);
    const { bytes, upload, complete, operation } = await beginBaseline();
    const third = Math.ceil(bytes.length / 3);
    const part = (n: number): Buffer => bytes.subarray(third * n, third * (n + 1));
    assert.equal(await block(upload, 'b0', part(0)), 201);
    at(linkSeconds / 2);
    assert.equal(await block(upload, 'b1', part(1)), 201);
    at(linkSeconds + 5);
    await runCollector();
    assert.equal(await block(upload, 'b2', part(2)), 201);
    at(1.5 * linkSeconds);
    await runCollector();
    assert.equal(await blockList(upload, ['b0', 'b1', 'b2']), 201);
    at(2 * linkSeconds);
    assert.equal(await blockList(upload, ['b0', 'b1', 'b2']), 201);
    at(23 * 3600);
    await runCollector();
    assert.equal(await blockList(upload, ['b0', 'b1', 'b2']), 403);
    assert.equal((await operation()).state, 'waitingForFile');
    assert.equal((await complete()).status, 200);
    assert.equal((await operation()).state, 'successful');
  });

  test('a baseline whose link expired unused, or whose upload paused for longer than the lifetime of a link, fails with the reason', async (t) => {
    const at = clock(t);
    const [unused, paused] = [await beginBaseline(), await beginBaseline()];
    assert.equal(await block(paused.upload, 'b0', paused.bytes.subarray(0, 1000)), 201);
    at(linkSeconds + 1);
    assert.equal((await put(unused.upload, unused.bytes)).status, 403);
    assert.equal(await block(paused.upload, 'b0', paused.bytes), 403);
    await runCollector();
    for (const { operation } of [unused, paused])
      assert.deepEqual(
        [(await operation()).state, (await operation()).failureReason],
        ['failed', 'The baseline file was not uploaded before its upload link expired.'],
      );
  });

  test('a baseline that is stored and not completed within a day fails with the reason', async (t) => {
    const at = clock(t);
    const { bytes, upload, operation } = await beginBaseline();
    assert.equal((await put(upload, bytes)).status, 201);
    at(25 * 3600);
    await runCollector();
    assert.equal(
      (await operation()).failureReason,
      'The baseline file was uploaded, but its upload was not completed within a day.',
    );
  });

  async function twoBriefcases(): Promise<{
    begin: (briefcase: 0 | 1, bytes: Buffer) => Promise<Answer & { upload: string; complete: () => Promise<Answer> }>;
  }> {
    const { authorization, client } = context.olivia;
    const { id: iModelId } = await makeIModel(context.olivia, context.iTwinId);
    const briefcases = [
      await client.briefcases.acquire({ authorization, iModelId }),
      await client.briefcases.acquire({ authorization, iModelId }),
    ];
    return {
      begin: async (n, bytes) => {
        const briefcaseId = briefcases[n]?.briefcaseId;
        const answer = await context.api.post(`/imodels/${iModelId}/changesets`, {
          id: randomBytes(20).toString('hex'),
          briefcaseId,
          fileSize: bytes.length,
        });
        const links = (answer.body as { changeset?: { _links: Record<'upload' | 'complete', { href: string }> } })
          .changeset?._links;
        return {
          ...answer,
          upload: links?.upload.href ?? '',
          complete: () => context.api.patch(links?.complete.href ?? '', { state: 'fileUploaded', briefcaseId }),
        };
      },
    };
  }

  test('a running upload keeps the push lease, and completes long after its link expired', async (t) => {
    const at = clock(t);
    const { begin } = await twoBriefcases();
    const bytes = randomBytes(9000);
    const slow = await begin(0, bytes);
    const { db } = context.server.services.database;
    const blobId = new URL(slow.upload).pathname.split('/')[3] ?? '';
    const leaseUntil = async (): Promise<number> =>
      (
        await db
          .selectFrom('pending_changeset')
          .select('lease_until')
          .where('blob_id', '=', blobId)
          .executeTakeFirstOrThrow()
      ).lease_until;
    const arrived = new Promise<number>((resolve, reject) => {
      const sending = request(
        slow.upload,
        { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob', 'content-length': bytes.length } },
        (response) => {
          response.resume();
          response.once('end', () => resolve(response.statusCode ?? 0));
        },
      );
      sending.once('error', reject);
      void (async () => {
        for (const n of [0, 1, 2]) {
          at(n * (leaseSeconds - 60));
          sending.write(bytes.subarray(n * 3000, (n + 1) * 3000));
          await until(
            'the lease is renewed',
            async () => (await leaseUntil()) >= Date.now() + (leaseSeconds - linkSeconds) * 1000 || undefined,
          );
          await runCollector();
        }
        assert.equal(codeOf(await begin(1, bytes)), 'ConflictWithAnotherUser');
        sending.end();
      })().catch(reject);
    });
    assert.equal(await arrived, 201);
    assert.equal((await slow.complete()).status, 200);
  });

  test('a push that lost its lease is asked to pull, and so is an upload to its link', async (t) => {
    const at = clock(t);
    const { begin } = await twoBriefcases();
    const [slow, fast] = [randomBytes(10), randomBytes(20)];
    const lost = await begin(0, slow);
    at(leaseSeconds + 1);
    const taken = await begin(1, fast);
    assert.equal(taken.status, 201);
    const upload = await put(lost.upload, slow);
    assert.deepEqual([upload.status, upload.headers.get('x-ms-error-code')], [403, 'AuthenticationFailed']);
    const early = await lost.complete();
    assert.deepEqual([early.status, codeOf(early)], [409, 'ConflictWithAnotherUser']);
    assert.equal((await put(taken.upload, fast)).status, 201);
    assert.equal((await taken.complete()).status, 200);
    const late = await lost.complete();
    assert.deepEqual([late.status, codeOf(late)], [409, 'NewerChangesExist']);
  });

  test('a push that lost its lease before its link expired gets that error when it uploads', async (t) => {
    clock(t);
    const { begin } = await twoBriefcases();
    const lost = await begin(0, randomBytes(10));
    await context.server.services.database.db.updateTable('pending_changeset').set({ lease_until: 0 }).execute();
    assert.equal((await begin(1, randomBytes(10))).status, 201);
    const upload = await put(lost.upload, randomBytes(10));
    assert.deepEqual([upload.status, upload.headers.get('x-ms-error-code')], [412, 'LeaseLost']);
  });

  test('records of uploads and lost leases are removed after a day', async (t) => {
    const at = clock(t);
    at(26 * 3600);
    await runCollector();
    at(60 * 3600);
    await runCollector();
    const { db } = context.server.services.database;
    assert.deepEqual(
      [
        await db.selectFrom('upload').selectAll().execute(),
        await db.selectFrom('abandoned_push').selectAll().execute(),
      ],
      [[], []],
    );
  });
});
