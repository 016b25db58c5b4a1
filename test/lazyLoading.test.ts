import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Directory } from '../apps/server/src/access/directory.ts';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import { noteOrigins } from '../apps/server/src/wiring/ownAddresses.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const listModules = fileURLToPath(new URL('support/listModules.ts', import.meta.url));
const timeout = 60_000;
/** What only servers, and commands that work on the data of an installation, need. */
const heavy = ['fastify', 'kysely', 'pg', 'ajv', 'typebox', 'pino', 'jose'];

describe('Loading', () => {
  let folder: string;
  before(() => (folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  const environment = (file: string) => ({ ...process.env, OFFSHOOT_TEST_MODULES: file });
  const read = (file: string) => JSON.parse(readFileSync(file, 'utf8')) as string[];

  async function loadedBy(...args: string[]): Promise<string[]> {
    const file = path.join(folder, 'command.json');
    const run = promisify(execFile)(process.execPath, ['--import', listModules, cli, ...args], {
      env: environment(file),
      timeout,
    });
    await run.catch(() => undefined);
    return read(file);
  }

  test('the version needs the command line parser only', async () => {
    assert.deepEqual(await loadedBy('--version'), ['commander']);
  });

  test('a command that calls a server loads no server', async () => {
    const ofServers = ['fastify', 'kysely', 'pg', 'ajv', 'typebox', 'pino', 'jose'];
    for (const command of [
      ['imodels'],
      ['imodels', 'download', 'Plant'],
      ['itwins'],
      ['clone', 'Plant', '--itwin', 'Harbour'],
      ['changesets', 'Plant'],
      ['versions', 'Plant'],
      ['checkpoints', 'Plant'],
      ['shares', 'Plant'],
      ['users', '--imodel', 'Plant'],
      ['roles', '--itwin', 'Harbour'],
      ['members', '--itwin', 'Harbour'],
      ['webhooks', '--itwin', 'Harbour'],
      ['usage', 'Harbour'],
    ]) {
      const loaded = await loadedBy(...command, '--url', 'http://127.0.0.1:9', '--token', 'none');
      assert.ok(loaded.includes('commander'));
      assert.deepEqual(
        loaded.filter((name) => ofServers.includes(name)),
        [],
        command.join(' '),
      );
    }
  });

  test('a command that mints its token from the data folder loads no validator of schemas and no server', async () => {
    const dataDir = path.join(folder, 'minting');
    mkdirSync(dataDir);
    await EmbeddedIssuer.open(dataDir);
    Directory.open(dataDir, () => undefined);
    noteOrigins(dataDir, ['http://127.0.0.1:9'], true);
    const options = ['--url', 'http://127.0.0.1:9', '--data', dataDir];
    for (const args of [
      ['token', '--data', dataDir],
      ['imodels', ...options],
    ]) {
      const loaded = await loadedBy(...args);
      assert.deepEqual(
        loaded.filter((name) => heavy.includes(name)),
        [],
        args[0],
      );
    }
  });

  test('a server on SQLite and files loads what it has not been asked for when it is asked', { timeout }, async () => {
    const file = path.join(folder, 'server.json');
    const child = spawn(
      process.execPath,
      [
        '--import',
        listModules,
        cli,
        'start',
        '--data',
        path.join(folder, 'data'),
        '--host',
        '127.0.0.1',
        '--port',
        '0',
      ],
      { env: environment(file), stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
    );
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    try {
      const origin = await new Promise<string>((resolve, reject) => {
        child.once('message', (message) => resolve((message as { origin: string }).origin));
        child.once('exit', () => reject(new Error('the server ended')));
      });
      assert.equal((await fetch(`${origin}/health`)).status, 200);
    } finally {
      child.kill('SIGTERM');
      await ended;
    }
    const onRequest =
      /^(@scalar\/|@fastify\/swagger|yaml|sharp|@aws-sdk\/|@azure\/|@opentelemetry\/|prom-client|oidc-provider|koa|pg|@itwin\/|typebox)/;
    assert.deepEqual(
      read(file).filter((name) => onRequest.test(name)),
      [],
    );
  });
});
