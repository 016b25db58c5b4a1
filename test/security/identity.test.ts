/**
 * Attacks by somebody with tokens of a configured issuer, who chooses every claim that the issuer leaves to its users: an
 * unverified e-mail, a name, a subject that another user has at another issuer.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { DirectoryData } from '../../apps/server/src/access/directory.ts';
import { ConfigError, loadConfig } from '../../apps/server/src/config.ts';
import { emailKey } from '../../apps/server/src/domain.ts';
import { Api } from '../support/api.ts';
import { startOidcIssuer, type OidcIssuer } from '../support/oidcIssuer.ts';
import { Installation, people, setups, type TestServer } from '../support/server.ts';

const boss = 'boss@example.test';

for (const setup of setups) {
  describe(`Users on ${setup.engine} and ${setup.store}`, () => {
    let issuers: [OidcIssuer, OidcIssuer];
    let installation: Installation;
    let server: TestServer;
    let olivia: Api;

    before(async () => {
      issuers = [await startOidcIssuer(), await startOidcIssuer()];
      installation = await Installation.create(setup);
      server = await installation.start({ issuers: issuers.map(({ settings }) => settings) });
      olivia = await server.as('olivia');
    });
    after(async () => {
      await server.close();
      installation.remove();
      for (const issuer of issuers) issuer.close();
    });

    const as = async (claims: object, issuer = issuers[0]): Promise<Api> =>
      new Api(server.origin, await issuer.token(claims));
    /** The id of a user on this server. */
    const idOf = async (api: Api): Promise<string> => {
      const { iTwin } = (
        await api.post('/itwins', { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' })
      ).body as { iTwin: { createdBy: string } };
      return iTwin.createdBy;
    };
    const roleOn = async (iTwinId: string): Promise<string> =>
      (
        (
          await olivia.post(`/accesscontrol/itwins/${iTwinId}/roles`, {
            displayName: 'role',
            permissions: ['imodels_manage'],
          })
        ).body as { role: { id: string } }
      ).role.id;

    test('with an unverified e-mail are not found by it, as a member, an owner or in a group', async () => {
      const iTwinId = await server.iTwin();
      const roleId = await roleOn(iTwinId);
      const access = `/accesscontrol/itwins/${iTwinId}`;
      const organization = people.olivia.organizationId;
      const attackers = [
        { sub: randomUUID(), email: boss },
        { sub: randomUUID(), email: boss, email_verified: false },
        { sub: randomUUID(), preferred_username: boss, name: boss },
        { sub: boss },
        { sub: randomUUID(), email: `${boss}\0`, email_verified: true },
        // The Kelvin sign, whose lower case is the letter k.
        { sub: randomUUID(), email: '\u212aim@example.test', email_verified: true },
      ].map((claims) => ({ ...claims, org: organization }));
      const apis = await Promise.all(attackers.map((claims) => as(claims)));
      const ids = await Promise.all(apis.map(idOf));
      for (const email of [boss, 'kim@example.test']) {
        await olivia.post(`${access}/members/users`, { members: [{ email, roleIds: [roleId] }] });
        await olivia.post(`${access}/members/owners`, { email });
        await olivia.post(`${access}/groups`, { name: email, members: [email] });
      }
      for (const [n, api] of apis.entries())
        assert.equal((await api.get(`/itwins/${iTwinId}`)).status, 404, JSON.stringify(attackers[n]));
      const { db } = server.services.database;
      const rows = await db
        .selectFrom('user_account')
        .select(['id', 'email', 'verified_email'])
        .where('id', 'in', ids)
        .execute();
      assert.equal(rows.length, attackers.length);
      for (const row of rows)
        assert.ok(row.email !== boss && row.verified_email !== boss && !row.id.includes('@'), JSON.stringify(row));
    });

    test('with a verified e-mail are found by it, case-insensitively', async () => {
      const iTwinId = await server.iTwin();
      const email = `Ada.${randomUUID()}@Example.test`;
      const ada = await as({ sub: randomUUID(), email, email_verified: true, org: people.olivia.organizationId });
      await idOf(ada);
      const added = await olivia.post(`/accesscontrol/itwins/${iTwinId}/members/users`, {
        members: [{ email: emailKey(email), roleIds: [await roleOn(iTwinId)] }],
      });
      assert.equal(added.status, 201);
      assert.equal((await ada.get(`/itwins/${iTwinId}`)).status, 200);
    });

    test('an e-mail of the users file belongs to the user of that file, whoever else has it verified', async () => {
      const iTwinId = await server.iTwin();
      // An entry that names its issuer does not match tokens of another issuer.
      const file = path.join(installation.dataDir, 'users.json');
      const saved = readFileSync(file, 'utf8');
      const data = JSON.parse(saved) as DirectoryData;
      const entry = {
        ...people.newcomer,
        id: randomUUID(),
        email: `named.${randomUUID()}@example.test`,
        issuer: issuers[0].url,
      };
      writeFileSync(file, JSON.stringify({ ...data, users: [...data.users, entry] }));
      await new Promise((resolve) => setTimeout(resolve, 1100));
      const [named, other] = [
        await as({ sub: entry.id }),
        await as({ sub: randomUUID(), email: entry.email, email_verified: true }, issuers[1]),
      ];
      assert.equal(await idOf(named), entry.id);
      assert.notEqual(await idOf(other), entry.id);
      assert.notEqual(await idOf(await as({ sub: entry.id }, issuers[1])), entry.id);
      const added = await olivia.post(`/accesscontrol/itwins/${iTwinId}/members/users`, {
        members: [{ email: entry.email, roleIds: [await roleOn(iTwinId)] }],
      });
      assert.equal(added.status, 201);
      assert.deepEqual(
        [(await named.get(`/itwins/${iTwinId}`)).status, (await other.get(`/itwins/${iTwinId}`)).status],
        [200, 404],
      );
    });

    test('a subject equal to an id in the users file is a different user at another issuer', async () => {
      const iTwinId = await server.iTwin();
      for (const issuer of issuers) {
        const impostor = await as({ sub: people.admin.id }, issuer);
        assert.equal((await impostor.get(`/itwins/${iTwinId}`)).status, 404);
        assert.notEqual(await idOf(impostor), people.admin.id);
        assert.equal((await (await as({ sub: people.olivia.id }, issuer)).get(`/itwins/${iTwinId}`)).status, 404);
      }
    });

    test('the same subject at two issuers is two users, also when both first sign in concurrently', async () => {
      for (const sub of ['1234', 'x'.repeat(255), 'boss@example.test', 'share:1', randomUUID()]) {
        const both = await Promise.all(issuers.map((issuer) => as({ sub }, issuer)));
        const ids = await Promise.all([...both, ...both].map(idOf));
        assert.deepEqual(
          [ids[0] === ids[2], ids[1] === ids[3], ids[0] === ids[1]],
          [true, true, false],
          `${sub}: ${ids.join()}`,
        );
        const [first, second] = both as [Api, Api];
        const { iTwin } = (
          await first.post('/itwins', { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' })
        ).body as { iTwin: { id: string } };
        assert.equal((await second.get(`/itwins/${iTwin.id}`)).status, 404);
      }
    });
  });

  describe(`Users of an earlier version on ${setup.engine} and ${setup.store}`, () => {
    /** A server on the database of an earlier version: a user known by subject alone, who owns an iTwin. */
    async function upgraded(
      issuers: readonly OidcIssuer[],
      claiming?: OidcIssuer,
    ): Promise<{ server: TestServer; sub: string; iTwinId: string; close: () => Promise<void> }> {
      const installation = await Installation.create(setup);
      const config = {
        issuers: issuers.map((issuer) => ({
          ...issuer.settings,
          ...(issuer === claiming && { claimsEarlierUsers: true }),
        })),
      };
      const server = await installation.start(config);
      const sub = randomUUID();
      const { db } = server.services.database;
      await db
        .insertInto('user_account')
        .values({
          id: sub,
          issuer: null,
          subject: null,
          email: boss,
          verified_email: null,
          given_name: 'Ada',
          surname: 'L',
          organization_id: null,
          created_at: 1,
        })
        .execute();
      const iTwinId = await server.iTwin();
      await db.insertInto('owner').values({ itwin_id: iTwinId, user_id: sub }).execute();
      return {
        server,
        sub,
        iTwinId,
        close: async () => {
          await server.close();
          installation.remove();
        },
      };
    }

    test('keep their identity with the only issuer, to which they belong from then on', async () => {
      const [issuer, later] = [await startOidcIssuer(), await startOidcIssuer()];
      const { server, sub, iTwinId, close } = await upgraded([issuer]);
      try {
        assert.equal((await new Api(server.origin, await issuer.token({ sub })).get(`/itwins/${iTwinId}`)).status, 200);
        const row = await server.services.database.db
          .selectFrom('user_account')
          .select(['issuer', 'subject', 'email'])
          .where('id', '=', sub)
          .executeTakeFirst();
        assert.deepEqual({ ...row }, { issuer: issuer.url, subject: sub, email: '' });
      } finally {
        await close();
        issuer.close();
        later.close();
      }
    });

    test('belong to none of several issuers, except the one that the configuration names', async () => {
      const issuers = [await startOidcIssuer(), await startOidcIssuer()] as const;
      for (const claiming of [undefined, issuers[1]]) {
        const { server, sub, iTwinId, close } = await upgraded(issuers, claiming);
        try {
          const statuses = await Promise.all(
            issuers.map(
              async (issuer) =>
                (await new Api(server.origin, await issuer.token({ sub })).get(`/itwins/${iTwinId}`)).status,
            ),
          );
          assert.deepEqual(statuses, claiming === undefined ? [404, 404] : [404, 200]);
        } finally {
          await close();
        }
      }
      for (const issuer of issuers) issuer.close();
    });
  });
}

test('two issuers cannot both claim the users of an earlier version', () => {
  const issuers = ['https://one.example', 'https://two.example'].map((issuer) => ({
    issuer,
    audience: 'x',
    algorithms: ['RS256' as const],
    organizationClaim: 'org',
    administratorClaim: 'org_admin',
    claimsEarlierUsers: true,
  }));
  assert.throws(() => loadConfig({ issuers }, { env: {} }), ConfigError);
});
