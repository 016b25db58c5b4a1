import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { chmodSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { ConfigInput } from '../apps/server/src/config.ts';
import type { Finding } from '../apps/server/src/maintenance/doctor.ts';
import { bootServer, endServer, Installation, setups, storeConfig } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

describe('offshoot doctor', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-doctor-'));
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** Runs `offshoot doctor` on a configuration file. */
  async function examine(
    config: ConfigInput | string,
    env: NodeJS.ProcessEnv = {},
  ): Promise<{ code: number | null; findings: Finding[]; stderr: string }> {
    const file = path.join(folder, 'offshoot.json');
    writeFileSync(file, typeof config === 'string' ? config : JSON.stringify(config));
    return new Promise((resolve) => {
      const child = execFile(
        process.execPath,
        [cli, 'doctor', '--config', file, '--json'],
        { timeout: 120_000, env: { ...process.env, ...env } },
        (_error, stdout, stderr) => {
          resolve({
            code: child.exitCode,
            findings: stdout === '' ? [] : (JSON.parse(stdout) as { findings: Finding[] }).findings,
            stderr,
          });
        },
      );
    });
  }
  const of = (findings: readonly Finding[], check: string): Finding =>
    findings.find((each) => each.check === check) ?? assert.fail(`nothing was found of ${check}`);
  const checkpoints = { generate: 'off' as const };

  for (const setup of setups)
    test(`reports no problem for an installation on ${setup.engine} and ${setup.store} beside its running server`, async () => {
      const server = await bootServer(setup);
      try {
        const { code, findings, stderr } = await examine({ ...server.running.services.config, checkpoints });
        assert.deepEqual([code, findings.filter(({ state }) => state === 'fault')], [0, []], stderr);
        assert.match(of(findings, 'store').text, /answers/);
      } finally {
        await endServer(server);
      }
    });

  test('names variables that have no effect, with the nearest name that has one', async () => {
    const dataDir = path.join(folder, 'variables');
    const env = { OFFSHOOT_PUBLICURL: 'https://a.example', offshoot_host: '::', OFFSHOOT_BUCKET: 'b' };
    const { code, findings } = await examine({ dataDir, checkpoints }, env);
    assert.equal(code, 0);
    const named = findings.filter(({ check }) => check === 'environment');
    assert.deepEqual(
      named.map(({ state, text }) => [state, text.split(' ')[0]]),
      [
        ['warning', 'OFFSHOOT_BUCKET'],
        ['warning', 'OFFSHOOT_PUBLICURL'],
        ['warning', 'offshoot_host'],
      ],
    );
    const [unlike, nearOne, lowerCase] = named.map(({ remedy }) => remedy ?? '');
    assert.match(unlike ?? '', /offshoot\.json/);
    assert.match(nearOne ?? '', /Did you mean OFFSHOOT_PUBLIC_URL\?/);
    assert.match(lowerCase ?? '', /Did you mean OFFSHOOT_HOST\?/);
  });

  for (const setup of setups.filter(({ engine }) => engine === 'postgres'))
    test(`finds no fault before the first start on an empty ${setup.engine} and ${setup.store}, and reaches both`, async () => {
      const installation = await Installation.create(setup);
      try {
        const config = {
          dataDir: path.join(folder, 'before'),
          databaseUrl: installation.databaseUrl as string,
          store: storeConfig(setup.store),
          checkpoints,
        };
        const { code, findings, stderr } = await examine(config);
        assert.equal(code, 0, stderr);
        assert.match(of(findings, 'database').text, /empty; the first start creates the tables/);
        assert.match(of(findings, 'store').text, /answers/);
        const { url, ...keys } = { url: 'http://127.0.0.1:9', bucket: 'b', accessKeyId: 'a', secretAccessKey: 's' };
        const unreachable = await examine({ ...config, store: { type: 's3', endpoint: url, ...keys } });
        assert.deepEqual([unreachable.code, of(unreachable.findings, 'store').state], [1, 'fault']);
      } finally {
        installation.remove();
      }
    });

  test('says before the first start that nobody administers an installation with outside issuers', async () => {
    const issuers = [{ issuer: 'https://127.0.0.1:9/realms/plant', audience: 'offshoot' }];
    const config = { dataDir: path.join(folder, 'outside'), checkpoints, embeddedIssuer: false };
    const nobody = await examine(JSON.stringify({ ...config, issuers }));
    assert.ok(nobody.findings.some(({ check, state }) => check === 'users' && state === 'warning'));
    const roles = { rolesClaims: ['realm_access.roles'], administratorRoles: ['offshoot-admin'] };
    const somebody = await examine(
      JSON.stringify({ ...config, issuers: issuers.map((issuer) => ({ ...issuer, ...roles })) }),
    );
    assert.ok(!somebody.findings.some(({ check, state }) => check === 'users' && state === 'warning'));
  });

  test('creates nothing where no server was started yet', async () => {
    const dataDir = path.join(folder, 'new');
    const { code, findings } = await examine({ dataDir, checkpoints });
    assert.deepEqual([code, of(findings, 'database').state, readdirSync(folder)], [0, 'ok', ['offshoot.json']]);
  });

  test('reports every error of a configuration', async () => {
    const { code, findings } = await examine({ port: 99_999, defaultTier: 'none', nonsense: true } as ConfigInput);
    assert.equal(code, 1);
    assert.ok(findings.every(({ check, state }) => check === 'configuration' && state === 'fault'));
    assert.ok(findings.length > 1, JSON.stringify(findings));
    assert.ok(findings.every(({ remedy }) => remedy?.includes('docs/configuration.md')));
    const damaged = await examine('{');
    assert.deepEqual([damaged.code, damaged.findings[0]?.remedy?.startsWith('Correct the file')], [1, true]);
  });

  test('reports a port that another program uses', async () => {
    const other = createServer((socket) => socket.destroy()).listen(0, '127.0.0.1');
    await once(other, 'listening');
    const { port } = other.address() as AddressInfo;
    try {
      const config = { dataDir: path.join(folder, 'new'), checkpoints, host: '127.0.0.1', port };
      const { code, findings } = await examine(config);
      const { state, text, remedy } = of(findings, 'port');
      assert.deepEqual([code, state, text], [1, 'fault', `Another program uses port ${port}.`]);
      assert.match(remedy ?? '', /choose another port/);
    } finally {
      other.close();
    }
  });

  test('reports a damaged users file, and files that others can read', async () => {
    const dataDir = mkdtempSync(path.join(folder, 'data-'));
    writeFileSync(path.join(dataDir, 'users.json'), '{');
    chmodSync(path.join(dataDir, 'users.json'), 0o644);
    const { code, findings } = await examine({ dataDir, checkpoints });
    assert.deepEqual([code, of(findings, 'users').state, of(findings, 'data folder').state], [1, 'fault', 'warning']);
    assert.match(of(findings, 'data folder').text, /users\.json/);
  });

  test('reports an unreachable database, and an issuer that publishes no keys', async () => {
    const dataDir = mkdtempSync(path.join(folder, 'data-'));
    const closed = createServer().listen(0, '127.0.0.1');
    await new Promise((resolve) => closed.once('listening', resolve));
    const { port } = closed.address() as AddressInfo;
    await new Promise((resolve) => closed.close(resolve));
    const { code, findings } = await examine({
      dataDir,
      checkpoints,
      databaseUrl: `postgres://u:secret@127.0.0.1:${port}/none`,
      issuers: [{ issuer: `http://127.0.0.1:${port}`, audience: 'imodels' }],
    } as ConfigInput);
    assert.deepEqual([code, of(findings, 'database').state, of(findings, 'tokens').state], [1, 'fault', 'fault']);
    assert.doesNotMatch(JSON.stringify(findings), /secret/);
  });

  test('warns about unencrypted public addresses, and about the embedded issuer there', async () => {
    const { code, findings } = await examine({
      dataDir: path.join(folder, 'new'),
      checkpoints,
      publicUrl: 'http://imodels.example.com',
    });
    assert.deepEqual([code, of(findings, 'address').state, of(findings, 'tokens').state], [0, 'warning', 'warning']);
    assert.ok(findings.filter(({ state }) => state === 'warning').every(({ remedy }) => remedy !== undefined));
  });

  test('reports an isolation level that is not available', async () => {
    const service = createServer(
      (_request, response) =>
        void response.end(JSON.stringify({ status: 'ok', iTwinJs: '5.1.9', isolation: 'process' })),
    );
    await new Promise<void>((resolve) => service.listen(0, '127.0.0.1', resolve));
    try {
      const url = `http://127.0.0.1:${(service.address() as AddressInfo).port}`;
      const asked = async (isolation: 'process' | 'namespaces') =>
        of(
          (
            await examine({
              dataDir: path.join(folder, 'new'),
              checkpoints: { generate: 'here', isolation, service: { url, key: 'k'.repeat(32) } },
            })
          ).findings,
          'iTwin.js',
        ).state;
      assert.deepEqual([await asked('process'), await asked('namespaces')], ['ok', 'fault']);
    } finally {
      service.closeAllConnections();
      service.close();
    }
  });
});
