import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { sql, type Kysely } from 'kysely';
import { openDatabase, type Database } from '../apps/server/src/db/database.ts';
import { jumpOf } from '../apps/server/src/db/jumps.ts';
import { findChangeset } from '../apps/server/src/db/statements/findChangeset.ts';
import { rangesOf } from '../apps/server/src/db/statements/historyRanges.ts';
import { listChangesets } from '../apps/server/src/db/statements/listChangesets.ts';
import { prepareSource } from '../apps/server/src/bench/clone.ts';
import type { Caller } from '../apps/server/src/domain.ts';
import type { Services } from '../apps/server/src/services.ts';
import { tablesInOrder } from '../apps/server/src/maintenance/migrateDatabase.ts';
import { makeIModel, pushMore, type MadeIModel } from './support/clients.ts';
import { openEarlier } from './support/earlierDatabase.ts';
import { fullScans, naming, Planner, statementsOf } from './support/plans.ts';
import { Installation, people } from './support/server.ts';
import { onEachDatabase, type Context } from './support/suite.ts';

/** Numbers from 0 to below 1, the same in each run. */
function* numbers(seed: number): Generator<number, never> {
  for (let state = seed; ;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    yield state / 2 ** 32;
  }
}

async function cloneUpTo({ olivia, server }: Context, of: MadeIModel, index: number): Promise<MadeIModel> {
  const made = await olivia.client.iModels.clone({
    authorization: olivia.authorization,
    iModelId: of.id,
    iModelProperties: { iTwinId: await server.iTwin(), changesetIndex: index },
  });
  return { ...of, id: made.id, changesets: of.changesets.slice(0, index), briefcaseId: 0 };
}

/** Olivia, as the services know her. */
function ownerOf(services: Services): Caller {
  const { id, email, organizationId } = people.olivia;
  return {
    user: { id, email, givenName: '', surname: '', organizationId } as Caller['user'],
    application: { id: 'test', name: 'Test', tier: services.config.defaultTier },
    administeredOrganizationIds: [],
  };
}

/** iModels that were cloned from each other at any changeset, each of which has pushed on. */
async function makeTree(context: Context, count: number): Promise<MadeIModel[]> {
  const random = numbers(7);
  const next = (below: number): number => Math.floor(random.next().value * below);
  const made = [await makeIModel(context.olivia, context.iTwinId, { changesets: 3 })];
  while (made.length < count) {
    // Mostly the newest, so that the tree becomes deep.
    const source = made[next(4) === 0 ? next(made.length) : made.length - 1] as MadeIModel;
    // Often at the head, so that it becomes deep; elsewhere, so that branches leave everywhere.
    const { length } = source.changesets;
    const clone = await cloneUpTo(context, source, next(3) === 0 ? 1 + next(length) : length);
    // Some clones never push, and have the history of their source.
    if (next(5) > 0) await pushMore(context.olivia, clone, 1 + next(3));
    made.push(clone);
  }
  return made;
}

/** Ids of the changesets of an iModel, as a client reads them: in pages, in both orders, one by one. */
async function assertChangesets({ api }: Context, made: MadeIModel): Promise<void> {
  const ids = made.changesets.map(({ id }) => id);
  const list = async (query: string): Promise<string[]> => {
    const found: string[] = [];
    let url: string | undefined = `/imodels/${made.id}/changesets?${query}`;
    while (url !== undefined) {
      const { status, body } = await api.get(url);
      assert.equal(status, 200);
      const page = body as { changesets: { id: string }[]; _links: { next: { href: string } | null } };
      found.push(...page.changesets.map(({ id }) => id));
      url = page._links.next?.href;
    }
    return found;
  };
  assert.deepEqual(await list('$top=4'), ids);
  assert.deepEqual(await list('$top=3&$orderBy=index%20desc'), [...ids].reverse());
  assert.deepEqual(await list('$skip=2'), ids.slice(2));
  for (const n of new Set([0, ids.length >> 1, ids.length - 1])) {
    const id = ids[n] as string;
    for (const reference of [id, String(n + 1)]) {
      const { body } = await api.get(`/imodels/${made.id}/changesets/${reference}`);
      assert.deepEqual(
        [
          (body as { changeset: { id: string } }).changeset.id,
          (body as { changeset: { index: number } }).changeset.index,
        ],
        [id, n + 1],
      );
    }
  }
}

/** The source's changesets above the point where the clone left are not the clone's. */
async function assertNotSeen({ api }: Context, made: MadeIModel, others: readonly MadeIModel[]): Promise<void> {
  const seen = new Set(made.changesets.map(({ id }) => id));
  for (const id of new Set(others.flatMap((other) => other.changesets.slice(-1).map((changeset) => changeset.id))))
    if (!seen.has(id)) assert.equal((await api.get(`/imodels/${made.id}/changesets/${id}`)).status, 404);
}

onEachDatabase('The history of a derived iModel', {}, (context) => {
  const db = () => context.server.services.database.db;
  const remove = (made: MadeIModel): Promise<void> =>
    context.olivia.client.iModels.delete({ authorization: context.olivia.authorization, iModelId: made.id });
  const counts = () =>
    Promise.all(
      (['history', 'segment', 'changeset', 'orphan_check'] as const).map(async (table) => {
        const { n } = await db()
          .selectFrom(table)
          .select((eb) => eb.fn.countAll<number>().as('n'))
          .executeTakeFirstOrThrow();
        return Number(n);
      }),
    );

  test('is the same whatever iModels were derived where, and whichever of them are deleted', async () => {
    await context.server.services.collector.runOnce();
    const before = await counts();
    const made = await makeTree(context, 24);
    for (const each of made) {
      await assertChangesets(context, each);
      await assertNotSeen(context, each, made);
    }
    const deepest = await db()
      .selectFrom('history')
      .select((eb) => eb.fn.max('depth').as('depth'))
      .executeTakeFirstOrThrow();
    assert.ok(Number(deepest.depth) >= 6, `a depth of ${deepest.depth} is too small for this test`);

    const random = numbers(11);
    const [kept, gone] = [[] as MadeIModel[], [] as MadeIModel[]];
    for (const each of made) (random.next().value < 0.6 ? gone : kept).push(each);
    for (const each of gone) await remove(each);
    await context.server.services.collector.runOnce();
    for (const each of kept) await assertChangesets(context, each);
    // No more is kept than the remaining iModels see.
    const seen = new Set(kept.flatMap((each) => each.changesets.map(({ id }) => id)));
    const [, , changesets] = await counts();
    assert.equal((changesets as number) - (before[2] as number), seen.size);

    for (const each of kept) await pushMore(context.olivia, each, 1);
    for (const each of kept) await assertChangesets(context, each);
    for (const each of kept) await remove(each);
    await context.server.services.collector.runOnce();
    assert.deepEqual(await counts(), before);
  });

  test('gets two rows at its first push, at any depth', async () => {
    const { services } = context.server;
    const { iTwinId } = context;
    const caller = ownerOf(services);
    const added: { history: number; segment: number; statements: number }[] = [];
    for (const depth of [1, 300]) {
      const sourceId = await prepareSource(services, caller, iTwinId, { changesets: 300, depth });
      const clone = await context.olivia.client.iModels.clone({
        authorization: context.olivia.authorization,
        iModelId: sourceId,
        iModelProperties: { iTwinId: context.iTwinId, name: `clone at depth ${depth}` },
      });
      const { body } = await context.api.get(`/imodels/${clone.id}/changesets/300`);
      const head = (body as { changeset: { id: string; parentId: string } }).changeset;
      const made: MadeIModel = {
        id: clone.id,
        iTwinId: context.iTwinId,
        name: '',
        briefcaseId: 0,
        changesets: [{ ...head, index: 300, bytes: Buffer.alloc(0) }],
      };
      const [histories, segments] = await counts();
      const statements = await statementsOf(() => pushMore(context.olivia, made, 1));
      const [historiesAfter, segmentsAfter] = await counts();
      added.push({
        history: (historiesAfter as number) - (histories as number),
        segment: (segmentsAfter as number) - (segments as number),
        statements: naming(statements, 'insert into', 'history').length,
      });
    }
    assert.deepEqual(added, [
      { history: 1, segment: 1, statements: 1 },
      { history: 1, segment: 1, statements: 1 },
    ]);
  });

  test('is collected by seeks, and in proportion to what was deleted', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    // Orphaned segments whose changesets others see.
    const run = async (inUse: number): Promise<number> => {
      for (let n = 0; n < inUse; n++) {
        const between = await cloneUpTo(context, source, 2);
        await pushMore(context.olivia, between, 1);
        await cloneUpTo(context, between, 3);
        await remove(between);
      }
      await context.server.services.collector.runOnce();
      const alone = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
      await remove(alone);
      const statements = await statementsOf(() => context.server.services.collector.runOnce());
      const planner = new Planner(context.server);
      const ofHistories = statements.filter(({ sql: text }) => /"(history|segment|changeset|orphan_check)"/.test(text));
      for (const plan of await planner.plans(ofHistories)) assert.deepEqual(fullScans(plan), [], plan);
      return statements.length;
    };
    assert.equal(await run(1), await run(8));
  });
});

/** Copies rows to a database of that version: the history of each iModel as the list of its ranges over segments. */
async function copyToEarlier(from: Database, to: Kysely<unknown>): Promise<void> {
  const tables = tablesInOrder.filter((table) => !['orphan_check', 'history', 'deleted_imodel'].includes(table));
  const insert = async (table: string, rows: readonly object[]): Promise<void> => {
    for (const row of rows) {
      const columns = sql.join(Object.keys(row).map((column) => sql.ref(column)));
      await sql`insert into ${sql.table(table)} (${columns}) values (${sql.join(Object.values(row))})`.execute(to);
    }
  };
  const known = new Map(
    (await to.introspection.getTables()).map(({ name, columns }) => [name, new Set(columns.map((each) => each.name))]),
  );
  const openEnd = Number.MAX_SAFE_INTEGER;
  for (const table of tables) {
    if (table === 'imodel') {
      // Only the histories in use: the collector deleted the others.
      const used = await from.db
        .selectFrom('imodel')
        .select('history_id')
        .distinct()
        .where('history_id', 'is not', null)
        .execute();
      for (const { history_id } of used) {
        if (history_id === null) continue;
        const ranges = await from.db
          .selectFrom(rangesOf(history_id, 1, openEnd).as('h'))
          .selectAll()
          .execute();
        await insert('history', [{ id: history_id, created_at: 1 }]);
        await insert(
          'history_segment',
          ranges.map((range) => ({ history_id, ...range })),
        );
      }
    }
    // The triggers of that version count pushes.
    if (table === 'push_count') continue;
    const rows: object[] = await from.db.selectFrom(table).selectAll().execute();
    const columns = known.get(table);
    // Later versions added columns.
    await insert(
      table,
      rows.map((row) => Object.fromEntries(Object.entries(row).filter(([column]) => columns?.has(column) === true))),
    );
  }
}

onEachDatabase('The histories of an earlier version', {}, (context) => {
  test('become parents and segments, and every iModel keeps its changesets', async () => {
    const made = await makeTree(context, 18);
    const random = numbers(3);
    const gone = made.filter(() => random.next().value < 0.4);
    for (const each of gone)
      await context.olivia.client.iModels.delete({ authorization: context.olivia.authorization, iModelId: each.id });
    await context.server.services.collector.runOnce();

    const installation = await Installation.create(context.engine);
    try {
      const earlier = await openEarlier(installation, '0031');
      await copyToEarlier(context.server.services.database, earlier.db);
      await earlier.db.destroy();
      const database = await openDatabase(installation.config());
      try {
        for (const each of made.filter((one) => !gone.includes(one))) {
          const imodel = await database.db
            .selectFrom('imodel')
            .selectAll()
            .where('id', '=', each.id)
            .executeTakeFirstOrThrow();
          const listed = await listChangesets(database, imodel, {
            first: 1,
            last: 1000,
            limit: 1000,
            descending: false,
          });
          assert.deepEqual(
            listed.map(({ id }) => id),
            each.changesets.map(({ id }) => id),
          );
          for (const { id, index } of each.changesets)
            assert.equal((await findChangeset(database.db, imodel, { id }))?.index, index);
          const { source_id, source_kind, source_index } = await context.server.services.iModels.get(each.id);
          assert.deepEqual(
            [imodel.source_id, imodel.source_kind, imodel.source_index],
            [source_id, source_kind, source_index],
          );
        }
        const columns = [
          'id',
          'segment_id',
          'first_index',
          'parent_id',
          'depth',
          'jump_id',
          'jump_first_index',
        ] as const;
        const shape = async ({ db }: Database) =>
          (await db.selectFrom('history').select(columns).execute())
            .map(({ id: _, parent_id, jump_id, ...rest }) => ({
              ...rest,
              child: parent_id !== null,
              jumps: jump_id !== null,
            }))
            .sort((a, b) => (a.segment_id < b.segment_id ? -1 : 1));
        assert.deepEqual(await shape(database), await shape(context.server.services.database));
      } finally {
        await database.close();
      }
    } finally {
      installation.remove();
    }
  });
});

describe('The jumps of histories', () => {
  test('lead to every ancestor in few steps', () => {
    interface Node {
      depth: number;
      jump: Node | undefined;
      parent: Node | undefined;
    }
    const path: Node[] = [{ depth: 0, jump: undefined, parent: undefined }];
    for (let depth = 1; depth < 5000; depth++) {
      const parent = path.at(-1) as Node;
      path.push({ depth, jump: jumpOf(parent), parent });
    }
    const last = path.at(-1) as Node;
    let most = 0;
    for (const wanted of path) {
      let steps = 0;
      for (let at: Node | undefined = last; at !== wanted; steps++)
        at = at?.jump !== undefined && at.jump.depth >= wanted.depth ? at.jump : at?.parent;
      most = Math.max(most, steps);
    }
    assert.ok(most <= 2.5 * Math.log2(5000), `${most} steps`);
  });
});
