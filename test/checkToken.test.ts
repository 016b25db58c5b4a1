/** `offshoot check-token`: why a token is accepted or refused, from the configuration and the keys of the issuer alone. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { generateKeyPair } from 'jose';
import type { TokenExplanation } from '../apps/server/src/access/explainToken.ts';
import { offshoot } from './support/commands.ts';
import { startOidcIssuer, type OidcIssuer } from './support/oidcIssuer.ts';
import { Installation } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

describe('offshoot check-token', () => {
  let issuer: OidcIssuer;
  let folder: string;
  let config: string;

  before(async () => {
    issuer = await startOidcIssuer();
    folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
    config = path.join(folder, 'offshoot.json');
    const settings = {
      ...issuer.settings,
      audience: ['offshoot', 'plant'],
      rolesClaims: ['realm_access.roles'],
      administratorRoles: ['boss'],
      tierRoles: { fast: 'Premium' },
    };
    writeFileSync(
      config,
      JSON.stringify({ dataDir: path.join(folder, 'data'), embeddedIssuer: false, issuers: [settings] }),
    );
  });
  after(() => {
    issuer.close();
    rmSync(folder, { recursive: true });
  });

  const claims = { sub: 'ada', aud: 'plant', org: 'works', realm_access: { roles: ['boss', 'fast'] } };
  const explained = async (token: string): Promise<TokenExplanation & { code: number }> => {
    const { code, stdout, stderr } = await offshoot(['check-token', token, '--config', config, '--json']);
    assert.ok(!`${stdout}${stderr}`.includes(token), 'the token is printed');
    return { ...(JSON.parse(stdout) as TokenExplanation), code };
  };

  test('shows who an accepted token stands for, before any server has started', async () => {
    const { code, verdict, faults, user } = await explained(await issuer.token(claims));
    assert.deepEqual([code, verdict, faults], [0, 'accepted', []]);
    assert.deepEqual(user, {
      user: '"ada"',
      'e-mail': 'none that is verified',
      'users file': 'no entry',
      organizations: '"works"',
      administers: '"works"',
      application: '"spa", tier Premium',
    });
    assert.ok(!existsSync(path.join(folder, 'data')), 'it created the data folder');
  });

  test('lists every fault of a refused token with its remedy, in words', async () => {
    const token = await issuer.token({
      ...claims,
      aud: 'account',
      scope: 'openid',
      exp: Math.floor(Date.now() / 1000) - 3700,
    });
    const { code, verdict, faults, user } = await explained(token);
    assert.deepEqual([code, verdict, user], [1, 'refused', undefined]);
    assert.deepEqual(faults.map(({ reason }) => reason).sort(), ['audience', 'expired', 'scope']);
    const { stdout, stderr, code: textCode } = await offshoot(['check-token', token, '--config', config]);
    assert.equal(textCode, 1);
    assert.match(stdout, /^The token is refused\.$/m);
    assert.match(stdout, /audience: its audience is "account"; wanted is "offshoot", "plant"\.\n {2}Request the token/);
    assert.match(stdout, /expired: it expired 1 hour ago/);
    assert.match(stdout, /scope: its scope is "openid"; wanted is "itwin-platform"/);
    assert.match(stderr, /the token is refused/);
  });

  test('tells a forged signature, an unknown issuer and text that is no token apart', async () => {
    const { privateKey } = await generateKeyPair('ES256');
    const reasonOf = async (token: string) => (await explained(token)).faults.map(({ reason }) => reason).join();
    assert.equal(await reasonOf(await issuer.token(claims, { key: privateKey })), 'badSignature');
    assert.equal(await reasonOf(await issuer.token(claims, { header: { kid: 'other' } })), 'keyUnknown');
    assert.equal(await reasonOf(await issuer.token({ ...claims, iss: 'https://other.example' })), 'issuerUnknown');
    assert.equal(await reasonOf('opaque-token'), 'malformed');
  });

  test('says that a signature is not verified if the issuer cannot be reached, and still finds other faults', async () => {
    issuer.broken = true;
    try {
      const good = await explained(await issuer.token(claims));
      assert.deepEqual([good.code, good.verdict, good.faults[0]?.reason], [1, 'unknown', 'keys']);
      const bad = await explained(await issuer.token({ ...claims, aud: 'x' }));
      assert.deepEqual([bad.verdict, bad.faults.map(({ reason }) => reason)], ['refused', ['audience', 'keys']]);
    } finally {
      issuer.broken = false;
    }
  });

  test('reads a token from standard input, as printed by offshoot token', async (t) => {
    const installation = await Installation.create('sqlite');
    t.after(() => installation.remove());
    const server = await installation.start();
    const token = await server.token('admin', 'enterprise-app');
    await server.close();
    const child = spawn(process.execPath, [cli, 'check-token', '-', '--data', installation.dataDir, '--json'], {
      env: { PATH: process.env['PATH'], HOME: process.env['HOME'] },
      stdio: ['pipe', 'pipe', 'inherit'],
      cwd: folder,
    });
    child.stdin.end(`${token}\n`);
    let output = '';
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()));
    const code = await new Promise((resolve) => child.on('close', resolve));
    // The configuration in this folder trusts another issuer only, so the token is refused there.
    assert.deepEqual([code, (JSON.parse(output) as TokenExplanation).faults[0]?.reason], [1, 'issuerUnknown']);
    const unknown = await offshoot([
      'check-token',
      `${token.slice(0, -8)}${randomUUID().slice(0, 8)}`,
      '--data',
      installation.dataDir,
      '--json',
    ]);
    assert.equal((JSON.parse(unknown.stdout) as TokenExplanation).faults[0]?.reason, 'badSignature');
    const accepted = await offshoot(['check-token', token, '--data', installation.dataDir, '--json']);
    assert.deepEqual([accepted.code, (JSON.parse(accepted.stdout) as TokenExplanation).verdict], [0, 'accepted']);
  });
});
