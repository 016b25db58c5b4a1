/** Other accounts of the machine cannot read the data folder, whatever its mode and the umask of the shell are. */
import assert from 'node:assert/strict';
import { chmodSync, lstatSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { Api } from '../support/api.ts';
import { ServerProcess } from '../support/serverProcess.ts';
import { offshoot } from '../support/commands.ts';
import { Installation, people } from '../support/server.ts';

test(
  'nothing in an open data folder is readable by other users, whatever the umask was',
  { skip: process.platform === 'win32', timeout: 120_000 },
  async () => {
    const installation = await Installation.create('sqlite');
    const { dataDir } = installation;
    // As an earlier version, a restored backup or a mistake may have left it.
    chmodSync(dataDir, 0o777);
    chmodSync(path.join(dataDir, 'users.json'), 0o666);
    mkdirSync(path.join(dataDir, 'blobs'));
    chmodSync(path.join(dataDir, 'blobs'), 0o777);
    const before = process.umask(0);
    const server = new ServerProcess(installation.config());
    try {
      await server.start();
      const token = (await offshoot(['token', '--data', dataDir, '--user', people.olivia.id])).stdout.trim();
      const api = new Api(server.origin, token);
      const { iTwin } = (await api.post('/itwins', { displayName: 'open', class: 'Endeavor', subClass: 'Project' }))
        .body as { iTwin: { id: string } };
      assert.equal((await api.post('/imodels', { iTwinId: iTwin.id, name: 'open' })).status, 201);
      await offshoot([
        'keys',
        'rotate',
        '--config',
        path.join(dataDir, readdirSync(dataDir).find((name) => /^[0-9a-f-]{36}\.json$/.test(name)) ?? ''),
      ]);
      // The test itself puts a configuration there, which the server does not modify.
      const names = readdirSync(dataDir).filter((name) => !/^[0-9a-f-]{36}\.json$/.test(name));
      assert.ok(
        names.includes('offshoot.db') && names.includes('issuer.json') && names.includes('addresses.json'),
        names.join(),
      );
      for (const name of names) {
        const mode = lstatSync(path.join(dataDir, name)).mode & 0o077;
        // As root the server gives the iTwin.js process search permission for its working folder, but no read permission above it.
        assert.equal(mode & (name === 'work' ? 0o066 : 0o077), 0, `${name} has the mode ${mode.toString(8)}`);
      }
    } finally {
      process.umask(before);
      await server.end();
      rmSync(dataDir, { recursive: true, force: true });
    }
  },
);
