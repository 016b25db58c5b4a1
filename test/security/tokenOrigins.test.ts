/**
 * Attacks on the tokens of the command line by the operator of a server that it is pointed at or redirected to: a token is sent
 * only to the origin that it was given for, and one issued from the data folder only to the installation's own addresses.
 */
import assert from 'node:assert/strict';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { offshoot } from '../support/commands.ts';
import { makeIModel, official, type MadeIModel } from '../support/clients.ts';
import { FaultyProxy, type PassingAnswer } from '../support/faultyProxy.ts';
import { bootServer, endServer, Installation, type TestServer } from '../support/server.ts';
import { StubServer } from '../support/stubServer.ts';

describe('Tokens of the command line', () => {
  let server: TestServer;
  let made: MadeIModel;
  let thief: StubServer;
  let proxy: FaultyProxy;
  before(async () => {
    server = await bootServer('sqlite');
    made = await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
    thief = await StubServer.start();
    proxy = await FaultyProxy.start(server.origin);
  });
  after(async () => {
    await Promise.all([thief.close(), proxy.close()]);
    await endServer(server);
  });

  const data = () => ['--data', server.installation.dataDir];

  const lures: Record<string, { command: () => Promise<string[]>; change: (answer: PassingAnswer) => void }> = {
    'the next page of a list': {
      command: async () => ['imodels'],
      change: (answer) => {
        const body = JSON.parse(answer.body.toString()) as { _links?: object };
        answer.body = Buffer.from(
          JSON.stringify({ ...body, _links: { ...body._links, next: { href: `${thief.origin}/itwins?$skip=100` } } }),
        );
      },
    },
    'an operation to follow': {
      command: async () => ['clone', made.id, '--itwin', await server.iTwin()],
      change: (answer) => {
        answer.headers['create-imodel-operation'] = `${thief.origin}/imodels/${made.id}/operations/create`;
      },
    },
    'a place of what was made': {
      command: async () => ['clone', made.id, '--itwin', await server.iTwin()],
      change: (answer) => {
        delete answer.headers['create-imodel-operation'];
        answer.headers['location'] = `${thief.origin}/imodels/${made.id}`;
      },
    },
    'a redirect': {
      command: async () => ['imodels'],
      change: (answer) =>
        Object.assign(answer, { status: 307, headers: { location: `${thief.origin}/itwins` }, body: Buffer.alloc(0) }),
    },
  };
  for (const [what, { command, change }] of Object.entries(lures))
    test(`are not sent to another server by ${what}`, async () => {
      proxy.change = change;
      const before = thief.requests.length;
      const { code, stderr } = await offshoot([
        ...(await command()),
        '--url',
        proxy.origin,
        '--token',
        await server.token('olivia'),
      ]);
      assert.equal(code, 1);
      assert.ok(stderr.includes(thief.origin), stderr);
      assert.equal(thief.requests.length, before);
    });

  test('are issued only for the addresses of the installation', async () => {
    for (const url of [
      thief.origin,
      proxy.origin,
      'https://imodels.example.com',
      server.origin.replace('localhost', 'localhost.example.com'),
    ]) {
      const { code, stderr } = await offshoot(['imodels', '--url', url, ...data()]);
      assert.deepEqual([code, stderr.includes('no token is minted for it')], [2, true], stderr);
    }
    assert.deepEqual(thief.requests, []);
    assert.equal((await offshoot(['imodels', '--url', server.origin, ...data()])).code, 0);
  });

  test('are issued for no address if no server was ever started with the data folder', async () => {
    const copy = await Installation.create('sqlite');
    try {
      await (await copy.start()).close();
      rmSync(path.join(copy.dataDir, 'addresses.json'));
      const { code, stderr } = await offshoot(['imodels', '--url', server.origin, '--data', copy.dataDir]);
      assert.deepEqual([code, stderr.includes('no server has been started there')], [2, true], stderr);
    } finally {
      copy.remove();
    }
  });

  test('are issued for the public address, and answers may link there', async () => {
    const installation = await Installation.create('sqlite');
    // As a proxy would: requests to the public address are answered by the server.
    const front = await StubServer.start();
    const started = await installation.start({ publicUrl: `${front.origin}/models` });
    try {
      front.answer = (request, response) => {
        fetch(`${started.origin}${(request.url ?? '').replace(/^\/models/, '')}`, {
          headers: { authorization: request.headers.authorization ?? '' },
        }).then(
          async (answer) =>
            response.writeHead(answer.status, { 'content-type': 'application/json' }).end(await answer.text()),
          () => response.destroy(),
        );
      };
      for (let n = 0; n < 101; n++) await started.iTwin('olivia');
      for (const url of [started.origin, `${front.origin}/models`]) {
        const before = front.requests.length;
        const { code, stderr } = await offshoot(['imodels', '--json', '--url', url, '--data', installation.dataDir]);
        assert.equal(code, 0, stderr);
        assert.ok(
          front.requests
            .slice(before)
            .some(
              ({ url: asked, authorization }) => asked.includes('continuationToken=') && authorization !== undefined,
            ),
          'the second page is asked for at the public address',
        );
      }
    } finally {
      await started.close();
      await front.close();
      installation.remove();
    }
  });
});
