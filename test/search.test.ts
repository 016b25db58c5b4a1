import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { collect } from '../apps/server/src/collector/collect.ts';
import { searchKeys } from '../apps/server/src/imodels/searchKeys.ts';
import type { Api } from './support/api.ts';
import { makeIModel, official } from './support/clients.ts';
import { fullScans, naming, Planner, statementsOf, type Statement } from './support/plans.ts';
import { bootServer, endServer, engines, people, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

/** More iModels than a search looks at without the index. */
const many = 1100;

interface Named {
  name: string;
  description?: string;
}

/** iModels that texts are looked for in, beside the many others. */
const special: readonly Named[] = [
  { name: 'Überführung Süd' },
  { name: 'ÜBERFÜHRUNG NORD', description: 'Straße 17' },
  { name: 'İstanbul' },
  { name: '100% done', description: 'a_b' },
  { name: 'aXb' },
  { name: '橋梁モデル' },
  { name: 'Tower 🏗️ east' },
  { name: 'ab' },
  { name: 'it\'s "quoted" \\ [x]', description: 'Nowhere Else' },
];

/** With no hit, one and many; shorter than a key; with characters that patterns give a meaning; in another case. */
const needles = [
  'nowhere else',
  'NOWHERE ELSE',
  'nowhere at all',
  'überführung',
  'ÜBERFÜHRUNG S',
  'führung n',
  'straße',
  'STRASSE',
  'i̇stanbul',
  'istanbul',
  '%',
  '0% d',
  '_',
  'a_b',
  'a%b',
  'a',
  'ab',
  'axb',
  '橋',
  '橋梁',
  '梁モデ',
  '🏗️',
  'r 🏗️ e',
  '"quoted" \\',
  '[x]',
  "it's",
  'copy 1',
  'copy 1099',
  'copy',
  'opy 77',
  'sud',
];

for (const engine of engines) {
  describe(`Search of iModels, on ${engine}`, () => {
    let server: TestServer;
    let planner: Planner;
    let olivia: Api;
    let iTwinId: string;
    const made: (Named & { id: string })[] = [];

    before(async () => {
      server = await bootServer(engine);
      planner = new Planner(server);
      olivia = await server.as('olivia');
      iTwinId = await server.iTwin();
      for (const each of special) made.push(await create(each));
    });
    after(() => endServer(server));

    const db = () => server.services.database.db;

    async function create({ name, description }: Named): Promise<Named & { id: string }> {
      const { status, body } = await olivia.post('/imodels', { iTwinId, name, ...(description && { description }) });
      assert.equal(status, 201, JSON.stringify(body));
      const { iModel } = body as { iModel: { id: string } };
      return { name, ...(description !== undefined && { description }), id: iModel.id };
    }

    /** Adds the many other iModels by copying one. */
    async function addMany(): Promise<void> {
      const [source] = made;
      await sql`with recursive n (i) as (select 1 union all select i + 1 from n where i < ${sql.lit(many)})
        insert into imodel (id, itwin_id, name, name_order, search_text, containers_enabled, state, baseline_id, head_index,
          head_changeset_id, creator_id, created_at, clock, next_briefcase_id, inherited_index)
        select '00000001-0000-4000-8000-' || substr(cast(1000000000000 + i as text), 2), itwin_id, 'Copy ' || i, 'copy ' || i,
          'copy ' || i || ${'\n'}, containers_enabled, state, baseline_id, head_index, head_changeset_id, creator_id, created_at + i,
          clock, next_briefcase_id, 0
        from n, imodel where id = ${source?.id}`.execute(db());
      for (const row of await db()
        .selectFrom('imodel')
        .select(['id', 'name'])
        .where('name', 'like', 'Copy %')
        .execute())
        made.push(row);
    }

    const pathOf = (needle: string, more = '') =>
      `/imodels?iTwinId=${iTwinId}&$search=${encodeURIComponent(needle)}${more}`;

    /** Ids of all pages, in their order. */
    async function search(api: Api, needle: string, more = ''): Promise<string[]> {
      const ids: string[] = [];
      for (let next: string | undefined = pathOf(needle, more); next !== undefined;) {
        const { status, body } = await api.get(next);
        assert.equal(status, 200, JSON.stringify(body));
        const { iModels, _links } = body as { iModels: { id: string }[]; _links: { next: { href: string } | null } };
        ids.push(...iModels.map(({ id }) => id));
        next = _links.next?.href;
      }
      return ids;
    }

    /** What a search has to find, computed from the names and descriptions. */
    const matching = (needle: string): string[] =>
      made
        .filter(({ name, description }) =>
          [name, description].some((text) => text?.toLowerCase().includes(needle.toLowerCase())),
        )
        .map(({ id }) => id)
        .sort();

    async function assertFindsAll(): Promise<void> {
      for (const needle of needles) {
        const found = await search(olivia, needle, '&$top=400');
        assert.equal(new Set(found).size, found.length, needle);
        assert.deepEqual(found.sort(), matching(needle), needle);
      }
    }

    const unindexed = async (): Promise<number> => {
      const { count } = await db()
        .selectFrom('imodel')
        .select((eb) => eb.fn.countAll<number>().as('count'))
        .where('itwin_id', '=', iTwinId)
        .where('deleted_at', 'is', null)
        .where('search_doc', 'is', null)
        .executeTakeFirstOrThrow();
      return Number(count);
    };
    const keys = async (): Promise<number> => {
      const { count } = await db()
        .selectFrom('search_key')
        .select((eb) => eb.fn.countAll<number>().as('count'))
        .executeTakeFirstOrThrow();
      return Number(count);
    };
    const keysOf = async (id: string): Promise<number[]> => {
      const rows = await db()
        .selectFrom('search_key')
        .innerJoin('imodel', 'imodel.search_doc', 'search_key.doc')
        .select('search_key.key')
        .where('imodel.id', '=', id)
        .execute();
      return rows.map(({ key }) => key);
    };

    test('An iTwin with few iModels is searched without the index', async () => {
      await assertFindsAll();
      assert.equal(await keys(), 0);
      assert.equal(await unindexed(), special.length);
    });

    test('The first search of an iTwin with many iModels finds all, and has the index filled', async () => {
      await addMany();
      assert.deepEqual(await search(olivia, 'führung s'), matching('führung s'));
      await until('the index is filled', async () => ((await unindexed()) === 0 ? true : undefined), 60_000);
      assert.ok((await keys()) > many);
    });

    test('With the index, a search finds exactly the texts that contain the needle, in any case', assertFindsAll);

    test('Order, pages and links do not depend on the index', async () => {
      for (const order of ['name', 'name desc', 'createdDateTime', 'createdDateTime desc'])
        for (const needle of ['copy 10', 'copy 1099', 'überf', 'nowhere at all']) {
          const indexed = await search(olivia, needle, `&$orderBy=${order}&$top=7`);
          // Each of them is found by one letter too, for which the list is walked.
          const walked = await search(olivia, needle.slice(0, 1), `&$orderBy=${order}&$top=1000`);
          const expected = new Set(matching(needle));
          assert.deepEqual(
            indexed,
            walked.filter((id) => expected.has(id)),
            `${needle} by ${order}`,
          );
          assert.deepEqual(indexed.toSorted(), matching(needle));
        }
      const skipped = (await olivia.get(pathOf('copy 10', '&$orderBy=name&$skip=3&$top=4'))).body as {
        iModels: { id: string }[];
        _links: { prev: { href: string } };
      };
      assert.deepEqual(
        skipped.iModels.map(({ id }) => id),
        (await search(olivia, 'copy 10', '&$orderBy=name')).slice(3, 7),
      );
      assert.match(skipped._links.prev.href, /skip=0/);
    });

    test('A search without a hit reads a range of an index for each step, and no list of iModels', async () => {
      // Without statistics, PostgreSQL takes the table for smaller than ten seeks are worth.
      if (engine === 'postgres') await sql`analyze imodel`.execute(db());
      const statements = await statementsOf(() => search(olivia, 'nowhere at all'));
      const ofSearch: Statement[] = [
        ...naming(statements, 'search_key'),
        ...naming(statements, 'search_doc is null'),
        ...naming(statements, 'from "imodel"', 'order by'),
      ];
      assert.equal(new Set(ofSearch.map(({ sql }) => sql)).size, 4);
      for (const statement of ofSearch) {
        // `counted` has a limit.
        const scans = fullScans(await planner.plan(statement)).filter((step) => step !== 'SCAN counted');
        assert.deepEqual(scans, [], statement.sql);
      }
      const [listed] = naming(statements, 'from "imodel"', 'order by');
      assert.ok(listed);
      assert.match(
        await planner.plan(listed),
        engine === 'sqlite' ? /imodel USING INDEX \w+ \(id=\?\)/ : /imodel_pkey/,
      );
      const [candidates] = naming(statements, 'union all', 'search_key');
      assert.ok(candidates);
      const plan = await planner.plan(candidates);
      if (engine === 'sqlite') {
        assert.match(plan, /USING INDEX imodel_search \(search_doc=\? AND itwin_id=\?\)/);
        assert.match(plan, /search_key USING PRIMARY KEY \(key=\?\)/);
      } else {
        assert.match(plan, /imodel_search .*\n.*Index Cond: \(\(search_doc = ANY/);
        assert.match(plan, /search_key_pkey .*\n.*Index Cond: \(key = /);
      }
    });

    test('Renamed, new, cloned and deleted iModels are found by what they are called now', async () => {
      const renamed = made.find(({ name }) => name === 'Copy 77') as Named & { id: string };
      const before = await keys();
      const own = await keysOf(renamed.id);
      assert.ok(own.length > 0);
      const { status } = await olivia.patch(`/imodels/${renamed.id}`, { name: 'Viaduct' });
      assert.equal(status, 200);
      renamed.name = 'Viaduct';
      assert.equal(await keys(), before - own.length);
      assert.deepEqual(await search(olivia, 'viaduct'), [renamed.id]);
      assert.deepEqual(await search(olivia, 'copy 77'), matching('copy 77'));
      const { body } = await olivia.patch(`/imodels/${renamed.id}`, { description: 'Across the valley' });
      assert.equal((body as { iModel: { name: string } }).iModel.name, 'Viaduct');
      assert.deepEqual(await search(olivia, 'THE VALLEY'), [renamed.id]);
      renamed.description = 'Across the valley';

      const created = await create({ name: 'Aqueduct' });
      made.push(created);
      assert.deepEqual(await search(olivia, 'aqued'), [created.id]);

      const total = await keys();
      const client = await official(server);
      const source = await makeIModel(client, await server.iTwin());
      const cloned = await client.client.iModels.clone({
        authorization: client.authorization,
        iModelId: source.id,
        iModelProperties: { iTwinId, name: 'Culvert' },
      });
      made.push({ id: cloned.id, name: 'Culvert' });
      assert.deepEqual(await search(olivia, 'culver'), [cloned.id]);
      assert.equal(await keys(), total);

      const gone = made.find(({ name }) => name === 'Copy 78') as Named & { id: string };
      assert.equal((await olivia.delete(`/imodels/${gone.id}`)).status, 204);
      made.splice(made.indexOf(gone), 1);
      assert.deepEqual(await search(olivia, 'copy 78'), matching('copy 78'));
      await assertFindsAll();
    });

    test('A writer that does not know of the index takes an iModel out of it by changing its text', async () => {
      const changed = made.find(({ name }) => name === 'Copy 79') as Named & { id: string };
      await db()
        .updateTable('imodel')
        .set({ name: 'Drawbridge', name_order: 'drawbridge', search_text: 'drawbridge\n' })
        .where('id', '=', changed.id)
        .execute();
      changed.name = 'Drawbridge';
      assert.deepEqual(await search(olivia, 'wbridg'), [changed.id]);
      assert.deepEqual(await search(olivia, 'copy 79'), matching('copy 79'));
    });

    test('The keys of iModels that were renamed or deleted are deleted, the others are kept', async () => {
      const { database, blobs } = server.services;
      const orphansAfter = async (thorough: boolean): Promise<number> => {
        await collect(database, blobs.stores, {
          graceMs: 0,
          uploadLifeMs: 3_600_000,
          seeds: new Map(),
          groupLifeMs: 3_600_000,
          thorough,
        });
        const { rows } = await sql<{
          orphans: number;
        }>`select count(*) as orphans from search_key where not exists (select 1 from imodel where search_doc = doc)`.execute(
          db(),
        );
        return Number(rows[0]?.orphans);
      };
      // Only the writer that did not know of the index left keys.
      const left = searchKeys(iTwinId, 'copy 79\n').length;
      assert.equal(await orphansAfter(false), left);
      assert.equal(await orphansAfter(true), 0);
      assert.ok((await keys()) > many);
      await assertFindsAll();
    });

    test('A search with the index shows a member no hidden iModel', async () => {
      const roleId = await server.grant(iTwinId, 'max', ['imodels_webview']);
      const max = await server.as('max');
      const idOf = (name: string): string => made.find((each) => each.name === name)?.id ?? '';
      const permit = async (kind: 'user' | 'role', name: string, permissions: object[]): Promise<void> => {
        const { status, body } = await olivia.put(`/imodels/${idOf(name)}/${kind}permissions`, {
          [`${kind}Permissions`]: permissions,
        });
        assert.equal(status, 200, JSON.stringify(body));
      };
      assert.deepEqual((await search(max, 'copy 1099')).length, 1);
      await permit('user', 'Copy 1099', [{ userId: people.olivia.id, permissions: ['imodels_read'] }]);
      await permit('user', 'Copy 1098', [{ userId: people.max.id, permissions: ['imodels_read'] }]);
      await permit('role', 'Copy 1097', [{ roleId, permissions: ['imodels_read'] }]);
      assert.deepEqual(
        (await search(max, 'copy 109')).toSorted(),
        ['Copy 109', 'Copy 1098', 'Copy 1097', ...[0, 1, 2, 3, 4, 5, 6].map((n) => `Copy 109${n}`)]
          .map(idOf)
          .toSorted(),
      );
      assert.equal((await search(olivia, 'copy 1099')).length, 1);
    });
  });
}
