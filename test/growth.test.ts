import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { makeIModel, official, pushMore } from './support/clients.ts';
import type { Api } from './support/api.ts';
import { fullScans, naming, Planner, statementsOf, type Statement } from './support/plans.ts';
import { bootServer, endServer, engines, people, type TestServer } from './support/server.ts';

interface Listed {
  _links: { next: { href: string } | null; prev: { href: string } | null };
  [list: string]: unknown;
}

/** Numbers from 1, as a table `n (i)`. */
const numbers = (count: number) =>
  sql`with recursive n (i) as (select 1 union all select i + 1 from n where i < ${sql.lit(count)})`;

/** Ids in the order of their numbers. */
const guid = (series: number) =>
  sql`'0000000${sql.raw(String(series))}-0000-4000-8000-' || substr(cast(1000000000000 + i as text), 2)`;

for (const engine of engines) {
  describe(`No cost rises faster than its work, on ${engine}`, () => {
    let server: TestServer;
    let planner: Planner;
    let olivia: Api;

    before(async () => {
      server = await bootServer(engine);
      planner = new Planner(server);
      olivia = await server.as('olivia');
      // Records the users, whose first request writes.
      for (const who of ['olivia', 'max', 'admin'] as const) await (await server.as(who)).get('/itwins');
    });
    after(() => endServer(server));

    const db = () => server.services.database.db;

    async function page(api: Api, path: string): Promise<Listed> {
      const { status, body } = await api.get(path);
      assert.equal(status, 200, JSON.stringify(body));
      return body as Listed;
    }

    /** Statements of a request, after another one like it has filled the caches. */
    async function statementsOfGet(api: Api, path: string): Promise<Statement[]> {
      await page(api, path);
      return statementsOf(() => page(api, path));
    }

    /** Adds iModels to an iTwin by copying one. */
    async function addIModels(
      iTwinId: string,
      count: number,
      series: number,
      securedBy: 'users' | null,
    ): Promise<void> {
      const created = await olivia.post('/imodels', { iTwinId, name: `original ${series}` });
      assert.equal(created.status, 201);
      const { iModel } = created.body as { iModel: { id: string } };
      await sql`insert into imodel (id, itwin_id, name, name_order, search_text, containers_enabled, state, baseline_id, head_index,
          head_changeset_id, creator_id, created_at, clock, next_briefcase_id, inherited_index, secured_by)
        ${numbers(count)}
        select ${guid(series)}, itwin_id, name || i, name || i, search_text, containers_enabled, state, baseline_id, head_index,
          head_changeset_id, creator_id, created_at + i, clock, next_briefcase_id, 0, cast(${securedBy} as text)
        from n, imodel where id = ${iModel.id}`.execute(db());
    }

    test('A member can list an iTwin with more hidden iModels than a statement may have values', async () => {
      const iTwinId = await server.iTwin();
      await server.grant(iTwinId, 'max', ['imodels_read']);
      const max = await server.as('max');
      const path = `/imodels?iTwinId=${iTwinId}`;
      await addIModels(iTwinId, 3, 1, null);
      await addIModels(iTwinId, 10, 2, 'users');
      const few = await statementsOfGet(max, path);
      await addIModels(iTwinId, 66_000, 3, 'users');
      const many = await statementsOfGet(max, path);
      assert.deepEqual(
        many.map((statement) => statement.sql),
        few.map((statement) => statement.sql),
      );
      const [look] = naming(many, '"secured_by" is not null');
      assert.ok(look);
      assert.match(await planner.plan(look), /imodel_secured|imodel_itwin \(itwin_id=\? AND secured_by/);
      // What is hidden is not looked at: one index holds the iModels that are open, another the permissions of the caller.
      for (const [order, index] of [
        ['createdDateTime desc', 'imodel_open_created_at'],
        ['name', 'imodel_open_name_order'],
      ] as const) {
        const [list] = naming(await statementsOfGet(max, `${path}&$orderBy=${order}&$search=o`), 'as source');
        assert.ok(list);
        const plan = await planner.plan(list);
        assert.deepEqual(
          fullScans(plan).filter((step) => !/^SCAN (source|granted)$/.test(step)),
          [],
        );
        assert.match(plan, new RegExp(index));
        assert.match(plan, /imodel_grant_holder/);
        assert.doesNotMatch(plan, /imodel_created|imodel_name_order|imodel_itwin|imodel_secured/);
      }

      // The iModels without permissions of their own, and the one that is shared with Max.
      await db()
        .insertInto('imodel_grant')
        .values({
          imodel_id: '00000003-0000-4000-8000-000000065000',
          holder_id: people.max.id,
          permissions: '["imodels_webview"]',
        })
        .execute();
      const { iModels } = await page(max, path);
      assert.equal((iModels as unknown[]).length, 3 + 3 + 1);
      for (const list of ['favorites', 'recents']) await page(max, `/imodels/${list}?iTwinId=${iTwinId}`);
    });

    test('A page of iModels begins with a seek at its first item, wherever it lies', async () => {
      const iTwinId = await server.iTwin();
      await addIModels(iTwinId, 2000, 4, null);
      for (const order of ['createdDateTime', 'createdDateTime desc', 'name']) {
        let next: string | undefined = `/imodels?iTwinId=${iTwinId}&$orderBy=${order}&$top=700`;
        const seen = new Set<string>();
        let statements: Statement[] = [];
        while (next !== undefined) {
          const path: string = next;
          statements = await statementsOf(async () => {
            const { iModels, _links } = await page(olivia, path);
            for (const { id } of iModels as { id: string }[]) seen.add(id);
            next = _links.next?.href;
          });
        }
        assert.equal(seen.size, 2001);
        const [list] = naming(statements, 'from "imodel"', 'order by');
        assert.ok(list);
        const plan = await planner.plan(list);
        assert.deepEqual(fullScans(plan), []);
        assert.match(
          plan,
          engine === 'sqlite'
            ? /SEARCH imodel USING INDEX \w+ \(itwin_id=\? AND \(\w+,id\)[<>]\(\?,\?\)\)/
            : /Index Cond: .*ROW\(\w+, id\) [<>] ROW\(/,
        );
        assert.doesNotMatch(plan, /TEMP B-TREE|\bSort\b/);
      }
    });

    test('A list with hidden iModels has the same pages in each order, direction and filter as a walk through all', async () => {
      const iTwinId = await server.iTwin();
      await server.grant(iTwinId, 'max', ['imodels_webview']);
      await addIModels(iTwinId, 7, 10, null);
      await addIModels(iTwinId, 9, 11, 'users');
      const max = await server.as('max');
      const ids = (await db().selectFrom('imodel').selectAll().where('itwin_id', '=', iTwinId).execute()).filter(
        ({ secured_by, id }) => secured_by === null || Number(id.at(-1)) % 2 === 0,
      );
      for (const { id, secured_by } of ids)
        if (secured_by !== null)
          await db()
            .insertInto('imodel_grant')
            .values({ imodel_id: id, holder_id: people.max.id, permissions: '["imodels_read"]' })
            .execute();
      assert.ok(ids.length > 10);
      for (const [order, column] of [
        ['name', 'name_order'],
        ['createdDateTime', 'created_at'],
      ] as const)
        for (const direction of ['asc', 'desc']) {
          const seen: string[] = [];
          const back: string[] = [];
          let last: Listed | undefined;
          for (
            let next: string | undefined = `/imodels?iTwinId=${iTwinId}&$orderBy=${order} ${direction}&$top=4`;
            next !== undefined;
            next = last._links.next?.href
          ) {
            last = await page(max, next);
            seen.push(...(last['iModels'] as { id: string }[]).map(({ id }) => id));
          }
          assert.deepEqual(seen.toSorted(), ids.map(({ id }) => id).toSorted());
          const values = seen.map((id) => ids.find((row) => row.id === id)?.[column] as string | number);
          const expected = values.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
          assert.deepEqual(values, direction === 'desc' ? expected.toReversed() : expected);
          for (; last !== undefined; last = last._links.prev ? await page(max, last._links.prev.href) : undefined)
            back.unshift(...(last['iModels'] as { id: string }[]).map(({ id }) => id));
          assert.deepEqual(back, seen);
          const { iModels } = await page(
            max,
            `/imodels?iTwinId=${iTwinId}&$orderBy=${order} ${direction}&$skip=3&$top=5`,
          );
          assert.deepEqual(
            (iModels as { id: string }[]).map(({ id }) => id),
            seen.slice(3, 8),
          );
        }
    });

    test('A page of users, of members and of owners reads its own rows only, in their order, after users are renamed too', async () => {
      const iTwinId = await server.iTwin();
      const roleId = await server.grant(iTwinId, 'max', ['imodels_read']);
      const created = await olivia.post('/imodels', { iTwinId, name: 'people' });
      const { iModel } = created.body as { iModel: { id: string } };
      const count = 1000;
      await sql`insert into user_account (id, email, given_name, surname, created_at) ${numbers(count)}
        select ${guid(12)}, 'p' || (i * 7 % 1000) || '@example.test', 'G' || (i % 10), 'S' || (i * 3 % 1000), 1 from n`.execute(
        db(),
      );
      await sql`insert into member (itwin_id, user_id, role_id) ${numbers(count)} select ${iTwinId}, ${guid(12)}, ${roleId} from n`.execute(
        db(),
      );
      await sql`insert into owner (itwin_id, user_id) ${numbers(count)} select ${iTwinId}, ${guid(12)} from n`.execute(
        db(),
      );
      await sql`insert into imodel_user (imodel_id, user_id, first_access_at, last_access_at) ${numbers(count)}
        select ${iModel.id}, ${guid(12)}, 1, 1 from n`.execute(db());
      // A second role must not make a second member.
      const second = await server.grant(iTwinId, 'max', ['imodels_write']);
      assert.notEqual(second, roleId);

      const lists = [
        {
          path: `/accesscontrol/itwins/${iTwinId}/members/users`,
          list: 'members',
          index: 'member_email',
          total: count + 1,
        },
        {
          path: `/accesscontrol/itwins/${iTwinId}/members/owners`,
          list: 'members',
          index: 'owner_email',
          total: count + 1,
        },
        // Olivia made the iModel and connected to it.
        { path: `/imodels/${iModel.id}/users`, list: 'users', index: 'imodel_user_given_name', total: count + 1 },
        {
          path: `/imodels/${iModel.id}/users?$orderBy=surname desc`,
          list: 'users',
          index: 'imodel_user_surname',
          total: count + 1,
        },
      ];
      const walk = async (path: string, list: string): Promise<{ ids: string[]; last: string }> => {
        const ids: string[] = [];
        let last = '';
        for (let skip = 0; ; skip += 300) {
          last = `${path}${path.includes('?') ? '&' : '?'}$top=300&$skip=${skip}`;
          const found = (await page(olivia, last))[list] as { id: string }[];
          ids.push(...found.map(({ id }) => id));
          if (found.length < 300) return { ids, last };
        }
      };
      const accounts = async () =>
        new Map((await db().selectFrom('user_account').selectAll().execute()).map((row) => [row.id, row]));
      for (const renamed of [false, true]) {
        if (renamed)
          await sql`update user_account set email = 'z' || email, given_name = given_name || substr(surname, 3), surname = 'R' || surname
            where id in (select user_id from owner where itwin_id = ${iTwinId}) and given_name in ('G3', 'G7')`.execute(
            db(),
          );
        const known = await accounts();
        for (const { path, list, index, total } of lists) {
          const { ids } = await walk(path, list);
          assert.equal(ids.length, total, path);
          assert.equal(new Set(ids).size, total);
          const compared = ids.map((id) => {
            const row = known.get(id);
            assert.ok(row);
            return list === 'members' ? row.email : path.includes('surname') ? row.surname : row.given_name;
          });
          const expected = compared.toSorted((a, b) => (a < b ? -1 : a > b ? 1 : 0));
          assert.deepEqual(compared, path.includes('desc') ? expected.toReversed() : expected, path);
          for (const statement of naming(await statementsOfGet(olivia, path), 'as source')) {
            const plan = await planner.plan(statement);
            assert.match(plan, new RegExp(index));
            assert.doesNotMatch(plan, /SCAN (?!source)|Seq Scan/);
          }
        }
      }
    });

    test('The list of iTwins starts from what the caller has, for members and for administrators', async () => {
      const iTwinId = await server.iTwin();
      await server.grant(iTwinId, 'max', ['imodels_read']);
      // Of Olivia's organization, which the administrator administers, and of which Max sees only his own.
      await sql`insert into itwin (id, organization_id, owner_id, class, sub_class, number, display_name, search_text, data_center, status, created_at)
        ${numbers(3000)}
        select ${guid(5)}, organization_id, owner_id, class, sub_class, 'number ' || i, 'copy ' || i, 'copy ' || i, data_center, status, created_at + i
        from n, itwin where id = ${iTwinId}`.execute(db());

      const listOf = async (who: 'max' | 'admin', path: string): Promise<Statement> => {
        const statements = await statementsOfGet(await server.as(who), path);
        const [list, ...others] = naming(statements, 'from "itwin"', 'order by');
        assert.ok(list);
        assert.deepEqual(others, []);
        return list;
      };
      const ofMax = await planner.plan(await listOf('max', '/itwins'));
      assert.doesNotMatch(ofMax, /SCAN itwin\b|Seq Scan on itwin\b/);
      assert.match(ofMax, /owner_user/);
      assert.match(ofMax, /member_user/);
      for (const [order, index] of [
        ['createdDateTime', 'itwin_created'],
        ['displayName desc', 'itwin_named'],
      ] as const) {
        const admin = await server.as('admin');
        let next: string | undefined = `/itwins?$orderBy=${order}&$top=1000`;
        const seen = new Set<string>();
        let last = next;
        while (next !== undefined) {
          last = next;
          const { iTwins, _links } = await page(admin, next);
          for (const { id } of iTwins as { id: string }[]) seen.add(id);
          next = _links.next?.href;
        }
        assert.ok(seen.size > 3000);
        const plan = await planner.plan(await listOf('admin', last));
        assert.doesNotMatch(plan, /SCAN itwin\b|Seq Scan on itwin\b/);
        assert.match(plan, new RegExp(index));
      }
    });

    test('$skip on changesets is computed, and answers what walking would', async () => {
      const made = await makeIModel(await official(server), await server.iTwin(), { changesets: 9 });
      const path = `/imodels/${made.id}/changesets`;
      for (const order of ['asc', 'desc'])
        for (const range of ['', '&afterIndex=2&lastIndex=8', '&lastIndex=100']) {
          const list = async (skip: string): Promise<number[]> => {
            const { changesets } = await page(olivia, `${path}?$orderBy=index ${order}${range}${skip}`);
            return (changesets as { index: number }[]).map(({ index }) => index);
          };
          const whole = await list('');
          for (const skip of [0, 1, 4, 7, 20, Number.MAX_SAFE_INTEGER])
            assert.deepEqual(await list(`&$skip=${skip}`), whole.slice(skip));
        }
      const statements = await statementsOfGet(olivia, `${path}?$skip=5`);
      assert.deepEqual(naming(statements, 'changeset', 'offset'), []);
    });

    test('Statistics of users are counted at each push and equal the full count, in clones and imports too', async () => {
      const client = await official(server);
      const made = await makeIModel(client, await server.iTwin(), { changesets: 3 });
      const { id: cloneId } = await client.client.iModels.clone({
        authorization: client.authorization,
        iModelId: made.id,
        iModelProperties: { iTwinId: await server.iTwin() },
      });
      await pushMore(client, made, 2);
      const counted = await db()
        .selectFrom('push_count')
        .select(['imodel_id', 'user_id', 'pushes', 'last_pushed_at'])
        .orderBy('imodel_id')
        .orderBy('user_id')
        .execute();
      const full = await db()
        .selectFrom('segment as s')
        .innerJoin('changeset as c', 'c.segment_id', 's.id')
        .select((eb) => [
          's.owner_imodel_id as imodel_id',
          'c.creator_id as user_id',
          eb.fn.countAll<number>().as('pushes'),
          eb.fn.max('c.pushed_at').as('last_pushed_at'),
        ])
        .where('s.owner_imodel_id', 'is not', null)
        .groupBy(['s.owner_imodel_id', 'c.creator_id'])
        .orderBy('s.owner_imodel_id')
        .orderBy('c.creator_id')
        .execute();
      assert.deepEqual(counted, full);
      assert.equal(counted.find(({ imodel_id }) => imodel_id === made.id)?.pushes, 5);
      assert.equal(
        counted.some(({ imodel_id }) => imodel_id === cloneId),
        false,
      );

      const statements = await statementsOfGet(olivia, `/imodels/${made.id}/users/${people.olivia.id}`);
      assert.deepEqual(naming(statements, 'changeset'), []);
      for (const statement of naming(statements, 'push_count'))
        assert.match(await planner.plan(statement), /PRIMARY KEY \(imodel_id=\? AND user_id=\?\)|push_count_pkey/);
    });

    test('Named versions of users are numbered as they are created, so that their statistics read the last one only', async () => {
      const client = await official(server);
      const made = await makeIModel(client, await server.iTwin(), { changesets: 2 });
      const versions = [
        ['first', made.changesets[0]?.id],
        ['second', made.changesets[1]?.id],
      ] as const;
      for (const [name, changesetId] of versions)
        assert.equal((await olivia.post(`/imodels/${made.id}/namedversions`, { name, changesetId })).status, 201);
      const path = `/imodels/${made.id}/users/${people.olivia.id}`;
      const counted = async (): Promise<number> =>
        ((await page(olivia, path)) as unknown as { user: { statistics: { createdVersionsCount: number } } }).user
          .statistics.createdVersionsCount;
      assert.equal(await counted(), 2);
      // Several rows in one statement, and those of somebody else.
      await sql`insert into named_version (id, imodel_id, name, search_text, changeset_index, changeset_id, state, creator_id, application_id, application_name, created_at)
        ${numbers(700)}
        select ${guid(9)}, ${made.id}, 'v' || i, '', 100 + i, '', 'visible',
          case when i <= 400 then ${people.olivia.id} else ${people.max.id} end, 'test', 'test', i from n`.execute(
        db(),
      );
      assert.equal(await counted(), 402);
      const [versionsOf, ...others] = naming(await statementsOfGet(olivia, path), 'named_version');
      assert.ok(versionsOf);
      assert.deepEqual(others, []);
      const plan = await planner.plan(versionsOf);
      assert.match(plan, /named_version_creator/);
      assert.doesNotMatch(plan, /TEMP B-TREE|\bSort\b|Aggregate/);
    });

    test('Users of an iModel are found without reading all accounts', async () => {
      const { id } = await makeIModel(await official(server), await server.iTwin());
      const [list] = naming(await statementsOfGet(olivia, `/imodels/${id}/users`), 'user_account', 'order by');
      assert.ok(list);
      assert.doesNotMatch(await planner.plan(list), /SCAN user_account|Seq Scan on user_account/);
    });

    test('A page of locks is read in the order of an index, and begins with a seek', async () => {
      const { id } = await makeIModel(await official(server), await server.iTwin());
      await sql`insert into object_lock (imodel_id, object_id, briefcase_id, level)
        ${numbers(3000)}
        select ${id}, '0x' || i, 2 + i % 2, case i % 3 when 0 then 'shared' else 'exclusive' end from n`.execute(db());
      let next: string | undefined = `/imodels/${id}/locks?$top=350`;
      const seen: string[] = [];
      let statements: Statement[] = [];
      while (next !== undefined) {
        const path: string = next;
        statements = await statementsOf(async () => {
          const { locks, _links } = await page(olivia, path);
          for (const { lockedObjects } of locks as { lockedObjects: { objectIds: string[] }[] }[])
            seen.push(...lockedObjects.flatMap(({ objectIds }) => objectIds));
          next = _links.next?.href;
        });
        // One for each change of direction in the order: briefcase, level descending, object.
        assert.ok(naming(statements, 'from "object_lock"', 'order by').length <= 3);
      }
      const expected = await db()
        .selectFrom('object_lock')
        .select('object_id')
        .where('imodel_id', '=', id)
        .orderBy('briefcase_id')
        .orderBy('level', 'desc')
        .orderBy('object_id')
        .execute();
      assert.deepEqual(
        seen,
        expected.map(({ object_id }) => object_id),
      );
      for (const statement of naming(statements, 'from "object_lock"', 'order by')) {
        const plan = await planner.plan(statement);
        assert.match(plan, /object_lock_briefcase/);
        assert.doesNotMatch(plan, /TEMP B-TREE|\bSort\b/);
      }
    });

    test('Groups and members are read with as many statements as there are questions, not rows', async () => {
      const iTwinId = await server.iTwin();
      const base = `/accesscontrol/itwins/${iTwinId}`;
      const created = await olivia.post(`${base}/groups`, { name: 'original', members: [people.max.email] });
      assert.equal(created.status, 201);
      const { group } = created.body as { group: { id: string } };
      const roleId = await server.grant(iTwinId, 'admin', ['imodels_read']);
      const added = await olivia.post(`${base}/members/groups`, {
        members: [{ groupId: group.id, roleIds: [roleId] }],
      });
      assert.equal(added.status, 201);
      const paths = [
        `${base}/groups`,
        `${base}/groups/${group.id}`,
        `${base}/members/groups`,
        `${base}/members/groups/${group.id}`,
        `${base}/members/users`,
        `${base}/members/users/${people.admin.id}`,
        `${base}/members/owners`,
        `${base}/roles`,
      ];
      const texts = async (): Promise<string[][]> => {
        const all: string[][] = [];
        for (const path of paths) all.push((await statementsOfGet(olivia, path)).map((statement) => statement.sql));
        return all;
      };
      const few = await texts();
      await sql`insert into user_group (id, itwin_id, name) ${numbers(500)} select ${guid(6)}, ${iTwinId}, 'group ' || i from n`.execute(
        db(),
      );
      await sql`insert into role (id, itwin_id, display_name, permissions) ${numbers(300)} select ${guid(7)}, ${iTwinId}, 'role ' || i, '[]' from n`.execute(
        db(),
      );
      await sql`insert into group_user (group_id, user_id) ${numbers(500)} select ${guid(6)}, ${people.max.id} from n`.execute(
        db(),
      );
      await sql`insert into group_member (itwin_id, group_id, role_id) ${numbers(300)} select ${iTwinId}, ${guid(6)}, ${guid(7)} from n`.execute(
        db(),
      );
      await sql`insert into user_account (id, email, given_name, surname, created_at) ${numbers(300)} select ${guid(8)}, 'u' || i || '@example.test', '', '', 1 from n`.execute(
        db(),
      );
      await sql`insert into member (itwin_id, user_id, role_id) ${numbers(300)} select ${iTwinId}, ${guid(8)}, ${guid(7)} from n`.execute(
        db(),
      );
      await sql`insert into owner (itwin_id, user_id) ${numbers(300)} select ${iTwinId}, ${guid(8)} from n`.execute(
        db(),
      );
      // The number of values of a statement may differ, but not the number of statements.
      const anyValues = (all: string[][]): string[][] =>
        all.map((list) => list.map((text) => text.replaceAll(/(?:\?|\$\d+)(?:, (?:\?|\$\d+))*/g, '?')));
      // Whether a caller may know the names of other users is one further statement for users of other organizations.
      const questions = (all: string[][]): string[][] =>
        anyValues(all).map((list) => list.filter((text) => !text.includes('"imodel_user"')));
      assert.deepEqual(questions(await texts()), questions(few));
      for (const path of [`${base}/members/users`, `${base}/members/owners`, `${base}/groups`])
        for (const statement of naming(await statementsOfGet(olivia, path), 'order by')) {
          const plan = await planner.plan(statement);
          assert.doesNotMatch(plan, /SCAN (?!source)|Seq Scan/, plan);
        }
      const { members } = await page(olivia, `${base}/members/groups`);
      assert.equal((members as unknown[]).length, 100);
      const known = naming(await statementsOfGet(olivia, `${base}/members/users`), '"imodel_user"');
      assert.equal(known.length, 1);
      for (const statement of known) {
        const plan = await planner.plan(statement);
        assert.match(plan, /imodel_user_user/);
        // One look for each user of the page, however many users the iModels of the iTwin have.
        if (engine === 'postgres') assert.match(plan, /SubPlan/);
      }
    });

    test('Entries of the audit log get ids in the order in which they are written', async () => {
      await server.iTwin();
      const entries = await db().selectFrom('audit').select(['id', 'at']).orderBy('at').execute();
      for (const { id, at } of entries) {
        assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
        assert.ok(Math.abs(parseInt(id.slice(0, 13).replace('-', ''), 16) - at) < 60_000);
      }
    });
  });
}
