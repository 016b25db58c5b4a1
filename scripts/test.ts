/**
 * `npm test`, or `npm test -- test/clone.test.ts`: starts PostgreSQL, an S3 server and Azurite, then runs Node's test
 * runner on all test files or the given ones. Arguments that start with `--` are passed to the test runner.
 */
import { execFileSync, spawn } from 'node:child_process';
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import path from 'node:path';
import { loadConfig } from '../apps/server/src/config.ts';
import { openDatabase } from '../apps/server/src/db/database.ts';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { chromium } from '../test/support/chromium.ts';
import { compatibilityTable, tableFile } from '../test/support/compatibility.ts';
import { createPostgresDatabase, startPostgres } from '../test/support/postgres.ts';
import { startAll, stopAll } from '../test/support/services.ts';
import { startAzurite, startS3 } from '../test/support/stores.ts';

/** Timeout for the whole run, milliseconds. A run took 45 minutes on two cores of a slow machine. */
const runMs = 60 * 60_000;
/** Timeout for building the console, milliseconds; it takes 5 s. */
const buildMs = 120_000;
/** Test files at once. Three on two cores took 6 % more processor time and 4 % longer than two; PostgreSQL takes 200 connections. */
const atOnce = Math.min(4, Math.max(2, availableParallelism()));
const openHandles = new URL('../test/support/openHandles.ts', import.meta.url).href;

/** Variables of the tests themselves. Others of the product, such as a developer's token, would change what is tested. */
const ofTests = /^OFFSHOOT_(?:TEST|FUZZ|CHAOS|WRITE)_/;
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^OFFSHOOT_/i.test(name) || ofTests.test(name)),
);
const given = process.argv.slice(2);
const stores = ['files', 's3', 'azure'];
const on = given.findLast((argument) => argument.startsWith('--on='))?.slice('--on='.length);
if (on !== undefined && !stores.includes(on)) {
  console.error(`--on takes one of ${stores.join(', ')}; not ${on}`);
  process.exit(1);
}
const named = given.filter((argument) => !argument.startsWith('--on='));
const files = named.some((argument) => !argument.startsWith('--')) ? [] : globSync('test/**/*.test.ts').sort();
// A signal that arrives during startup is handled after startup, when all services to stop are known.
let received: NodeJS.Signals | undefined;
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => (received ??= signal));
const services = await startAll(() => startPostgres({ forMany: true }), startS3, startAzurite);
const [postgres, s3, azurite] = services;
const coverage = mkdtempSync(path.join(tmpdir(), 'offshoot-coverage-'));
const built = mkdtempSync(path.join(tmpdir(), 'offshoot-console-'));
const migrated = mkdtempSync(path.join(tmpdir(), 'offshoot-migrated-'));
const compiled = mkdtempSync(path.join(tmpdir(), 'offshoot-compiled-'));
const template = 'migrated';
let code = 1;
try {
  // Once for all suites in a browser, each of which would take 5 s for it.
  const inBrowser = chromium !== undefined && [...named, ...files].some((file) => file.includes('console/'));
  if (inBrowser)
    execFileSync(process.execPath, ['scripts/console.ts', '--output', built], { stdio: 'inherit', timeout: buildMs });
  const databaseUrl = await createPostgresDatabase(postgres.url, { name: template });
  for (const where of [{ dataDir: migrated }, { dataDir: migrated, databaseUrl }])
    await (await openDatabase(loadConfig(where, { env: {} }))).close();
  if (received !== undefined) throw new Error(`ended by ${received}`);
  const runner = spawn(
    process.execPath,
    ['--test', `--test-concurrency=${atOnce}`, '--test-timeout=300000', `--import=${openHandles}`, ...named, ...files],
    {
      stdio: 'inherit',
      env: {
        ...environment,
        OFFSHOOT_TEST_POSTGRES: postgres.url,
        OFFSHOOT_TEST_POSTGRES_TEMPLATE: template,
        OFFSHOOT_TEST_SQLITE: migrated,
        OFFSHOOT_TEST_S3: s3.address,
        OFFSHOOT_TEST_AZURE: azurite.address,
        OFFSHOOT_TEST_COVERAGE: coverage,
        // Each of the 160 processes would compile the same modules. Coverage needs them compiled without the cache.
        ...(process.env['NODE_V8_COVERAGE'] === undefined && { NODE_COMPILE_CACHE: compiled }),
        ...(inBrowser && { OFFSHOOT_TEST_CONSOLE: built }),
        ...(on !== undefined && { OFFSHOOT_TEST_ON: on }),
      },
    },
  );
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => runner.kill(signal));
  const late = setTimeout(() => {
    console.error(`The tests did not end within ${runMs / 60_000} minutes.`);
    // On SIGTERM the test runner reports which files were still running.
    runner.kill('SIGTERM');
  }, runMs);
  code = await new Promise<number>((resolve) => runner.once('exit', (status) => resolve(status ?? 1)));
  clearTimeout(late);
  if (code === 0 && files.length > 0 && on === undefined && isITwinJsInstalled()) code = checkCompatibility();
} finally {
  for (const folder of [coverage, built, migrated, compiled]) rmSync(folder, { recursive: true, force: true });
  await stopAll(services);
}
process.exitCode = code;

/** Checks that the compatibility page equals the one this run would write. @returns the exit code */
function checkCompatibility(): number {
  const table = compatibilityTable(coverage);
  if (process.env['OFFSHOOT_WRITE_COMPATIBILITY'] !== undefined) writeFileSync(tableFile, table);
  const written = readFileSync(tableFile, 'utf8');
  if (written === table) return 0;
  const [before, now] = [written.split('\n'), table.split('\n')];
  for (const line of before.filter((each) => !now.includes(each))) console.error(`- ${line}`);
  for (const line of now.filter((each) => !before.includes(each))) console.error(`+ ${line}`);
  console.error('docs/compatibility.md is not what this run would write: npm run compatibility');
  return 1;
}
