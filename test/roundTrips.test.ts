import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { makeIModel, official, pushMore } from './support/clients.ts';
import { startRoundTripProxy, type RoundTripProxy, type WireTransaction } from './support/roundTrips.ts';
import { engines, Installation, type TestServer } from './support/server.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

/**
 * One round trip reads and locks everything that a transaction decides on, the permissions included, and one writes and
 * commits. A push needs a third, because where it appends depends on the history that it has locked.
 */
describe('The round trips of a transaction on PostgreSQL', { skip }, () => {
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

  test('are two for a clone and for a briefcase, and at most three for a push', async () => {
    const olivia = await official(server);
    const iTwinId = await server.iTwin();
    const made = await makeIModel(olivia, iTwinId, { changesets: 1 });
    const { authorization } = olivia;

    proxy.take();
    await olivia.client.iModels.clone({
      authorization,
      iModelId: made.id,
      iModelProperties: { iTwinId, name: 'clone' },
    });
    assert.equal(of('imodel', proxy.take()), 2);

    await olivia.client.briefcases.acquire({ authorization, iModelId: made.id });
    assert.equal(of('briefcase', proxy.take()), 2);

    await pushMore(olivia, made, 1);
    const pushed = proxy.take();
    assert.equal(of('pending_changeset', pushed), 3);
    assert.equal(of('changeset', pushed), 3);
  });
});
