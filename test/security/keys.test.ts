/**
 * Use of links, container tokens and tokens after they were issued: they expire at a documented time, and compromised keys are
 * replaced while the server runs.
 */
import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, mock, test } from 'node:test';
import { decodeJwt } from 'jose';
import { CheckpointState } from '@itwin/imodels-client-management';
import { LinkKeys, rotateLinkKeys } from '../../apps/server/src/storage/linkKeys.ts';
import { SignedLinks } from '../../apps/server/src/storage/signedLinks.ts';
import { Api } from '../support/api.ts';
import { makeIModel, official } from '../support/clients.ts';
import { offshoot } from '../support/commands.ts';
import { downloadLink } from '../support/push.ts';
import { bootServer, endServer, people, setups, storeConfig, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

for (const setup of setups)
  describe(`Keys that are replaced on ${setup.engine} and ${setup.store}`, () => {
    let server: TestServer;
    let installation: string[];
    let iModelId: string;
    before(async () => {
      server = await bootServer(setup, { store: storeConfig(setup.store, false) });
      const { dataDir, databaseUrl } = server.installation;
      const file = path.join(dataDir, 'installation.json');
      writeFileSync(file, JSON.stringify({ dataDir, ...(databaseUrl !== undefined && { databaseUrl }) }));
      installation = ['--config', file];
      iModelId = (await makeIModel(await official(server), await server.iTwin(), { changesets: 1 })).id;
    });
    after(() => endServer(server));

    const statusOf = async (link: string): Promise<number> => (await new Api('').get(link)).status;
    const rotate = async (...args: string[]): Promise<string> => {
      const { code, stdout, stderr } = await offshoot(['keys', 'rotate', ...args, ...installation]);
      assert.equal(code, 0, stderr);
      return stdout;
    };

    test('keep links valid during their overlap, and invalidate them without one', { timeout: 240_000 }, async () => {
      const link = await downloadLink(await server.as('olivia'), iModelId);
      assert.match(await rotate('links', '--overlap', '1h'), /links: the new key signs from/);
      assert.equal(await statusOf(link), 200);
      await rotate('links', '--overlap', '0s');
      await until('the old link is refused', async () => ((await statusOf(link)) === 403 ? true : undefined), 90_000);
      assert.equal(await statusOf(await downloadLink(await server.as('olivia'), iModelId)), 200);
    });

    test('keep tokens valid during their overlap, and invalidate them without one', { timeout: 240_000 }, async () => {
      // A verified token is cached for a minute, so each is used once.
      const [first, second] = [await server.as('olivia'), await server.as('olivia')];
      await rotate('issuer', '--overlap', '1h');
      assert.equal((await first.get('/itwins')).status, 200);
      const mint = async (): Promise<Api> =>
        new Api(
          server.origin,
          (await offshoot(['token', '--data', server.installation.dataDir, '--user', people.olivia.id])).stdout.trim(),
        );
      assert.equal((await (await mint()).get('/itwins')).status, 200);
      await rotate('issuer', '--overlap', '0s');
      assert.equal((await second.get('/itwins')).status, 401);
      assert.equal((await (await mint()).get('/itwins')).status, 200);
    });
  });

test('a new link key is known to every server before it signs, and an old one is dropped after its overlap', async () => {
  const server = await bootServer('sqlite');
  const { db } = server.services.database;
  const log = server.running.app.log;
  const keys = await Promise.all([LinkKeys.open(db, log), LinkKeys.open(db, log)]);
  const [one, other] = keys.map((each) => new SignedLinks(each, 3600)) as [SignedLinks, SignedLinks];
  const grant = { resource: 'blobs/x', fileName: 'x.cs', permission: 'r' } as const;
  const make = (links: SignedLinks): Record<string, string> =>
    Object.fromEntries(new URL(links.make('http://localhost', grant)).searchParams);
  const isGood = (links: SignedLinks, query: Record<string, string>): boolean =>
    typeof links.check({ ...grant, query }) !== 'string';
  try {
    const earlier = make(one);
    const from = await rotateLinkKeys(db, 600_000);
    assert.ok(from > Date.now() + 30_000);
    // One server has loaded the new key, the other has not yet: each accepts what the other signs.
    await keys[0]?.refresh();
    for (const [signer, checker] of [
      [one, other],
      [other, one],
    ] as const)
      assert.ok(isGood(checker, make(signer)));
    await keys[1]?.refresh();
    mock.timers.enable({ apis: ['Date'], now: from + 1000 });
    const later = make(one);
    assert.ok(isGood(other, later));
    assert.ok(isGood(other, earlier));
    mock.timers.setTime(from + 601_000);
    assert.deepEqual([isGood(other, earlier), isGood(other, later)], [false, true]);
  } finally {
    mock.timers.reset();
    for (const each of keys) each.close();
    await endServer(server);
  }
});

test('a container token expires after two hours, or with the token that requested it where the operator allows longer ones', async () => {
  for (const [tokenSeconds, tokenLife, expected] of [
    [undefined, 86_400, 7200],
    [604_800, 86_400, 86_400],
    [604_800, 600, 7200],
  ] as const) {
    const server = await bootServer('sqlite', {
      checkpoints: { generate: 'off', ...(tokenSeconds !== undefined && { tokenSeconds }) },
    });
    try {
      const olivia = await official(server);
      const { id } = await olivia.client.iModels.createEmpty({
        authorization: olivia.authorization,
        iModelProperties: { iTwinId: await server.iTwin(), name: 'empty' },
      });
      const token = await server.token('olivia', 'suite', tokenLife);
      const { checkpoint } = (await new Api(server.origin, token).get(`/imodels/${id}/changesets/0/checkpoint`))
        .body as { checkpoint: { state: string; directoryAccessInfo: { azure: { sasToken: string } } } };
      assert.equal(checkpoint.state, CheckpointState.Successful);
      const end = Date.parse(new URLSearchParams(checkpoint.directoryAccessInfo.azure.sasToken).get('se') ?? '');
      const least = Math.min(
        Date.now() + expected * 1000,
        expected === tokenLife ? (decodeJwt(token).exp ?? 0) * 1000 : Infinity,
      );
      assert.ok(Math.abs(end - least) < 60_000, `${(end - Date.now()) / 1000} s`);
    } finally {
      await endServer(server);
    }
  }
});
