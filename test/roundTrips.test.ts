import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { makeIModel, official, pushMore } from './support/clients.ts';
import { startRoundTripProxy, type RoundTripProxy, type WireTransaction } from './support/roundTrips.ts';
import { engines, Installation, type TestServer } from './support/server.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

/**
 * One round trip reads and locks everything that a transaction decides on, the permissions included, and one writes and
 * commits. A push needs a third, because where it appends depends on the history that it has locked.
 */
describe('The round trips on PostgreSQL', { skip }, () => {
  let installation: Installation;
  let proxy: RoundTripProxy;
  let server: TestServer;
  before(async () => {
    installation = await Installation.create('postgres');
    const url = new URL(installation.databaseUrl as string);
    proxy = await startRoundTripProxy(Number(url.port));
    url.port = String(proxy.port);
    server = await installation.start({ databaseUrl: url.href, databasePrepares: false });
  });
  after(async () => {
    await server.close();
    await proxy.stop();
    installation.remove();
  });

  /** The round trips of the only transaction that inserts into a table. */
  const of = (table: string, transactions: readonly WireTransaction[]): number => {
    const found = transactions.filter((rounds) => rounds.some((round) => round.includes(`insert into "${table}"`)));
    assert.equal(found.length, 1, `transactions that insert into ${table}`);
    return (found[0] as WireTransaction).length;
  };

  test('are two for a transaction of a clone and of a briefcase, and at most three for a push', async () => {
    const olivia = await official(server);
    const iTwinId = await server.iTwin();
    const made = await makeIModel(olivia, iTwinId, { changesets: 1 });
    const { authorization } = olivia;

    proxy.take();
    await olivia.client.iModels.clone({
      authorization,
      iModelId: made.id,
      // A part of the history is more than one statement can tell.
      iModelProperties: { iTwinId, name: 'clone', changesetIndex: 0 },
    });
    assert.equal(of('imodel', proxy.take()), 2);

    await olivia.client.briefcases.acquire({ authorization, iModelId: made.id });
    assert.equal(of('briefcase', proxy.take()), 2);

    await pushMore(olivia, made, 1);
    const pushed = proxy.take();
    assert.equal(of('pending_changeset', pushed), 3);
    assert.equal(of('changeset', pushed), 3);
  });

  test('are two for a whole clone: one reads the permissions, one writes', async () => {
    const olivia = await official(server);
    const [iTwinId, other] = [await server.iTwin(), await server.iTwin()];
    const made = await makeIModel(olivia, iTwinId, { changesets: 1 });
    const api = await server.as('olivia');
    const roundsOf = async (target: string): Promise<number> => {
      proxy.takeRounds();
      const { status } = await api.post(`/imodels/${made.id}/clone`, { iTwinId: target, name: randomUUID() });
      const rounds = proxy.takeRounds();
      assert.equal(status, 202);
      // Jobs, leases and the counts of rate limits have statements of their own.
      return rounds.filter((round) => round.includes(made.id) || round.includes(target)).length;
    };
    // The quotas of an iTwin are read now and then.
    for (const target of [iTwinId, other]) await roundsOf(target);
    assert.equal(await roundsOf(iTwinId), 2);
    assert.equal(await roundsOf(other), 3, 'the other iTwin is read too');
  });
});
