import { createRequire } from 'node:module';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { spawn } from 'node:child_process';
import { freePort } from './freePort.ts';

/** An object store for one test run. */
export interface TestService {
  /** The value of `OFFSHOOT_TEST_S3` or `OFFSHOOT_TEST_AZURE`. */
  address: string;
  stop(): Promise<void>;
}

/** Default account name and key of every Azurite; no secret. */
const account = 'devstoreaccount1';
const accountKey = 'Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==';
const startWithinMs = 120_000;

/** Connection string of an Azurite. */
export function azuriteConnection(address: string): string {
  return `DefaultEndpointsProtocol=http;AccountName=${account};AccountKey=${accountKey};BlobEndpoint=${address}/${account};`;
}

/** Starts Azurite's blob service on a free port, in a temporary folder. */
export async function startAzurite(): Promise<TestService> {
  const program = createRequire(import.meta.url).resolve('azurite/dist/src/blob/main.js');
  return start('Azurite', (folder, port) => [
    program,
    '--blobHost',
    '127.0.0.1',
    '--blobPort',
    String(port),
    '--location',
    folder,
    '--silent',
    '--skipApiVersionCheck',
    '--disableTelemetry',
  ]);
}

/** Starts an S3 server with one bucket, `offshoot`. */
export async function startS3(): Promise<TestService> {
  const program = createRequire(import.meta.url).resolve('s3rver/bin/s3rver.js');
  return start('s3rver', (folder, port) => [
    program,
    '--address',
    '127.0.0.1',
    '--port',
    String(port),
    '--directory',
    folder,
    '--silent',
    '--configure-bucket',
    'offshoot',
  ]);
}

async function start(what: string, command: (folder: string, port: number) => string[]): Promise<TestService> {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-store-'));
  const port = await freePort();
  const child = spawn(process.execPath, command(folder, port), { stdio: ['ignore', 'ignore', 'pipe'] });
  let errorOutput = '';
  child.stderr.on('data', (text: Buffer) => (errorOutput = `${errorOutput}${text.toString()}`.slice(-2000)));
  const stop = async (): Promise<void> => {
    if (child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await ended;
    }
    rmSync(folder, { recursive: true, force: true });
  };
  const address = `http://127.0.0.1:${port}`;
  const until = Date.now() + startWithinMs;
  for (;;) {
    // Any answer shows that it listens.
    if (
      await fetch(address).then(
        () => true,
        () => false,
      )
    )
      return { address, stop };
    if (child.exitCode !== null || Date.now() > until) {
      await stop();
      throw new Error(`${what} does not start: ${errorOutput}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
