/** Attacks by a user who creates an iTwin and adds strangers to it, to learn who they are. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import type { Api } from '../support/api.ts';
import { makeIModel } from '../support/clients.ts';
import { people } from '../support/server.ts';
import { onEachDatabase } from '../support/suite.ts';

interface ShownUser {
  id: string;
  email: string;
  givenName: string;
  surname: string;
  organization: string | null;
}

onEachDatabase('An iTwin with members from other organizations', {}, (context) => {
  /** Every way in which access control shows a user of the iTwin. */
  async function viewsOf(api: Api, at: string, groupId: string, userId: string): Promise<ShownUser[]> {
    const read = async <T>(path: string): Promise<T> => (await api.get(`${at}${path}`)).body as T;
    const { members } = await read<{ members: ShownUser[] }>('/members/users');
    const { member } = await read<{ member: ShownUser }>(`/members/users/${userId}`);
    const owners = await read<{ members: ShownUser[] }>('/members/owners');
    const { groups } = await read<{ groups: { members: ShownUser[] }[] }>('/groups');
    const { group } = await read<{ group: { members: ShownUser[] } }>(`/groups/${groupId}`);
    return [...members, member, ...owners.members, ...groups.flatMap((each) => each.members), ...group.members].filter(
      ({ id }) => id === userId,
    );
  }

  test('shows names and organization only within the same organization, until the member opens an iModel of it', async () => {
    const { api, server, iTwinId, olivia } = context;
    const at = `/accesscontrol/itwins/${iTwinId}`;
    const made = await makeIModel(olivia, iTwinId);
    const { role } = (await api.post(`${at}/roles`, { displayName: randomUUID(), permissions: ['imodels_webview'] }))
      .body as { role: { id: string } };
    const { id, email } = people.eve;
    const eve = await server.as('eve');
    await eve.get('/itwins');
    const answers: unknown[] = [
      (await api.post(`${at}/members/users`, { members: [{ email, roleIds: [role.id] }] })).body,
      (await api.patch(`${at}/members/users/${id}`, { roleIds: [role.id] })).body,
      (await api.post(`${at}/members/owners`, { email })).body,
    ];
    const created = (await api.post(`${at}/groups`, { name: randomUUID(), members: [email] })).body as {
      group: { id: string };
    };
    answers.push(created, (await api.patch(`${at}/groups/${created.group.id}`, { members: [email] })).body);
    for (const answer of answers) {
      assert.match(JSON.stringify(answer), new RegExp(email), 'it was carried out');
      assert.doesNotMatch(JSON.stringify(answer), /"Tester"|Elsewhere/);
    }
    const nothing = { id, email, givenName: '', surname: '', organization: null };
    const everything = { ...nothing, givenName: 'eve', surname: 'Tester', organization: 'Elsewhere' };
    const shown = ({ id, email, givenName, surname, organization }: ShownUser): ShownUser => ({
      id,
      email,
      givenName,
      surname,
      organization,
    });
    const see = async (who: Api): Promise<ShownUser[]> => (await viewsOf(who, at, created.group.id, id)).map(shown);

    assert.deepEqual(
      await see(api),
      Array.from({ length: 5 }, () => nothing),
    );
    assert.deepEqual(
      await see(eve),
      Array.from({ length: 5 }, () => everything),
      'she sees herself',
    );
    await api.post(`${at}/members/users`, { members: [{ email: people.consultant.email, roleIds: [role.id] }] });
    assert.deepEqual(
      await see(await server.as('consultant')),
      Array.from({ length: 5 }, () => everything),
      'one of her own organization',
    );

    assert.equal((await eve.get(`/imodels/${made.id}`)).status, 200);
    assert.deepEqual(
      await see(api),
      Array.from({ length: 5 }, () => everything),
      'she came',
    );
  });

  test('shows its creator', async () => {
    const { api, server, iTwinId } = context;
    const at = `/accesscontrol/itwins/${iTwinId}`;
    const { role } = (await api.post(`${at}/roles`, { displayName: randomUUID(), permissions: ['imodels_webview'] }))
      .body as { role: { id: string } };
    await api.post(`${at}/members/users`, { members: [{ email: people.foreignAdmin.email, roleIds: [role.id] }] });
    const { members } = (await (await server.as('foreignAdmin')).get(`${at}/members/owners`)).body as {
      members: ShownUser[];
    };
    assert.deepEqual(members.find(({ id }) => id === people.olivia.id)?.givenName, 'olivia');
  });
});
