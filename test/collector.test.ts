import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { collect } from '../apps/server/src/history/collect.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { all, makeIModel, pushMore, workFolder, type MadeIModel } from './support/clients.ts';
import { onEachDatabase } from './support/suite.ts';

onEachDatabase('The collector', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  async function run(options: { graceMs?: number; uploadLifeMs?: number } = {}) {
    const { database, blobs } = context.server.services;
    const seed = await database.db.selectFrom('baseline').select('id').where('id', 'like', 'seed-%').executeTakeFirstOrThrow();
    return collect(database, blobs.stores, { graceMs: 0, uploadLifeMs: 3_600_000, seeds: new Map([[blobs.stores.home.id, seed.id]]), groupLifeMs: 3_600_000, thorough: true, ...options });
  }
  const files = async (): Promise<number> => (await all(context.server.services.blobs.stores.home.list())).length;
  const clone = async (of: MadeIModel, changesetIndex: number): Promise<MadeIModel> => {
    const made = await context.olivia.client.iModels.clone({ ...as(), iModelId: of.id, iModelProperties: { iTwinId: await context.server.iTwin(), changesetIndex } });
    return { ...of, id: made.id, changesets: of.changesets.slice(0, changesetIndex), briefcaseId: 0 };
  };
  const remove = (made: MadeIModel): Promise<void> => context.olivia.client.iModels.delete({ ...as(), iModelId: made.id });
  async function assertWhole(made: MadeIModel): Promise<void> {
    const work = workFolder();
    try {
      const downloaded = await context.olivia.client.changesets.downloadList({ ...as(), iModelId: made.id, targetDirectoryPath: work.path });
      assert.deepEqual(downloaded.map(({ filePath }) => readFileSync(filePath)), made.changesets.map(({ bytes }) => bytes));
      const baseline = await context.olivia.client.baselineFiles.getSingle({ ...as(), iModelId: made.id });
      assert.equal((await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer()).byteLength, baseline.fileSize);
    } finally {
      work.remove();
    }
  }

  test('takes an iModel that nobody shares apart to the last byte', async () => {
    await run();
    const before = (await files());
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 4 });
    assert.equal((await files()), before + 4);
    await remove(made);
    const collected = await run();
    assert.deepEqual([collected.iModels, collected.histories, collected.segments, collected.changesets, collected.blobs], [1, 1, 1, 4, 4]);
    assert.equal((await files()), before);
    const again = await run();
    assert.ok(Object.values(again).every((count) => count === 0));
  });

  test('of a deleted source keeps exactly what clones see, and the rest goes when they go', async () => {
    await run();
    const before = (await files());
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 6 });
    const short = await clone(source, 2);
    const long = await clone(source, 4);
    await pushMore(context.olivia, short, 3);
    await remove(source);
    await run();
    assert.equal((await files()), before + 4 + 3);
    await assertWhole(short);
    await assertWhole(long);
    await remove(long);
    await run();
    assert.equal((await files()), before + 2 + 3);
    await assertWhole(short);
    await remove(short);
    await run();
    assert.equal((await files()), before);
  });

  test('keeps an uploaded baseline while one clone has it', async () => {
    await run();
    const before = (await files());
    const bytes = sampleBaseline();
    const created = await context.api.post('/imodels', { iTwinId: context.iTwinId, name: 'with baseline', baselineFile: { size: bytes.length } });
    const { iModel } = created.body as { iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } } };
    await context.api.put(iModel._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
    await context.api.post(iModel._links.complete.href, {});
    const made: MadeIModel = { id: iModel.id, iTwinId: context.iTwinId, name: 'with baseline', changesets: [], briefcaseId: 0 };
    const copy = await clone(made, 0);
    await remove(made);
    await run();
    assert.equal((await files()), before + 1);
    await assertWhole(copy);
    await remove(copy);
    await run();
    assert.equal((await files()), before);
  });

  test('lets bytes live through their grace, so that links given out before a deletion work on', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const { _links } = await context.olivia.client.changesets.getSingle({ ...as(), iModelId: made.id, changesetIndex: 1 });
    await remove(made);
    await run({ graceMs: 3_600_000 });
    assert.deepEqual(Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer()), made.changesets[0]?.bytes);
    await run();
    assert.equal((await fetch(_links.download?.href ?? '')).status, 404);
  });

  test('ends uploads whose link has run out: the turn to push is free, a creation fails with the reason', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { briefcaseId } = await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id });
    await context.api.post(`/imodels/${made.id}/changesets`, { id: randomBytes(20).toString('hex'), briefcaseId, fileSize: 9 });
    const created = await context.api.post('/imodels', { iTwinId: context.iTwinId, name: 'never uploaded', baselineFile: { size: 4096 } });
    const { id } = (created.body as { iModel: { id: string } }).iModel;
    const { db } = context.server.services.database;
    await db.updateTable('pending_changeset').set({ lease_until: 0 }).execute();
    await run({ uploadLifeMs: -1000 });
    assert.deepEqual(await db.selectFrom('pending_changeset').selectAll().execute(), []);
    const { createOperation } = (await context.api.get(`/imodels/${id}/operations/create`)).body as { createOperation: { state: string; failureReason: string } };
    assert.deepEqual([createOperation.state, createOperation.failureReason], ['failed', 'The baseline file was not uploaded while its link was good.']);
    await pushMore(context.olivia, made, 1);
    await assertWhole(made);
  });

  test('leaves the seed alone, and everything that is in use', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const empty = await makeIModel(context.olivia, context.iTwinId);
    await run();
    await assertWhole(made);
    await assertWhole(empty);
    assert.ok((await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }))).length === 2);
  });
});
