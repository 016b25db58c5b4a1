import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

/** Runs a benchmark. @returns what it printed, of which stdout must be one JSON object */
async function bench(...args: string[]): Promise<{ result: Record<string, unknown>; errorOutput: string }> {
  const main = fileURLToPath(new URL('../bench/main.ts', import.meta.url));
  const child = spawn(process.execPath, [main, ...args, '--json'], {
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 120_000,
  });
  let [output, errorOutput] = ['', ''];
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (errorOutput += text.toString()));
  const code = await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  assert.equal(code, 0, errorOutput);
  return { result: JSON.parse(output) as Record<string, unknown>, errorOutput };
}

const isFigure = (value: unknown): boolean => typeof value === 'number' && Number.isFinite(value) && value > 0;

test('the quick comparison with other tools prints one object with every promised figure', async () => {
  const { result, errorOutput } = await bench(
    ...['peers', '--quick', '--seconds', '0.05', '--rounds', '1', '--megabytes', '2'],
  );
  assert.deepEqual(Object.keys(result), ['machine', 'ratios', 'clonesPerSecond', 'coldStartMs', 'idleRssMiB']);
  const ratios = result['ratios'] as Record<string, unknown>;
  assert.deepEqual(Object.keys(ratios), [
    'getVsBare',
    'downloadVsNginx',
    'uploadVsNginx',
    'cloneVsClientCopy',
    'cloneVsGitShared',
  ]);
  // A comparison with a tool that is not installed is null, with a word on stderr.
  const absent = (name: string): boolean => new RegExp(`${name} (is not installed|does not start)`).test(errorOutput);
  for (const [name, value] of Object.entries(ratios))
    assert.ok(
      isFigure(value) ||
        (value === null && ((name.includes('Nginx') && absent('nginx')) || (name.includes('Git') && absent('git')))),
      `${name} is ${String(value)}: ${errorOutput}`,
    );
  const clonesPerSecond = result['clonesPerSecond'] as Record<string, unknown>;
  assert.deepEqual(Object.keys(clonesPerSecond), ['1', '8', '50']);
  assert.ok(Object.values(clonesPerSecond).every(isFigure), JSON.stringify(clonesPerSecond));
  assert.ok(isFigure(result['coldStartMs']));
  if (process.platform === 'linux') assert.ok(isFigure(result['idleRssMiB']));
});
