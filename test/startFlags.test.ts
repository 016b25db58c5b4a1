import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import { startEnvironment, startFlags } from '../apps/server/src/bench/common.ts';

const read = (name: string): string => readFileSync(new URL(`../${name}`, import.meta.url), 'utf8');

test('npm start, the image and the benchmarks start the server with the same options of Node', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: { start: string } };
  assert.equal(scripts.start, `node ${startFlags.join(' ')} apps/server/bin/offshoot.cjs start`);
  const entry = /^ENTRYPOINT (.*)$/m.exec(read('Dockerfile'))?.[1] ?? '[]';
  assert.deepEqual(JSON.parse(entry), ['node', ...startFlags, 'apps/server/bin/offshoot.cjs']);
});

test('the image and the benchmarks start the server with the same settings of glibc', () => {
  const lines = [...read('Dockerfile').matchAll(/^ENV (MALLOC.*)$/gm)].map(([, line]) => line);
  assert.deepEqual(lines, [
    Object.entries(startEnvironment)
      .map(([name, value]) => `${name}=${value}`)
      .join(' '),
  ]);
});
