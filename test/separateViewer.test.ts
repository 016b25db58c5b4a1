/** `offshoot view-backend`, the back end for viewers that runs on its own, and what is said when it cannot work. */
import assert from 'node:assert/strict';
import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { examine } from '../apps/server/src/maintenance/doctor.ts';
import { version } from '../apps/server/src/version.ts';
import type { WireError } from './support/api.ts';
import { makeIModel, official, workFolder } from './support/clients.ts';
import { freePort } from './support/freePort.ts';
import { Installation } from './support/server.ts';
import { until } from './support/until.ts';
import { call, read, viewerConfig, type Place } from './support/viewerCalls.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const key = randomBytes(24).toString('base64url');

/** A back end as of another release, which knows nothing of the requests of this one. */
async function otherRelease(headers: Record<string, string>): Promise<{ url: string; close: () => void }> {
  const server = createServer(
    (request, response) => void request.resume().once('end', () => response.writeHead(200, headers).end('{}')),
  );
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, close: () => void server.close() };
}

describe('A view back end that cannot work for a server', { skip, timeout: 240_000 }, () => {
  const work = workFolder();
  let installation: Installation;
  let place: Place;
  let child: ChildProcess;
  let url: string;
  let log = '';

  before(async () => {
    const port = await freePort();
    url = `http://127.0.0.1:${port}`;
    // Nothing listens at the address of the server.
    const options = { server: `http://127.0.0.1:${await freePort()}`, data: work.path, host: '127.0.0.1', port };
    child = fork(
      cli,
      ['view-backend', ...Object.entries(options).flatMap(([name, value]) => [`--${name}`, `${value}`])],
      {
        cwd: work.path,
        env: { PATH: process.env['PATH'], HOME: work.path, OFFSHOOT_VIEWER_KEY: key },
        stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      },
    );
    child.stdout?.on('data', (text: Buffer) => (log += text.toString()));
    const started = await Promise.race([once(child, 'message'), once(child, 'exit').then(() => undefined)]);
    assert.notEqual(started, undefined, 'the back end ended while it started');
    installation = await Installation.create('sqlite');
  });
  after(async () => {
    const ended = once(child, 'exit');
    child.kill('SIGTERM');
    await ended;
    installation.remove();
    work.remove();
  });

  const logged = (what: RegExp): Promise<true> =>
    until(`${what} in the log of the back end`, () => (what.test(log) ? true : undefined), 60_000);

  /** What a viewer of a server with this back end is told. */
  async function toldBy(service: { url: string; key: string }): Promise<string> {
    const server = await installation.start({ ...viewerConfig, viewer: { enabled: true, service } });
    try {
      if (place === undefined) {
        const { id, iTwinId } = await makeIModel(await official(server), await server.iTwin());
        place = { iTwinId, iModelId: id };
      }
      const { status, body } = await call(await server.as('olivia'), place, `${read}getConnectionProps`);
      const { error, message } = body as WireError & { message: string };
      assert.deepEqual([status, error.code], [500, 'ViewerBackendUnusable'], JSON.stringify(body));
      // Front ends of iTwin.js show the message at the top.
      assert.equal(message, error.message);
      return message;
    } finally {
      await server.close();
    }
  }

  test('says at its start that it cannot reach the server, and a viewer is told so', async () => {
    await logged(/the server cannot be reached at the address of --server.*ECONNREFUSED/);
    assert.equal(await toldBy({ url, key }), 'The view back end cannot reach this server.');
  });

  test('says that the key of the server is another one, and a viewer is told so', async () => {
    const message = await toldBy({ url, key: 'k'.repeat(32) });
    assert.equal(message, 'The view back end does not accept the key of this server.');
    await logged(/OFFSHOOT_VIEWER_KEY must be the same here and at the server/);
  });

  test('says that the server is of another release', async () => {
    for (const release of ['0/0.0.9/5.0.0', undefined, '99/9.9.9/9.9.9']) {
      const headers = { 'offshoot-view-key': key, ...(release !== undefined && { 'offshoot-view-release': release }) };
      const response = await fetch(`${url}/ping`, { headers });
      assert.deepEqual([response.status, response.headers.get('offshoot-view-refusal')], [409, 'release'], release);
    }
    await logged(
      /install the same version on both \(the server is older: it runs Offshoot 0\.0\.9 with iTwin\.js 5\.0\.0/,
    );
  });

  test('is recognized by the server as older, newer, or with another iTwin.js, and a viewer is told so', async () => {
    for (const release of [undefined, '0/0.0.9/5.1.9', '99/9.9.9/9.9.9', `1/${version}/5.0.0`]) {
      const other = await otherRelease(release === undefined ? {} : { 'offshoot-view-release': release });
      try {
        const message = await toldBy({ url: other.url, key });
        assert.equal(message, 'The view back end and this server have different versions.', release);
      } finally {
        other.close();
      }
    }
  });

  test('is examined by `offshoot doctor`, which says what is wrong with it', async () => {
    const stopped = `http://127.0.0.1:${await freePort()}`;
    const other = await otherRelease({ 'offshoot-view-release': '99/9.9.9/9.9.9' });
    try {
      for (const [service, state, text] of [
        [{ url, key }, 'ok', /answers/],
        [{ url, key: 'k'.repeat(32) }, 'fault', /has another OFFSHOOT_VIEWER_KEY than this server/],
        [{ url: other.url, key }, 'fault', /is newer: it runs Offshoot 9\.9\.9/],
        [{ url: stopped, key }, 'fault', /does not answer/],
      ] as const) {
        const findings = await examine(installation.config({ ...viewerConfig, viewer: { enabled: true, service } }));
        const found = findings.find(({ check }) => check === 'viewers');
        assert.equal(found?.state, state, found?.text);
        assert.match(found.text, text);
        assert.equal(found.remedy === undefined, state === 'ok');
      }
      const off = await examine(installation.config());
      assert.equal(off.find(({ check }) => check === 'viewers')?.text, 'Not answered (viewer.enabled).');
    } finally {
      other.close();
    }
  });

  test('is alive for those who watch it, without a key', async () => {
    const response = await fetch(`${url}/health`);
    assert.deepEqual([response.status, await response.json()], [200, { status: 'ok' }]);
    assert.equal((await fetch(`${url}/ping`)).status, 403);
  });

  test('does not start without a key, with the address of the database, or without the address of a server', () => {
    const start = (server: string, env: Record<string, string>) =>
      spawnSync(process.execPath, [cli, 'view-backend', '--server', server, '--data', work.path, '--port', '0'], {
        env: { PATH: process.env['PATH'], ...env },
        encoding: 'utf8',
        timeout: 60_000,
      });
    for (const [what, { status, stderr }] of [
      ['OFFSHOOT_VIEWER_KEY is missing', start(url, {})],
      [
        'databaseUrl is set',
        start(url, { OFFSHOOT_VIEWER_KEY: key, OFFSHOOT_DATABASE_URL: 'postgres://127.0.0.1:1/none' }),
      ],
      ['--server must be an address', start('offshoot.example.com', { OFFSHOOT_VIEWER_KEY: key })],
    ] as const)
      assert.deepEqual([status, stderr.includes(what)], [2, true], stderr);
  });
});
