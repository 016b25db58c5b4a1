import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { parseHttpFile, runHttpFile } from './support/httpFiles.ts';
import { bootServer, endServer, setups, type TestServer } from './support/server.ts';

const examples = fileURLToPath(new URL('../examples/', import.meta.url));
const httpFiles = globSync('http/*.http', { cwd: examples });
/** Longest time for the example app, milliseconds; it takes two seconds. */
const appMs = 120_000;

for (const setup of setups) {
  const on = `${setup.engine} with ${setup.store}`;
  const withServer = async (work: (server: TestServer) => Promise<void>): Promise<void> => {
    const server = await bootServer(setup);
    try {
      await work(server);
    } finally {
      await endServer(server);
    }
  };

  test(`the example app creates, pushes, names, clones and reads, on ${on}`, () =>
    withServer(async (server) => {
      const { stdout } = await promisify(execFile)(process.execPath, ['app/main.ts', server.origin], {
        cwd: examples,
        timeout: appMs,
        env: { ...process.env, OFFSHOOT_TOKEN: await server.token('olivia') },
      });
      for (const line of ['created Plant', 'pushed changeset 3: pipes', "cloned to 'Issued for review' (changeset 2)"])
        assert.ok(stdout.includes(line), `${line} is missing in:\n${stdout}`);
      assert.deepEqual(
        [...stdout.matchAll(/^read changeset (\d) of the clone: (\w+)/gm)].map(([, index, name]) => [index, name]),
        [
          ['1', 'tanks'],
          ['2', 'pumps'],
        ],
      );
    }));

  test(`every request of the HTTP files is answered with the status that the file names, on ${on}`, () =>
    withServer(async (server) => {
      const token = await server.token('admin');
      for (const file of httpFiles)
        assert.deepEqual(await runHttpFile(path.join(examples, file), { origin: server.origin, token }), [], file);
    }));
}

test('the HTTP files are not empty, and name a status for each request', () => {
  for (const file of httpFiles)
    assert.ok(parseHttpFile(readFileSync(path.join(examples, file), 'utf8')).requests.length > 2, file);
  assert.ok(httpFiles.length > 3);
});
