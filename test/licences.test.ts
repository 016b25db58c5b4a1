import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { test } from 'node:test';
import { verdictOf } from '../scripts/audit.ts';
import { licencesDocument, licencesFile, productionPackages } from './support/licences.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
/** Longest time for npm to write a bill of materials, milliseconds; it takes a second. */
const billMs = 120_000;

/** Licences under which anybody may run and pass on the server; LGPL, because sharp loads libvips as a library of its own. */
const accepted = [
  '0BSD',
  'Apache-2.0',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'ISC',
  'LGPL-3.0-or-later',
  'MIT',
  'Unlicense',
];
/** Licences of their own, which somebody has read: docs/licences.md says what they ask for. */
const read = ['@bentley/imodeljs-native', 'flatbuffers'];

test('docs/licences.md lists every production package with the licence from the lock file', () => {
  if (process.env['OFFSHOOT_WRITE_LICENCES'] !== undefined) writeFileSync(licencesFile, licencesDocument());
  assert.ok(
    readFileSync(licencesFile, 'utf8') === licencesDocument(),
    'docs/licences.md is not what the lock file says: npm run licences',
  );
});

test('every licence of a production package is on the accepted list or was reviewed', () => {
  for (const { name, version, licence } of productionPackages()) {
    if (licence.startsWith('SEE LICENSE'))
      assert.ok(read.includes(name), `${name}@${version} has a licence of its own, which nobody has read: ${licence}`);
    else
      for (const each of licence.replace(/[()]/g, '').split(/ (?:OR|AND) /))
        assert.ok(accepted.includes(each), `${name}@${version}: ${licence}`);
  }
});

test(
  'README and docs/licences.md quote the condition for running the native library',
  { skip: !existsSync(`${root}node_modules/@bentley/imodeljs-native`) && 'iTwin.js is not installed' },
  () => {
    const plain = (text: string): string =>
      text
        .replace(/\[([^\]]*)\]\([^)]*\)/g, '$1')
        .replace(/[*>]/g, '')
        .replace(/\s+/g, ' ');
    const licence = plain(readFileSync(`${root}node_modules/@bentley/imodeljs-native/LICENSE.md`, 'utf8'));
    const condition =
      /for all other iModels, you and the program .*? to grant such permission\./.exec(licence)?.[0] ??
      assert.fail('the licence has other words now: read it');
    for (const file of ['README.md', 'docs/licences.md'])
      assert.ok(
        plain(readFileSync(`${root}${file}`, 'utf8')).includes(condition.slice(0, -1)),
        `${file} does not quote: ${condition}`,
      );
  },
);

test('npm writes a CycloneDX bill of materials from the lock file, with every package, its licence and its hash', async () => {
  const { stdout } = await promisify(execFile)('npm', ['run', '--silent', 'sbom'], {
    cwd: root,
    timeout: billMs,
    maxBuffer: 64 * 1024 * 1024,
  });
  const bill = JSON.parse(stdout) as {
    bomFormat: string;
    components: { name: string; group?: string; purl: string; licenses?: unknown[]; hashes?: { alg: string }[] }[];
  };
  assert.equal(bill.bomFormat, 'CycloneDX');
  const components = new Map(
    bill.components.map((component) => [decodeURIComponent(component.purl.replace('pkg:npm/', '')), component]),
  );
  for (const { name, version } of productionPackages()) {
    const component = components.get(`${name}@${version}`) ?? assert.fail(`${name}@${version} is missing`);
    assert.equal(component.hashes?.[0]?.alg, 'SHA-512', `${name}@${version}`);
    // npm leaves those out that have no SPDX name.
    assert.ok((component.licenses?.length ?? 0) > 0 || read.includes(name), `${name}@${version} has no licence`);
  }
});

test('an audit fails for high and critical vulnerabilities, and passes where no registry answers', () => {
  const report = (severity: string): string =>
    JSON.stringify({
      auditReportVersion: 2,
      vulnerabilities: { leaky: { severity, range: '<2.0.0', fixAvailable: true } },
      metadata: {},
    });
  assert.deepEqual(
    ['moderate', 'high', 'critical'].map((severity) => verdictOf(report(severity)).failed),
    [false, true, true],
  );
  assert.ok(verdictOf(report('high')).lines.some((line) => line.includes('leaky')));
  assert.deepEqual(verdictOf(JSON.stringify({ auditReportVersion: 2, vulnerabilities: {} })).answered, true);
  for (const text of [
    '',
    '<html>',
    JSON.stringify({ message: '405 Method Not Allowed', statusCode: 405, error: { summary: '', detail: '' } }),
  ]) {
    const { answered, failed } = verdictOf(text);
    assert.deepEqual([answered, failed], [false, false]);
  }
});
