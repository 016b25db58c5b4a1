/** `offshoot login` and `logout` against an issuer with sign-in by browser and by device code. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { offshoot } from './support/commands.ts';
import { startOidcIssuer, type OidcIssuer } from './support/oidcIssuer.ts';
import { bootServer, endServer, type TestServer } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

describe('offshoot login', () => {
  let tokens: OidcIssuer;
  let signIn: Server;
  let issuer: string;
  let server: TestServer;
  let home: string;
  let refreshTokens: Set<string>;
  const expiresIn = 3600;
  const challenges = new Map<string, string>();
  let devicePolls = 0;
  const revoked: string[] = [];

  before(async () => {
    tokens = await startOidcIssuer();
    refreshTokens = new Set();
    home = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
    signIn = createServer((request, response) => {
      const chunks: Buffer[] = [];
      request.on('data', (chunk: Buffer) => chunks.push(chunk));
      request.on('end', () => void answer(request.url ?? '', new URLSearchParams(Buffer.concat(chunks).toString())));
      const json = (status: number, body: object) =>
        response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
      const grant = async () => {
        const refreshToken = randomUUID();
        refreshTokens.add(refreshToken);
        const accessToken = await tokens.token({ sub: 'cli-user', org: 'works', client_id: 'cli' });
        json(200, {
          access_token: accessToken,
          expires_in: expiresIn,
          refresh_token: refreshToken,
          token_type: 'Bearer',
        });
      };
      const answer = async (url: string, form: URLSearchParams): Promise<void> => {
        const { pathname, searchParams } = new URL(url, issuer);
        if (pathname === '/.well-known/openid-configuration')
          return void json(200, {
            issuer,
            token_endpoint: `${issuer}/token`,
            authorization_endpoint: `${issuer}/auth`,
            device_authorization_endpoint: `${issuer}/device`,
            revocation_endpoint: `${issuer}/revoke`,
          });
        if (pathname === '/auth') {
          const code = randomUUID();
          challenges.set(code, searchParams.get('code_challenge') ?? '');
          const back = new URL(searchParams.get('redirect_uri') ?? '');
          back.searchParams.set('code', code);
          back.searchParams.set('state', searchParams.get('state') ?? '');
          return void response.writeHead(302, { location: back.href }).end();
        }
        if (pathname === '/device')
          return void json(200, {
            device_code: 'dev',
            user_code: 'ABCD-EFGH',
            verification_uri: `${issuer}/device-page`,
            expires_in: 60,
            interval: 0.05,
          });
        if (pathname === '/revoke') {
          revoked.push(form.get('token') ?? '');
          return void json(200, {});
        }
        const type = form.get('grant_type');
        if (type === 'refresh_token')
          // Each is accepted once.
          return refreshTokens.delete(form.get('refresh_token') ?? '')
            ? grant()
            : void json(400, { error: 'invalid_grant' });
        if (type === 'authorization_code') {
          const challenge = createHash('sha256')
            .update(form.get('code_verifier') ?? '')
            .digest('base64url');
          return challenges.get(form.get('code') ?? '') === challenge
            ? grant()
            : void json(400, { error: 'invalid_grant' });
        }
        return ++devicePolls < 3 ? void json(400, { error: 'authorization_pending' }) : grant();
      };
    });
    await new Promise<void>((resolve) => signIn.listen(0, '127.0.0.1', resolve));
    issuer = `http://127.0.0.1:${(signIn.address() as AddressInfo).port}`;
    server = await bootServer('sqlite', { issuers: [tokens.settings] });
  });
  after(async () => {
    await endServer(server);
    tokens.close();
    signIn.closeAllConnections();
    signIn.close();
    rmSync(home, { recursive: true });
  });

  const env = () => ({ XDG_CONFIG_HOME: home, OFFSHOOT_NO_BROWSER: '1' });
  const run = (...args: string[]) => offshoot(args, env(), { cwd: home });
  const list = () => run('imodels', '--url', server.origin);
  const fileOf = (): string => {
    const folder = path.join(home, 'offshoot', 'logins');
    const [name, ...others] = readdirSync(folder);
    assert.ok(name?.endsWith('.json') === true && others.length === 0, 'one file');
    return path.join(folder, name);
  };

  test('with a code keeps the login for the server, readable by the user alone, and commands use it', async () => {
    assert.notEqual((await list()).code, 0);
    const { code, stderr } = await run('login', '--device', '--url', server.origin, '--issuer', issuer);
    assert.equal(code, 0, stderr);
    assert.match(stderr, /device-page and enter the code ABCD-EFGH/);
    assert.equal(statSync(fileOf()).mode & 0o777, 0o600);
    const listed = await list();
    assert.equal(listed.code, 0, listed.stderr);
    assert.equal((await run('imodels')).code, 0, 'the server of the login is the default');
    // A token of one server is not sent to another one, nor to another port.
    assert.notEqual((await run('imodels', '--url', 'http://127.0.0.1:1')).code, 0);
  });

  test('is renewed once, also by several commands at a time, and says so when it has ended', async () => {
    const stored = JSON.parse(readFileSync(fileOf(), 'utf8')) as { expiresAt: number; refreshToken: string };
    writeFileSync(fileOf(), JSON.stringify({ ...stored, accessToken: 'old', expiresAt: 0 }));
    const results = await Promise.all([list(), list(), list()]);
    for (const { code, stderr } of results) assert.equal(code, 0, stderr);
    refreshTokens.clear();
    const renewed = JSON.parse(readFileSync(fileOf(), 'utf8')) as object;
    writeFileSync(fileOf(), JSON.stringify({ ...renewed, expiresAt: 0 }));
    const ended = await list();
    assert.match(ended.stderr, /did not renew it \(invalid_grant\)\. Run offshoot login/);
  });

  test('in the browser uses PKCE and a redirect to this machine; logout removes and revokes it', async () => {
    const child = spawn(process.execPath, [cli, 'login', '--url', server.origin, '--issuer', issuer], {
      env: { ...process.env, ...env() },
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: home,
    });
    let text = '';
    const page = new Promise<string>((resolve) =>
      child.stderr.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        const [found] = /http:\S+\/auth\?\S+/.exec(text) ?? [];
        if (found !== undefined) resolve(found);
      }),
    );
    const closed = new Promise((resolve) => child.on('close', resolve));
    const address = new URL(await page);
    const forged = new URL(address.searchParams.get('redirect_uri') ?? '');
    forged.search = '?code=stolen&state=guessed';
    assert.equal((await fetch(forged)).status, 404);
    assert.match(await (await fetch(address)).text(), /You are signed in/);
    assert.equal(await closed, 0, text);
    assert.equal((await list()).code, 0);
    const { refreshToken } = JSON.parse(readFileSync(fileOf(), 'utf8')) as { refreshToken: string };
    const { code, stderr } = await run('logout', '--url', server.origin);
    assert.equal(code, 0, stderr);
    assert.deepEqual([revoked, readdirSync(path.join(home, 'offshoot', 'logins'))], [[refreshToken], []]);
    assert.notEqual((await list()).code, 0);
  });
});
