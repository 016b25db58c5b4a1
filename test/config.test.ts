import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ConfigError, loadConfig } from '../apps/server/src/config.ts';
import { workFolder } from './support/clients.ts';

/** The errors for which a configuration is refused. */
function faultsOf(load: () => unknown): readonly string[] {
  try {
    load();
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

test('the documented defaults apply without any setting', () => {
  const config = loadConfig({}, { env: {} });
  assert.deepEqual(
    [config.host, config.port, config.databaseUrl, config.dataCenter, config.embeddedIssuer],
    ['localhost', 4700, undefined, 'East US', true],
  );
  assert.equal(config.dataDir, path.resolve('offshoot-data'));
  const clones = Object.fromEntries(
    Object.entries(config.tiers).map(([tier, { operations }]) => [tier, operations['clone-imodel']?.requests]),
  );
  assert.deepEqual(clones, { Trial: 5, Basic: 20, Premium: 20, Enterprise: 20 });
});

test('all errors of a configuration are reported together, each with its path', () => {
  const work = workFolder();
  try {
    const file = path.join(work.path, 'offshoot.json');
    writeFileSync(
      file,
      JSON.stringify({
        port: 'eighty',
        colour: 'red',
        tiers: { Trial: { general: [{ requests: 0, seconds: 60 }], operations: {} } },
        issuers: [{ issuer: 'https://a.example' }],
        publicUrl: 'ftp://x',
        logLevel: 'loud',
        store: { type: 'tape' },
      }),
    );
    const faults = faultsOf(() => loadConfig({}, { file, env: { OFFSHOOT_PORT: 'x', OFFSHOOT_TRUST_PROXY: 'maybe' } }));
    for (const expected of [
      /OFFSHOOT_PORT/,
      /OFFSHOOT_TRUST_PROXY/,
      /^port /,
      /no setting 'colour'/,
      /tiers\.Trial\.general\.0\.requests/,
      /issuers\.0 .*audience/,
      /^publicUrl/,
      /^logLevel must be one of .*\bwarn\b/,
      /^store\.type must be one of files, s3, azure$/,
    ])
      assert.ok(
        faults.some((fault) => expected.test(fault)),
        `${expected.source} is not in ${faults.join(' | ')}`,
      );
  } finally {
    work.remove();
  }
});

test('contradictory settings are refused', () => {
  assert.match(
    faultsOf(() => loadConfig({ collector: { intervalSeconds: 60, graceSeconds: 100 } }, { env: {} })).join(),
    /longer than signedLinkSeconds/,
  );
  assert.match(faultsOf(() => loadConfig({ defaultTier: 'Gold' }, { env: {} })).join(), /Gold/);
  assert.match(
    faultsOf(() => loadConfig({ port: 4800, metrics: true, metricsPort: 4800 }, { env: {} })).join(),
    /metricsPort/,
  );
  assert.match(faultsOf(() => loadConfig({ metricsPort: 4801 }, { env: {} })).join(), /metrics is false/);
  assert.match(faultsOf(() => loadConfig({ embeddedIssuer: false }, { env: {} })).join(), /no issuer/);
});

test('a setting of several kinds has one fault, which names them all or says what is wrong inside', () => {
  const faults = (trustProxy: unknown) => faultsOf(() => loadConfig({ trustProxy } as never, { env: {} }));
  assert.deepEqual(faults(3), ['trustProxy must be boolean or array']);
  assert.deepEqual(faults(['10.0.0.0/8', 3]), ['trustProxy.1 must be string']);
});

test('the secret of an Azure store can be set in the environment', () => {
  const azure = { type: 'azure' as const, container: 'imodels' };
  const input = { store: azure, dataCenters: { West: { ...azure, name: 'west', connectionString: 'of its own' } } };
  assert.match(faultsOf(() => loadConfig(input, { env: {} })).join(), /store\.connectionString is missing/);
  const config = loadConfig(input, { env: { AZURE_STORAGE_CONNECTION_STRING: 'from outside' } });
  assert.deepEqual(
    [config.store.connectionString, config.dataCenters['West']?.connectionString],
    ['from outside', 'of its own'],
  );
});

test('the command line overrides the environment, which overrides the file', () => {
  const work = workFolder();
  try {
    const file = path.join(work.path, 'offshoot.json');
    writeFileSync(file, JSON.stringify({ port: 1, host: 'file', dataCenter: 'North Europe' }));
    const config = loadConfig({ port: 3 }, { file, env: { OFFSHOOT_PORT: '2', OFFSHOOT_HOST: 'environment' } });
    assert.deepEqual([config.port, config.host, config.dataCenter], [3, 'environment', 'North Europe']);
  } finally {
    work.remove();
  }
});

test('a named configuration file must exist and be JSON', () => {
  assert.match(
    faultsOf(() => loadConfig({}, { file: 'no/such/file.json', env: {} })).join(),
    /^cannot read \S+\/no\/such\/file\.json: it does not exist$/,
  );
  const work = workFolder();
  try {
    const file = path.join(work.path, 'bad.json');
    writeFileSync(file, '{ "port": ');
    assert.match(faultsOf(() => loadConfig({}, { file, env: {} })).join(), /not valid JSON/);
  } finally {
    work.remove();
  }
});

test('a setting is accepted by its earlier name with a warning, but not together with its current name', async () => {
  const transfers = { fruitlessAttempts: 3 } as never;
  const config = loadConfig({ transfers }, { env: {} });
  const [warning] = (await once(process, 'warning')) as [Error];
  assert.equal(config.transfers.attemptsWithoutProgress, 3);
  assert.match(warning.message, /transfers\.fruitlessAttempts is now transfers\.attemptsWithoutProgress/);
  const both = { fruitlessAttempts: 3, attemptsWithoutProgress: 4 } as never;
  assert.match(faultsOf(() => loadConfig({ transfers: both }, { env: {} })).join(), /use one/);
});
