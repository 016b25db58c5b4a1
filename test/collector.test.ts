import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { Readable } from 'node:stream';
import { test } from 'node:test';
import type { Schema } from '../apps/server/src/db/schema.ts';
import { abandonPush } from '../apps/server/src/changesets/changesets.ts';
import { collect } from '../apps/server/src/collector/collect.ts';
import { orphanRules } from '../apps/server/src/collector/orphans.ts';
import { enqueue } from '../apps/server/src/operations/jobs.ts';
import { steadyClock } from '../apps/server/src/operations/steadyClock.ts';
import { releaseBlobs } from '../apps/server/src/storage/blobs.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { all, makeIModel, pushMore, workFolder, type MadeIModel } from './support/clients.ts';
import { onEachStore } from './support/suite.ts';

onEachStore('The collector', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  async function run(
    options: {
      graceMs?: number;
      uploadLifeMs?: number;
      completionLifeMs?: number;
      thorough?: boolean;
      signal?: AbortSignal;
    } = {},
  ) {
    const { database, blobs } = context.server.services;
    const seed = await database.db
      .selectFrom('baseline')
      .select('id')
      .where('id', 'like', 'seed-%')
      .executeTakeFirstOrThrow();
    return collect(database, blobs.stores, {
      graceMs: 0,
      uploadLifeMs: 3_600_000,
      seeds: new Map([[blobs.stores.home.id, seed.id]]),
      groupLifeMs: 3_600_000,
      thorough: true,
      ...options,
    });
  }
  const files = async (): Promise<number> => (await all(context.server.services.blobs.stores.home.list())).length;
  const clone = async (of: MadeIModel, changesetIndex: number): Promise<MadeIModel> => {
    const made = await context.olivia.client.iModels.clone({
      ...as(),
      iModelId: of.id,
      iModelProperties: { iTwinId: await context.server.iTwin(), changesetIndex },
    });
    return { ...of, id: made.id, changesets: of.changesets.slice(0, changesetIndex), briefcaseId: 0 };
  };
  const remove = (made: MadeIModel): Promise<void> =>
    context.olivia.client.iModels.delete({ ...as(), iModelId: made.id });
  async function assertWhole(made: MadeIModel): Promise<void> {
    const work = workFolder();
    try {
      const downloaded = await context.olivia.client.changesets.downloadList({
        ...as(),
        iModelId: made.id,
        targetDirectoryPath: work.path,
      });
      assert.deepEqual(
        downloaded.map(({ filePath }) => readFileSync(filePath)),
        made.changesets.map(({ bytes }) => bytes),
      );
      const baseline = await context.olivia.client.baselineFiles.getSingle({ ...as(), iModelId: made.id });
      assert.equal(
        (await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer()).byteLength,
        baseline.fileSize,
      );
    } finally {
      work.remove();
    }
  }

  test('removes an unshared iModel to the last byte', async () => {
    await run();
    const before = await files();
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 4 });
    assert.equal(await files(), before + 4);
    await remove(made);
    const collected = await run();
    assert.deepEqual(
      [collected.iModels, collected.histories, collected.segments, collected.changesets, collected.blobs],
      [1, 1, 1, 4, 4],
    );
    assert.equal(await files(), before);
    const again = await run();
    assert.ok(Object.values(again).every((count) => count === 0));
  });

  test('keeps exactly what clones of a deleted source can see, and removes it with the last of them', async () => {
    await run();
    const before = await files();
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 6 });
    const short = await clone(source, 2);
    const long = await clone(source, 4);
    await pushMore(context.olivia, short, 3);
    await remove(source);
    await run();
    assert.equal(await files(), before + 4 + 3);
    await assertWhole(short);
    await assertWhole(long);
    await remove(long);
    await run();
    assert.equal(await files(), before + 2 + 3);
    await assertWhole(short);
    await remove(short);
    await run();
    assert.equal(await files(), before);
  });

  test('keeps an uploaded baseline while a clone refers to it', async () => {
    await run();
    const before = await files();
    const bytes = sampleBaseline();
    const created = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: 'with baseline',
      baselineFile: { size: bytes.length },
    });
    const { iModel } = created.body as {
      iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } };
    };
    await context.api.put(iModel._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
    await context.api.post(iModel._links.complete.href, {});
    const made: MadeIModel = {
      id: iModel.id,
      iTwinId: context.iTwinId,
      name: 'with baseline',
      changesets: [],
      briefcaseId: 0,
    };
    const copy = await clone(made, 0);
    await remove(made);
    await run();
    assert.equal(await files(), before + 1);
    await assertWhole(copy);
    await remove(copy);
    await run();
    assert.equal(await files(), before);
  });

  test('keeps bytes for their grace period, so that links issued before a deletion keep working', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const { _links } = await context.olivia.client.changesets.getSingle({
      ...as(),
      iModelId: made.id,
      changesetIndex: 1,
    });
    await remove(made);
    await run({ graceMs: 3_600_000 });
    assert.deepEqual(
      Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer()),
      made.changesets[0]?.bytes,
    );
    await run();
    assert.equal((await fetch(_links.download?.href ?? '')).status, 404);
  });

  test('abandons uploads whose link has expired: the next push can start, and a creation fails with the reason', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { briefcaseId } = await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id });
    await context.api.post(`/imodels/${made.id}/changesets`, {
      id: randomBytes(20).toString('hex'),
      briefcaseId,
      fileSize: 9,
    });
    const created = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: 'never uploaded',
      baselineFile: { size: 4096 },
    });
    const { id } = (created.body as { iModel: { id: string } }).iModel;
    const { db } = context.server.services.database;
    await db.updateTable('pending_changeset').set({ lease_until: 0 }).execute();
    await run({ uploadLifeMs: -1000, completionLifeMs: -1000 });
    assert.deepEqual(await db.selectFrom('pending_changeset').selectAll().execute(), []);
    const { createOperation } = (await context.api.get(`/imodels/${id}/operations/create`)).body as {
      createOperation: { state: string; failureReason: string };
    };
    assert.deepEqual(
      [createOperation.state, createOperation.failureReason],
      ['failed', 'The baseline file was not uploaded before its upload link expired.'],
    );
    await pushMore(context.olivia, made, 1);
    await assertWhole(made);
  });

  test('keeps the seed and everything that is in use', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const empty = await makeIModel(context.olivia, context.iTwinId);
    await run();
    await assertWhole(made);
    await assertWhole(empty);
    assert.ok(
      (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }))).length === 2,
    );
  });

  const count = async (table: keyof Schema): Promise<number> =>
    Number(
      (
        await context.server.services.database.db
          .selectFrom(table)
          .select((eb) => eb.fn.countAll().as('count'))
          .executeTakeFirstOrThrow()
      ).count,
    );

  test('has a rule for every table', async () => {
    const tables = (await context.server.services.database.db.introspection.getTables())
      .map(({ name }) => name)
      .filter((name) => name !== 'rate_limit');
    assert.deepEqual(Object.keys(orphanRules).toSorted(), tables.toSorted());
  });

  test('finds orphans that no deletion left behind, and verification reports them', async () => {
    await run();
    const { database, blobs } = context.server.services;
    const { db } = database;
    const store = blobs.stores.home;
    const before = await files();
    const tables = [
      'blob',
      'baseline',
      'checkpoint',
      'model_file',
      'model_file_block',
      'block',
      'history',
      'segment',
      'changeset',
      'job',
      'mark',
    ] as const;
    const counts = async (): Promise<Record<string, number>> =>
      Object.fromEntries(await Promise.all(tables.map(async (table) => [table, await count(table)] as const)));
    const rows = await counts();
    const id = randomUUID();
    const blob = async () => {
      const stored = {
        id: randomUUID(),
        key: randomUUID(),
        store: store.id,
        state: 'stored' as const,
        created_at: 1,
        released_at: null,
      };
      await db
        .insertInto('blob')
        .values({ ...stored, ...(await store.put(stored.key, Readable.from([Buffer.from(stored.id)]), 36)) })
        .execute();
      return stored.id;
    };
    // As left behind by a fork that was deleted while its baseline was made.
    const baselineBlob = await blob();
    await db
      .insertInto('baseline')
      .values({ id, blob_id: baselineBlob, state: 'initialized', created_at: 1 })
      .execute();
    await db.insertInto('block').values({ id, store: store.id, sha256: id, blob_id: baselineBlob, start: 0 }).execute();
    await db
      .insertInto('model_file')
      .values({ id, size: 36, imodel_id_offset: 0, itwin_id_offset: 16, created_at: 1 })
      .execute();
    await db.insertInto('model_file_block').values({ file_id: id, position: 0, block_id: id }).execute();
    const checkpoint = {
      id,
      segment_id: null,
      baseline_id: id,
      changeset_index: 0,
      state: 'successful' as const,
      file_id: id,
      applied: 0,
      to_apply: 0,
      failure_reason: null,
      created_at: 1,
      finished_at: 1,
    };
    await db.insertInto('checkpoint').values(checkpoint).execute();
    // Orphans: a blob, a history, a changeset without a segment, a job, a favorite of a deleted iModel.
    await blob();
    await db.insertInto('segment').values({ id, owner_imodel_id: null }).execute();
    await db.insertInto('history').values({ id, created_at: 1, segment_id: id, first_index: 1, depth: 0 }).execute();
    await db
      .insertInto('changeset')
      .values({
        segment_id: id,
        index: 1,
        id: 'a',
        parent_id: '',
        blob_id: await blob(),
        file_size: 36,
        description: null,
        containing_changes: 0,
        briefcase_id: 2,
        creator_id: id,
        pushed_at: 1,
        application_id: id,
        application_name: id,
        synchronization_info: null,
      })
      .execute();
    await db
      .transaction()
      .execute((tx) => enqueue(tx, { kind: 'derive', subjectId: id, userId: randomUUID(), tenant: id }));
    await db
      .insertInto('mark')
      .values({ user_id: id, kind: 'recent', subject: 'imodel', subject_id: id, marked_at: 1 })
      .execute();

    const { orphans } = await verify(db, blobs.stores, false);
    assert.deepEqual(orphans, { blob: 1, baseline: 1, history: 1, changeset: 1, job: 1, mark: 1 });
    await run({ thorough: false });
    assert.equal(await files(), before + 3);
    await run();
    await run();
    assert.deepEqual(await counts(), rows);
    assert.equal(await files(), before);
    assert.deepEqual((await verify(db, blobs.stores, false)).orphans, {});
  });

  test(
    'removes a blob whose last two references are deleted concurrently',
    { skip: context.engine === 'sqlite' ? 'one transaction at a time' : false },
    async () => {
      const { db } = context.server.services.database;
      const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
      const { history_id } = await db
        .selectFrom('imodel')
        .select('history_id')
        .where('id', '=', made.id)
        .executeTakeFirstOrThrow();
      const { segment_id } = await db
        .selectFrom('history')
        .select('segment_id')
        .where('id', '=', history_id)
        .executeTakeFirstOrThrow();
      const [first, second] = await db
        .selectFrom('changeset')
        .selectAll()
        .where('segment_id', '=', segment_id)
        .orderBy('index')
        .execute();
      const blobId = first?.blob_id ?? '';
      await db.updateTable('changeset').set({ blob_id: blobId }).where('segment_id', '=', segment_id).execute();
      await db
        .deleteFrom('blob')
        .where('id', '=', second?.blob_id ?? '')
        .execute();
      let bothDeleted!: () => void;
      const both = new Promise<void>((resolve) => (bothDeleted = resolve));
      let deleted = 0;
      const drop = (index: number) =>
        db.transaction().execute(async (tx) => {
          await tx.deleteFrom('changeset').where('segment_id', '=', segment_id).where('index', '=', index).execute();
          if (++deleted === 2) bothDeleted();
          await both;
          await releaseBlobs(tx, [blobId], 1);
        });
      await Promise.all([drop(1), drop(2)]);
      assert.equal(
        (await db.selectFrom('blob').select('released_at').where('id', '=', blobId).executeTakeFirstOrThrow())
          .released_at,
        1,
      );
      await remove(made);
      await run();
    },
  );

  test('removes an abandoned push, but not the push that replaced it', async () => {
    const { db } = context.server.services.database;
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { briefcaseId } = await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id });
    const begin = async () => {
      await context.api.post(`/imodels/${made.id}/changesets`, {
        id: randomBytes(20).toString('hex'),
        briefcaseId,
        fileSize: 9,
      });
      return db.selectFrom('pending_changeset').selectAll().where('imodel_id', '=', made.id).executeTakeFirstOrThrow();
    };
    const [older, newer] = [await begin(), await begin()];
    await db.transaction().execute((tx) => abandonPush(tx, older, Date.now()));
    const left = await db.selectFrom('pending_changeset').select('blob_id').where('imodel_id', '=', made.id).execute();
    assert.deepEqual(
      left.map(({ blob_id }) => blob_id),
      [newer.blob_id],
    );
    await remove(made);
  });

  test('keeps objects that have no row yet', async () => {
    const { stores } = context.server.services.blobs;
    const key = randomUUID();
    await stores.home.put(key, Readable.from([Buffer.from('young')]), 5);
    assert.equal((await run()).orphanObjects, 0);
    assert.equal((await stores.home.read(key)).destroy() !== undefined, true);
    await stores.home.delete(key);
  });

  test('stops between two steps at shutdown, and the next run completes the work', async () => {
    const abort = new AbortController();
    const made = await Promise.all(Array.from({ length: 3 }, () => makeIModel(context.olivia, context.iTwinId)));
    for (const each of made) await remove(each);
    abort.abort(new Error('the server shuts down'));
    await assert.rejects(run({ signal: abort.signal }), /the server shuts down/);
    assert.equal((await run()).iModels, 3);
  });

  test('removes every iModel of a deleted iTwin, all of them unreachable from the deletion on', async () => {
    const iTwinId = await context.server.iTwin();
    const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const { db } = context.server.services.database;
    // As left behind by a server that crashes right after it has marked the iTwin.
    await db.updateTable('itwin').set({ deleted_at: Date.now() }).where('id', '=', iTwinId).execute();
    assert.equal((await context.api.get(`/imodels/${made.id}`)).status, 404);
    assert.equal((await context.api.get(`/imodels?iTwinId=${iTwinId}`)).status, 404);
    assert.equal((await run()).iModels, 1);
    assert.equal((await run()).iTwins + 1, 1);
    assert.deepEqual(await db.selectFrom('itwin').select('id').where('id', '=', iTwinId).execute(), []);
  });
});

test('The reference time for ages moves ahead only after a delay, and back immediately', () => {
  let [wall, passed] = [1_000_000_000, 0];
  const now = steadyClock(
    60_000,
    () => wall,
    () => passed,
  );
  const pass = (ms: number, step = 0) => {
    passed += ms;
    wall += ms + step;
    return now();
  };
  assert.equal(pass(1000), 1_000_001_000);
  assert.equal(pass(1000, 3 * 3_600_000), 1_000_002_000);
  assert.equal(pass(59_000), 1_000_061_000);
  assert.equal(pass(1000), wall);
  assert.equal(pass(1000, -3_600_000), wall);
});
