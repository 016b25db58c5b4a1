/**
 * Runs the tests: starts PostgreSQL, an S3 server and Azurite for them, then Node's test runner over all test files or those named.
 * `npm test`, or `npm test -- test/clone.test.ts`. Options that begin with `--` go to the test runner.
 */
import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { startPostgres } from '../test/support/postgres.ts';
import { startAzurite, startS3 } from '../test/support/stores.ts';

const named = process.argv.slice(2);
const files = named.some((argument) => !argument.startsWith('--')) ? [] : globSync('test/**/*.test.ts').sort();
const [postgres, s3, azurite] = await Promise.all([startPostgres(), startS3(), startAzurite()]);
let code = 1;
try {
  const runner = spawn(process.execPath, ['--test', '--test-concurrency=2', '--test-timeout=300000', ...named, ...files], {
    stdio: 'inherit',
    env: { ...process.env, OFFSHOOT_TEST_POSTGRES: postgres.url, OFFSHOOT_TEST_S3: s3.address, OFFSHOOT_TEST_AZURE: azurite.address },
  });
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => runner.kill(signal));
  code = await new Promise<number>((resolve) => runner.once('exit', (status) => resolve(status ?? 1)));
} finally {
  await Promise.all([postgres, s3, azurite].map((service) => service.stop()));
}
process.exitCode = code;
