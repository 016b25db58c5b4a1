import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { collect } from '../apps/server/src/collector/collect.ts';
import { sql } from 'kysely';
import { lockIModel } from '../apps/server/src/db/statements/lockIModel.ts';
import { Users } from '../apps/server/src/users/users.ts';
import { times } from './support/effort.ts';
import type { Answer, WireError } from './support/api.ts';
import { changesetIdOf, makeIModel, pushMore } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase, onEachStore } from './support/suite.ts';

/** Maximum number of clones; the load stops then. */
const mostClones = times(150, 400);

onEachStore('Concurrent clones, pushes, deletions and collector runs', {}, (context) => {
  test('leave no partial clone and lose nothing that was acknowledged', async () => {
    const { database, blobs } = context.server.services;
    const seed = await database.db
      .selectFrom('baseline')
      .select('id')
      .where('id', 'like', 'seed-%')
      .executeTakeFirstOrThrow();
    const target = await context.server.iTwin();
    /** The chain of changeset ids that each living iModel must have. */
    const living = new Map<string, string[]>();
    const first = await makeIModel(context.olivia, context.iTwinId, { changesets: 5 });
    living.set(
      first.id,
      first.changesets.map(({ id }) => id),
    );
    const busy = new Set<string>();
    let clones = 0;
    let running = true;

    const pick = (): string | undefined => {
      const ids = [...living.keys()];
      return ids[Math.floor(Math.random() * ids.length)];
    };
    async function cloner(): Promise<void> {
      while (clones < mostClones) {
        clones++;
        const source = pick();
        if (source === undefined) return;
        const before = living.get(source)?.length ?? 0;
        const changesetIndex = Math.random() < 0.5 ? undefined : Math.floor(Math.random() * (before + 1));
        const answer = await context.api.post(`/imodels/${source}/clone`, {
          iTwinId: target,
          name: randomUUID(),
          ...(changesetIndex !== undefined && { changesetIndex }),
        });
        if (answer.status === 404) {
          assert.equal((answer.body as WireError).error.code, 'iModelNotFound');
          continue;
        }
        assert.equal(answer.status, 202, JSON.stringify(answer.body));
        const id = (answer.headers.get('location') ?? '').split('/').at(-1) as string;
        const chain = (await chainOf(id)).map((changeset) => changeset.id);
        if (changesetIndex !== undefined) assert.equal(chain.length, changesetIndex);
        else assert.ok(chain.length >= before);
        living.set(id, chain);
      }
    }
    async function pusher(): Promise<void> {
      while (running) {
        const id = pick();
        if (id === undefined || busy.has(id)) {
          await new Promise(setImmediate);
          continue;
        }
        busy.add(id);
        const chain = living.get(id) ?? [];
        const acquired = await context.api.post(`/imodels/${id}/briefcases`, {});
        if (acquired.status === 201) {
          const { briefcaseId } = (acquired.body as { briefcase: { briefcaseId: number } }).briefcase;
          const parentId = chain.at(-1) ?? '';
          const bytes = randomBytes(16);
          const changesetId = changesetIdOf(parentId, bytes);
          const begun = await context.api.post(`/imodels/${id}/changesets`, {
            id: changesetId,
            parentId,
            briefcaseId,
            fileSize: 16,
          });
          if (begun.status === 201) {
            const { _links } = (
              begun.body as { changeset: { _links: { upload: { href: string }; complete: { href: string } } } }
            ).changeset;
            const uploaded = await context.api.put(_links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
            const completed =
              uploaded.status === 201
                ? await context.api.patch(_links.complete.href, { state: 'fileUploaded', briefcaseId })
                : uploaded;
            assert.ok(completed.status < 500, JSON.stringify(completed.body));
            if (completed.status === 200) living.get(id)?.push(changesetId);
          } else assert.equal(begun.status, 404, JSON.stringify(begun.body));
        }
        busy.delete(id);
      }
    }
    async function deleter(): Promise<void> {
      while (running) {
        const id = living.size > 12 ? pick() : undefined;
        if (id === undefined || busy.has(id)) {
          await new Promise(setImmediate);
          continue;
        }
        living.delete(id);
        assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
      }
    }
    async function collector(): Promise<void> {
      while (running)
        await collect(database, blobs.stores, {
          graceMs: 0,
          uploadLifeMs: 3_600_000,
          seeds: new Map([[blobs.stores.home.id, seed.id]]),
          groupLifeMs: 3_600_000,
          thorough: true,
        });
    }
    async function chainOf(
      id: string,
    ): Promise<{ id: string; parentId: string; index: number; _links: { download: { href: string } } }[]> {
      const answer = await context.api.get(`/imodels/${id}/changesets?$top=1000`, { prefer: 'return=representation' });
      if (answer.status === 404) return [];
      return (answer.body as { changesets: [] }).changesets;
    }

    const background = [pusher(), pusher(), deleter(), collector()];
    try {
      await Promise.all([cloner(), cloner(), cloner(), cloner()]);
    } finally {
      running = false;
      await Promise.all(background);
    }

    assert.ok(living.size > 0);
    for (const [id, expected] of living) {
      const chain = await chainOf(id);
      assert.deepEqual(chain.map((changeset) => changeset.id).slice(0, expected.length), expected, id);
      for (const [n, { index, parentId }] of chain.entries())
        assert.deepEqual([index, parentId], [n + 1, n === 0 ? '' : chain[n - 1]?.id]);
      const last = chain.at(-1);
      if (last !== undefined) assert.equal((await fetch(last._links.download.href)).status, 200);
      const operation = (await context.api.get(`/imodels/${id}/operations/create`)).body as {
        createOperation: { state: string };
      };
      assert.equal(operation.createOperation.state, 'successful');
    }
    // The bytes of everything that a living iModel can see exist.
    const dangling = await database.db
      .selectFrom('changeset')
      .innerJoin('blob', 'blob.id', 'changeset.blob_id')
      .select('changeset.id')
      .where((eb) => eb.or([eb('blob.state', '!=', 'stored'), eb('blob.released_at', 'is not', null)]))
      .execute();
    assert.deepEqual(dangling, []);
  });
});

onEachDatabase('The row locks of an iModel', {}, (context) => {
  // SQLite runs one transaction at a time and needs no row locks.
  if (context.engine !== 'postgres') return;
  // Without the first of these locks, a running clone could end with a head above what the collector keeps of a history
  // that another iModel shares: too narrow a race to occur by chance, and no foreign key would catch it.
  test('make a deletion wait for a running clone, but not pushes or other clones', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const { db } = context.server.services.database;
    const waiting = async (): Promise<number> => {
      const found = await sql<{
        count: number;
      }>`select count(*) as count from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`.execute(
        db,
      );
      return Number(found.rows[0]?.count);
    };
    let deletion: Promise<number> | undefined;
    let deleted = false;
    await db.transaction().execute(async (tx) => {
      assert.ok(await lockIModel(tx, 'postgres', made.id, 'clone'));
      await pushMore(context.olivia, made, 1);
      const another = await context.api.post(`/imodels/${made.id}/clone`, {
        iTwinId: context.iTwinId,
        name: randomUUID(),
      });
      assert.equal(another.status, 202);
      deletion = context.api.delete(`/imodels/${made.id}`).then(({ status }) => {
        deleted = true;
        return status;
      });
      while ((await waiting()) === 0) assert.ok(!deleted, 'the deletion did not wait');
    });
    assert.equal(await deletion, 204);
  });
});

onEachDatabase('A role that is deleted while it is assigned', {}, (context) => {
  test('is not found, and grants nothing', async () => {
    const { api, iTwinId, server } = context;
    const at = `/accesscontrol/itwins/${iTwinId}`;
    const newRole = async (): Promise<string> =>
      (
        (await api.post(`${at}/roles`, { displayName: randomUUID(), permissions: ['imodels_webview'] })).body as {
          role: { id: string };
        }
      ).role.id;
    const kept = await newRole();
    const userId = people.max.id;
    const group = (await api.post(`${at}/groups`, { name: randomUUID(), members: [] })).body as {
      group: { id: string };
    };
    const groupId = group.group.id;
    await api.post(`${at}/members/users`, { members: [{ userId, roleIds: [kept] }] });
    await api.post(`${at}/members/groups`, { members: [{ groupId, roleIds: [kept] }] });
    const { members } = server.services;
    const check = members.requireGrantable.bind(members);
    // Between the check and the change.
    members.requireGrantable = async (access, roleIds, held) => {
      await check(access, roleIds, held);
      for (const roleId of roleIds) await api.delete(`${at}/roles/${roleId}`);
    };
    try {
      const changes: ((roleId: string) => Promise<Answer>)[] = [
        (roleId) => api.post(`${at}/members/users`, { members: [{ userId, roleIds: [roleId] }] }),
        (roleId) => api.patch(`${at}/members/users/${userId}`, { roleIds: [roleId] }),
        (roleId) => api.post(`${at}/members/groups`, { members: [{ groupId, roleIds: [roleId] }] }),
        (roleId) => api.patch(`${at}/members/groups/${groupId}`, { roleIds: [roleId] }),
      ];
      for (const change of changes) {
        const { status, body } = await change(await newRole());
        assert.deepEqual([status, (body as WireError).error?.code], [404, 'RoleNotFound']);
      }
    } finally {
      members.requireGrantable = check;
    }
    for (const member of [`users/${userId}`, `groups/${groupId}`]) {
      const { body } = await api.get(`${at}/members/${member}`);
      assert.deepEqual(
        (body as { member: { roles: { id: string }[] } }).member.roles.map(({ id }) => id),
        [kept],
      );
    }
  });
});

onEachDatabase('Concurrent first requests of a user', {}, (context) => {
  test('all know the user, whichever of them inserts the row', async () => {
    const { db } = context.server.services.database;
    for (let round = 0; round < times(30, 120); round++) {
      const id = randomUUID();
      const user = {
        id,
        email: `${id}@example.test`,
        givenName: 'new',
        surname: 'here',
        organizationId: null,
        identity: { issuer: 'https://issuer.test', subject: id },
      };
      // Each represents a separate server, which has not seen the user yet.
      await Promise.all(Array.from({ length: 8 }, () => new Users(db).remember(user)));
      assert.equal(
        (await db.selectFrom('user_account').select('email').where('id', '=', id).executeTakeFirst())?.email,
        user.email,
      );
    }
  });
});

onEachDatabase('Roles and groups that are assigned while they are deleted', {}, (context) => {
  test('are deleted without a server error', async () => {
    const { api, iTwinId } = context;
    const at = `/accesscontrol/itwins/${iTwinId}`;
    for (let round = 0; round < times(10, 25); round++) {
      const { role } = (await api.post(`${at}/roles`, { displayName: randomUUID(), permissions: ['imodels_webview'] }))
        .body as { role: { id: string } };
      const { group } = (await api.post(`${at}/groups`, { name: randomUUID(), members: [] })).body as {
        group: { id: string };
      };
      const assign = (): Promise<Answer>[] => [
        api.post(`${at}/members/users`, { members: [{ userId: people.max.id, roleIds: [role.id] }] }),
        api.post(`${at}/members/groups`, { members: [{ groupId: group.id, roleIds: [role.id] }] }),
        api.patch(`${at}/groups/${group.id}`, { members: [people.max.id] }),
      ];
      const answers = await Promise.all([
        ...assign(),
        api.delete(`${at}/roles/${role.id}`),
        ...assign(),
        api.delete(`${at}/groups/${group.id}`),
        ...assign(),
      ]);
      assert.deepEqual(
        answers.filter(({ status }) => status >= 500).map(({ body }) => body),
        [],
      );
      assert.equal((await api.get(`${at}/roles/${role.id}`)).status, 404);
      assert.equal((await api.get(`${at}/groups/${group.id}`)).status, 404);
    }
  });
});
