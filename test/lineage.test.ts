import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { sql, type Kysely } from 'kysely';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { collect } from '../apps/server/src/collector/collect.ts';
import { openDatabase } from '../apps/server/src/db/database.ts';
import type { IModelTable } from '../apps/server/src/db/schema.ts';
import { pushSample } from '../scripts/sample.ts';
import type { Api } from './support/api.ts';
import { makeIModel, pushMore, type MadeIModel } from './support/clients.ts';
import { openEarlier } from './support/earlierDatabase.ts';
import { fullScans, naming, Planner, statementsOf } from './support/plans.ts';
import { Installation } from './support/server.ts';
import { onEachDatabase, onEachStore, type Context } from './support/suite.ts';
import { until } from './support/until.ts';

interface Node {
  id: string;
  displayName: string | null;
  iTwinId: string | null;
  parentId: string | null;
  relation: string | null;
  changesetIndex: number | null;
  changesetId: string | null;
  createdDateTime: string | null;
  headIndex: number | null;
  deleted: boolean;
  visible: boolean;
}

interface Tree {
  root: string;
  iModels: Node[];
  truncated: boolean;
}

interface Bytes {
  ownBytes: number;
  sharedBytes: number;
  cloneOnlyBytes: number;
}

interface Use extends Bytes {
  baseline: Bytes;
  changesets: Bytes;
  checkpoints: Bytes;
  graphics: Bytes;
  thumbnail: Bytes;
  sharedUpToIndex: number;
  complete: boolean;
}

async function treeOf(api: Api, iModelId: string): Promise<Tree> {
  const { status, body } = await api.get(`/imodels/${iModelId}/lineage`);
  assert.equal(status, 200, JSON.stringify(body));
  return (body as { lineage: Tree }).lineage;
}

async function useOf(api: Api, iModelId: string): Promise<Use> {
  const { status, body } = await api.get(`/imodels/${iModelId}/storage`);
  assert.equal(status, 200, JSON.stringify(body));
  return (body as { storage: Use }).storage;
}

/** Derives an iModel, in an iTwin of its own unless one is given. @returns its id */
async function derive(
  { api, server }: Context,
  how: 'clone' | 'fork',
  sourceId: string,
  body: Record<string, unknown> = {},
): Promise<string> {
  const answer = await api.post(`/imodels/${sourceId}/${how}`, {
    iTwinId: await server.iTwin(),
    name: `${how} ${randomUUID()}`,
    ...(how === 'fork' && { preserveHistory: true }),
    ...body,
  });
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return (answer.headers.get('location') ?? '').slice(-36);
}

async function remove({ api, server }: Context, ...ids: string[]): Promise<void> {
  for (const id of ids) assert.equal((await api.delete(`/imodels/${id}`)).status, 204);
  await server.services.collector.runOnce();
}

/** Scans of tables, without those of what a part of the statement has found. */
function ofTables(scans: readonly string[]): string[] {
  const tables =
    /\b(imodel|deleted_imodel|history|segment|changeset|checkpoint|model_file|model_file_block|block|blob|transfer)\b/;
  return scans.filter((scan) => tables.test(scan));
}

const sizeOf = (changesets: MadeIModel['changesets']): number =>
  changesets.reduce((sum, { bytes }) => sum + bytes.length, 0);

onEachDatabase('The family tree of an iModel', {}, (context) => {
  test('has its ancestors and everything derived from them, each at the changeset where it left', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 4 });
    const clone = await derive(context, 'clone', source.id, { changesetIndex: 2 });
    await pushMore(
      context.olivia,
      { ...source, id: clone, briefcaseId: 0, changesets: source.changesets.slice(0, 2) },
      1,
    );
    const cloneOfClone = await derive(context, 'clone', clone);
    const fork = await derive(context, 'fork', source.id);
    const templated = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: `templated ${randomUUID()}`,
      template: { iModelId: source.id },
    });
    assert.equal(templated.status, 201, JSON.stringify(templated.body));
    const { id: template } = (templated.body as { iModel: { id: string } }).iModel;

    for (const id of [source.id, clone, cloneOfClone, fork, template]) {
      const tree = await treeOf(context.api, id);
      assert.equal(tree.root, source.id);
      assert.equal(tree.truncated, false);
      assert.deepEqual(
        tree.iModels.map((node) => [node.id, node.parentId, node.relation, node.changesetIndex, node.headIndex]),
        [
          [source.id, null, 'source', null, 4],
          [clone, source.id, 'clone', 2, 3],
          [cloneOfClone, clone, 'clone', 3, 3],
          [fork, source.id, 'fork', 4, 4],
          [template, source.id, 'template', 0, 0],
        ],
      );
    }
    const [root, first] = (await treeOf(context.api, clone)).iModels as [Node, Node];
    assert.deepEqual([root.displayName, root.iTwinId, root.deleted], [source.name, context.iTwinId, false]);
    assert.equal(first.changesetId, source.changesets[1]?.id);
    assert.ok(Date.parse(first.createdDateTime ?? '') >= Date.parse(root.createdDateTime ?? ''));
  });

  test('of an iModel that was not derived is the iModel alone', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { iModels } = await treeOf(context.api, made.id);
    assert.deepEqual(
      iModels.map(({ id, relation }) => [id, relation]),
      [[made.id, 'source']],
    );
  });

  test('shows what the caller may see, and says nothing of an iModel between two of those', async () => {
    const root = await makeIModel(context.olivia, await context.server.iTwin(), { changesets: 2 });
    const seen = await context.server.iTwin();
    await context.server.grant(seen, 'max', ['imodels_webview']);
    const hidden = await derive(context, 'clone', root.id);
    const one = await derive(context, 'clone', hidden, { iTwinId: seen, changesetIndex: 1 });
    const other = await derive(context, 'clone', hidden, { iTwinId: seen });
    await derive(context, 'clone', hidden);
    const secured = await derive(context, 'clone', one, { iTwinId: seen });
    const { db } = context.server.services.database;
    await db.updateTable('imodel').set({ secured_by: 'users' }).where('id', '=', secured).execute();

    const tree = await treeOf(await context.server.as('max'), one);
    assert.deepEqual(
      tree.iModels.map(({ id, visible, parentId }) => [visible ? id : 'hidden', parentId]),
      [
        ['hidden', null],
        [one, tree.root],
        [other, tree.root],
      ],
    );
    const [placeholder, visible] = tree.iModels as [Node, Node];
    assert.notEqual(placeholder.id, hidden);
    const told = Object.entries(placeholder).filter(([, value]) => value !== null);
    assert.deepEqual(Object.fromEntries(told), { id: tree.root, deleted: false, visible: false });
    assert.deepEqual([visible.relation, visible.changesetIndex], ['clone', 1]);
    assert.equal(JSON.stringify(tree).includes(hidden), false);
    assert.equal(JSON.stringify(tree).includes(secured), false);
    assert.equal((await treeOf(context.api, one)).iModels.length, 6);
    assert.equal((await (await context.server.as('max')).get(`/imodels/${hidden}/lineage`)).status, 404);
  });

  test('keeps deleted ancestors for administrators only, until the last iModel derived from them is gone', async () => {
    const iTwinId = await context.server.iTwin();
    await context.server.grant(iTwinId, 'max', ['imodels_webview']);
    const root = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const middle = await derive(context, 'clone', root.id, { iTwinId });
    const leaf = await derive(context, 'clone', middle, { iTwinId, changesetIndex: 0 });
    const second = await derive(context, 'clone', middle, { iTwinId });
    const max = await context.server.as('max');
    const shape = async (api: Api) =>
      (await treeOf(api, leaf)).iModels.map(({ id, visible, deleted }) => [visible ? id : 'hidden', deleted]);
    const kept = async () => {
      const { db } = context.server.services.database;
      const ids = [root.id, middle, leaf, second];
      const rows = await db.selectFrom('deleted_imodel').select('id').where('id', 'in', ids).execute();
      return rows.map(({ id }) => id).sort();
    };

    for (const id of [middle, root.id]) assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
    const forOlivia = [
      [root.id, true],
      [middle, true],
      [leaf, false],
      [second, false],
    ];
    const forMax = [
      ['hidden', false],
      [leaf, false],
      [second, false],
    ];
    // Before and after the collector has removed their rows.
    for (let run = 0; run < 2; run++) {
      assert.deepEqual(await shape(context.api), forOlivia);
      assert.deepEqual(await shape(max), forMax);
      await context.server.services.collector.runOnce();
    }
    assert.deepEqual(await kept(), [root.id, middle].sort());
    const [first] = (await treeOf(context.api, leaf)).iModels as [Node];
    assert.deepEqual([first.displayName, first.headIndex, first.iTwinId], [null, null, iTwinId]);

    await remove(context, second);
    assert.deepEqual(await shape(max), [[leaf, false]]);
    assert.deepEqual(await kept(), [root.id, middle].sort());
    await remove(context, leaf);
    assert.deepEqual(await kept(), []);
  });

  test('is only the one iModel for the holder of a share', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId);
    const clone = await derive(context, 'clone', source.id, { iTwinId: context.iTwinId });
    const answer = await context.api.post(`/imodels/${clone}/shares`, {
      name: 'look',
      permission: 'imodels_webview',
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
    });
    assert.equal(answer.status, 201, JSON.stringify(answer.body));
    const { shareKey } = (answer.body as { share: { shareKey: string } }).share;
    const holder = await fetch(`${context.server.origin}/imodels/${clone}/lineage`, {
      headers: { Authorization: `Basic ${shareKey}` },
    });
    assert.equal(holder.status, 200);
    const { lineage } = (await holder.json()) as { lineage: Tree };
    assert.deepEqual(
      lineage.iModels.map(({ id, parentId }) => [id, parentId]),
      [[clone, null]],
    );
  });

  test('of a large family has the nearest thousand, connected, by the same statements as a small one', async () => {
    const iTwinId = await context.server.iTwin();
    const source = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
    const middle = await derive(context, 'clone', source.id, { iTwinId });
    const { db } = context.server.services.database;
    const copies = async (of: string, from: number, to: number): Promise<void> => {
      await sql`insert into imodel (id, itwin_id, name, name_order, search_text, containers_enabled, state, baseline_id, head_index,
          head_changeset_id, creator_id, created_at, clock, next_briefcase_id, inherited_index, lineage_id, source_id, source_kind,
          source_index, source_changeset_id)
        with recursive n (i) as (select cast(${sql.lit(from)} as integer) union all select i + 1 from n where i < ${sql.lit(to)})
        select substr(id, 1, 23) || '-' || substr(cast(1000000000000 + i as text), 2), itwin_id, name || i, name || i, search_text,
          containers_enabled, state, baseline_id, 0, '', creator_id, created_at + i, clock, next_briefcase_id, 0,
          ${source.id}, ${of}, 'clone', 0, ''
        from n, imodel where id = ${middle}`.execute(db);
    };
    const read = async () => {
      let tree: Tree | undefined;
      const statements = await statementsOf(async () => {
        tree = await treeOf(context.api, middle);
      });
      return { tree: tree as Tree, statements: naming(statements, 'imodel').concat(naming(statements, 'from "role"')) };
    };
    await copies(source.id, 1, 5);
    await read();
    const small = await read();
    assert.equal(small.tree.iModels.length, 7);
    await copies(source.id, 6, 900);
    const large = await read();
    assert.deepEqual([large.tree.iModels.length, large.tree.truncated], [902, false]);
    assert.ok(large.statements.length <= small.statements.length + 2, `${large.statements.length} statements`);
    const planner = new Planner(context.server);
    for (const plan of await planner.plans(naming(large.statements, 'deleted_imodel')))
      assert.deepEqual(ofTables(fullScans(plan)), [], plan);

    await copies(middle, 901, 1300);
    const huge = await read();
    assert.equal(huge.tree.truncated, true);
    assert.equal(huge.tree.iModels.length, 1000);
    assert.ok(huge.statements.length <= small.statements.length + 20, `${huge.statements.length} statements`);
    const ids = new Set(huge.tree.iModels.map(({ id }) => id));
    assert.ok(huge.tree.iModels.every(({ parentId }) => parentId === null || ids.has(parentId)));
    assert.equal(huge.tree.iModels.filter(({ parentId }) => parentId === middle).length, 400);
  });

  test('of an earlier version is what its operations and its audit log tell', async () => {
    const installation = await Installation.create(context.engine);
    try {
      const [source, clone, fork, squashed, template, orphan, sibling] = Array.from({ length: 7 }, () =>
        randomUUID(),
      ) as [string, string, string, string, string, string, string];
      const gone = randomUUID();
      const earlier = await openEarlier(installation, '0043');
      await addEarlier(earlier.db, [
        { id: source, kind: 'create' },
        { id: clone, kind: 'clone', from: source, changesetId: 'c2', changesets: 2 },
        { id: fork, kind: 'fork', from: clone, changesetId: 'c2', changesets: 2 },
        { id: squashed, kind: 'fork', from: source, changesetId: 'c1', changesets: 0 },
        { id: template, kind: 'template', from: source, changesets: 0, upToIndex: 1 },
        { id: orphan, kind: 'clone', from: gone, changesetId: '', changesets: 0 },
        { id: sibling, kind: 'clone', from: gone, changesetId: '', changesets: 0 },
      ]);
      await earlier.db.destroy();
      const database = await openDatabase(installation.config());
      try {
        const { db } = database;
        const rows = await db
          .selectFrom('imodel')
          .select(['id', 'lineage_id', 'source_id', 'source_kind', 'source_index', 'source_changeset_id'])
          .execute();
        const found = new Map(
          rows.map(({ id, ...row }) => [
            id,
            { ...row, source_index: row.source_index === null ? null : Number(row.source_index) },
          ]),
        );
        const expect = (
          id: string,
          ...[lineage_id, source_id, source_kind, source_index, source_changeset_id]: unknown[]
        ) =>
          assert.deepEqual(
            { ...found.get(id) },
            { lineage_id, source_id, source_kind, source_index, source_changeset_id },
          );
        expect(source, null, null, null, null, null);
        expect(clone, source, source, 'clone', 2, 'c2');
        expect(fork, source, clone, 'fork', 2, 'c2');
        expect(squashed, source, source, 'fork', 1, 'c1');
        expect(template, source, source, 'template', 1, null);
        expect(orphan, gone, gone, 'clone', 0, '');
        expect(sibling, gone, gone, 'clone', 0, '');
        const deleted = await db.selectFrom('deleted_imodel').select(['id', 'itwin_id']).execute();
        assert.deepEqual(
          deleted.map((row) => ({ ...row })),
          [{ id: gone, itwin_id: null }],
        );
      } finally {
        await database.close();
      }
    } finally {
      installation.remove();
    }
  });
});

/** Inserts iModels and what an earlier version recorded of how each was created. */
async function addEarlier(
  db: Kysely<unknown>,
  imodels: readonly {
    id: string;
    kind: 'create' | 'clone' | 'fork' | 'template';
    from?: string;
    changesetId?: string;
    changesets?: number;
    upToIndex?: number;
  }[],
): Promise<void> {
  const insert = async (table: string, row: Record<string, unknown>): Promise<void> => {
    const columns = sql.join(Object.keys(row).map((column) => sql.ref(column)));
    await sql`insert into ${sql.table(table)} (${columns}) values (${sql.join(Object.values(row))})`.execute(db);
  };
  const user = randomUUID();
  await insert('user_account', {
    id: user,
    email: 'u@example.test',
    given_name: 'u',
    surname: 'u',
    organization_id: user,
    created_at: 1,
  });
  await insert('itwin', {
    id: 'itwin',
    organization_id: null,
    owner_id: user,
    class: 'Endeavor',
    sub_class: 'Project',
    number: 'i',
    display_name: 'i',
    search_text: 'i',
    data_center: 'East US',
    status: 'Active',
    created_at: 1,
  });
  await insert('blob', {
    id: 'blob',
    store: 'files',
    key: 'key',
    size: 1,
    sha256: '0',
    state: 'stored',
    created_at: 1,
  });
  await insert('baseline', { id: 'baseline', blob_id: 'blob', state: 'initialized', created_at: 1 });
  await insert('segment', { id: 'segment', owner_imodel_id: null });
  for (const index of [1, 2])
    await insert('changeset', {
      segment_id: 'segment',
      index,
      id: `c${index}`,
      parent_id: '',
      blob_id: 'blob',
      file_size: 1,
      containing_changes: 0,
      briefcase_id: 2,
      creator_id: user,
      pushed_at: index,
      application_id: 'a',
      application_name: 'a',
    });
  for (const { id, kind, from, changesetId, changesets = 0, upToIndex } of imodels) {
    const row: Partial<IModelTable> = {
      id,
      itwin_id: 'itwin',
      name: id,
      name_order: id,
      search_text: id,
      containers_enabled: 0,
      state: 'initialized',
      baseline_id: 'baseline',
      head_index: 0,
      head_changeset_id: '',
      creator_id: user,
      created_at: 1,
      clock: 1,
      next_briefcase_id: 2,
    };
    await insert('imodel', row);
    await insert('operation', {
      id: randomUUID(),
      imodel_id: id,
      kind,
      state: 'successful',
      changesets,
      created_at: 1,
      ...(kind === 'clone' && { cloned_from_imodel_id: from, cloned_from_changeset_id: changesetId }),
      ...(kind === 'fork' && { forked_from_imodel_id: from, forked_from_changeset_id: changesetId }),
    });
    await insert('audit', {
      id: randomUUID(),
      at: 1,
      actor_id: user,
      application_id: 'a',
      action: `iModel.${kind}`,
      itwin_id: 'itwin',
      imodel_id: id,
      detail: JSON.stringify(from === undefined ? {} : { from, upToIndex: upToIndex ?? changesets }),
    });
  }
}

onEachStore('The storage use of an iModel', {}, (context) => {
  test('is its own, except what clones can see', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 5 });
    const all = sizeOf(source.changesets);
    const alone = await useOf(context.api, source.id);
    assert.deepEqual(alone.changesets, { ownBytes: all, sharedBytes: 0, cloneOnlyBytes: 0 });
    // The baseline of empty iModels belongs to the server.
    assert.equal(alone.baseline.ownBytes, 0);
    assert.ok(alone.baseline.sharedBytes > 0);
    assert.deepEqual([alone.sharedUpToIndex, alone.complete], [0, true]);
    assert.equal(alone.ownBytes, all + alone.checkpoints.ownBytes + alone.graphics.ownBytes);

    const clone = await derive(context, 'clone', source.id, { changesetIndex: 3 });
    const shared = sizeOf(source.changesets.slice(0, 3));
    const ofSource = await useOf(context.api, source.id);
    assert.deepEqual(ofSource.changesets, { ownBytes: all - shared, sharedBytes: shared, cloneOnlyBytes: 0 });
    assert.equal(ofSource.sharedUpToIndex, 3);
    assert.deepEqual((await useOf(context.api, clone)).changesets, {
      ownBytes: 0,
      sharedBytes: shared,
      cloneOnlyBytes: 0,
    });

    const continued: MadeIModel = { ...source, id: clone, briefcaseId: 0, changesets: source.changesets.slice(0, 3) };
    await pushMore(context.olivia, continued, 2);
    const pushed = sizeOf(continued.changesets.slice(3));
    assert.deepEqual((await useOf(context.api, clone)).changesets, {
      ownBytes: pushed,
      sharedBytes: shared,
      cloneOnlyBytes: 0,
    });

    await remove(context, source.id);
    assert.deepEqual((await useOf(context.api, clone)).changesets, {
      ownBytes: pushed + shared,
      sharedBytes: 0,
      cloneOnlyBytes: shared,
    });
  });

  test('says what a deletion frees', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 4 });
    const middle = await derive(context, 'clone', source.id, { changesetIndex: 3 });
    await pushMore(
      context.olivia,
      { ...source, id: middle, briefcaseId: 0, changesets: source.changesets.slice(0, 3) },
      2,
    );
    const leaf = await derive(context, 'clone', middle, { changesetIndex: 4 });
    await derive(context, 'clone', source.id, { changesetIndex: 1 });
    const { db } = context.server.services.database;
    const released = async (): Promise<number> =>
      Number(
        (
          await db
            .selectFrom('blob')
            .select((eb) => eb.fn.sum('size').as('n'))
            .where('released_at', 'is not', null)
            .executeTakeFirstOrThrow()
        ).n,
      );
    for (const id of [source.id, middle, leaf]) {
      const { ownBytes } = await useOf(context.api, id);
      const before = await released();
      await remove(context, id);
      assert.equal((await released()) - before, ownBytes, id);
    }
  });

  test('takes the same statements at any number of changesets and clones, and no scan', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const statements = async (id: string) =>
      (await statementsOf(() => useOf(context.api, id))).filter(({ sql: text }) =>
        /file_size|of_imodels|model_file/.test(text),
      );
    const few = await statements(source.id);
    await pushMore(context.olivia, source, 6);
    for (let count = 0; count < 3; count++) await derive(context, 'clone', source.id);
    const many = await statements(source.id);
    assert.equal(many.length, few.length);
    const planner = new Planner(context.server);
    for (const plan of await planner.plans(many)) assert.deepEqual(ofTables(fullScans(plan)), [], plan);
  });

  test('is shown to those who may clone the iModel', async () => {
    const iTwinId = await context.server.iTwin();
    const made = await makeIModel(context.olivia, iTwinId);
    await context.server.grant(iTwinId, 'max', ['imodels_write']);
    const answer = await (await context.server.as('max')).get(`/imodels/${made.id}/storage`);
    assert.equal(answer.status, 403);
  });
});

onEachDatabase(
  'The storage use of an iModel that is drawn',
  {
    checkpoints: { generate: 'auto' as const, delaySeconds: 0, firstRetrySeconds: 0 },
    graphics: { enabled: true },
  },
  (context) => {
    const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
    test('counts the blocks of checkpoints and the graphics, and is what a deletion frees', { skip }, async () => {
      const { api, olivia, iTwinId, server } = context;
      const source = await pushSample(olivia, iTwinId, 'sample');
      for (const index of [1, 3]) {
        const address = `/imodels/${source}/changesets/${index}/graphics`;
        assert.equal((await api.put(address, {})).status, 202);
        await until(
          'the graphics',
          async () => {
            const { state } = ((await api.get(address)).body as { graphics: { state: string } }).graphics;
            assert.notEqual(state, 'failed');
            return state === 'successful' ? true : undefined;
          },
          60_000,
        );
      }
      const clone = await derive(context, 'clone', source, { changesetIndex: 2 });
      const ofSource = await useOf(api, source);
      for (const part of ['checkpoints', 'graphics'] as const) {
        assert.ok(ofSource[part].ownBytes > 0, `${part} after the clone`);
        assert.ok(ofSource[part].sharedBytes > 0, `${part} of the clone too`);
      }
      const { database, blobs } = server.services;
      const seed = await database.db
        .selectFrom('baseline')
        .select('id')
        .where('id', 'like', 'seed-%')
        .executeTakeFirstOrThrow();
      const seeds = new Map([[blobs.stores.home.id, seed.id]]);
      const released = async (): Promise<number> => {
        const sum = await database.db
          .selectFrom('blob')
          .select((eb) => eb.fn.sum('size').as('bytes'))
          .where('released_at', 'is not', null)
          .executeTakeFirstOrThrow();
        return Number(sum.bytes);
      };
      // Blocks that were just stored may still get a reference, so the collector is told that they are old.
      const options = { graceMs: 3_600_000, uploadLifeMs: -60_000, seeds, groupLifeMs: 3_600_000, thorough: true };
      const free = async (id: string): Promise<number> => {
        const before = await released();
        assert.equal((await api.delete(`/imodels/${id}`)).status, 204);
        for (let run = 0; run < 2; run++) await collect(database, blobs.stores, options);
        return (await released()) - before;
      };
      assert.equal(await free(source), ofSource.ownBytes);
      const ofClone = await useOf(api, clone);
      assert.ok(ofClone.checkpoints.cloneOnlyBytes > 0);
      assert.equal(ofClone.sharedBytes, 0);
      assert.equal(await free(clone), ofClone.ownBytes);
    });
  },
);
