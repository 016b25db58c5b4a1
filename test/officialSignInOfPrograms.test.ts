/** Sign-in with the official packages for programs and desktops. They need other versions of iTwin.js, so they are installed apart. */
import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { cpSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { createServer as createTlsServer, type Server as TlsServer } from 'node:https';
import { createServer, type AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium as browserType } from 'playwright-core';
import { chromium, chromiumFlags } from './support/chromium.ts';
import { freePort } from './support/freePort.ts';
import { isOffline, npm, npmMs, userEnvironment } from './support/packages.ts';
import { Installation, people, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

const password = 'correct horse battery';
const timeoutMs = 60_000;
const skip = chromium === undefined ? 'there is no Chromium here' : false;

/** Installs a package with its program in a folder of its own. @returns undefined if no registry answers */
async function install(folder: string, name: string): Promise<string | undefined> {
  const place = path.join(folder, name);
  cpSync(fileURLToPath(new URL(`./fixtures/signInPackages/${name}`, import.meta.url)), place, { recursive: true });
  try {
    // The scripts would download the binary of Electron and compile keytar; neither is used.
    await npm('npm', ['ci', '--ignore-scripts', '--prefer-offline', '--no-audit', '--no-fund'], place);
    return place;
  } catch (error) {
    if (isOffline(error)) return undefined;
    throw error;
  }
}

/** Signs a user in on the pages that a program has opened, and allows what it asks for. */
async function signIn(address: string): Promise<string> {
  const browser = await browserType.launch({
    executablePath: chromium as string,
    args: chromiumFlags.filter((flag) => flag !== '--headless'),
    timeout: timeoutMs,
  });
  try {
    const page = await (await browser.newContext({ ignoreHTTPSErrors: true })).newPage();
    page.setDefaultTimeout(timeoutMs);
    await page.goto(address);
    await page.fill('input[name=name]', people.olivia.email);
    await page.fill('input[name=password]', password);
    await page.click('form button');
    await page.waitForSelector('text=Allow access?');
    await page.locator('form button').first().click();
    await page.waitForURL('**/signin-callback?**');
    return (await page.textContent('h1')) ?? '';
  } finally {
    await browser.close();
  }
}

/** Runs a program that opens the browser once. @returns what it prints, and the page that the user saw in the end */
async function run<Result>(place: string, args: readonly string[], env: NodeJS.ProcessEnv, openedFile: string) {
  const child = spawn(process.execPath, ['program.cjs', ...args], {
    cwd: place,
    env: { ...userEnvironment(), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 2 * timeoutMs,
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (part: Buffer) => (stdout += part.toString()));
  child.stderr.on('data', (part: Buffer) => (stderr += part.toString()));
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  try {
    const address = await until(
      'the address that the program opens',
      () => {
        assert.equal(child.exitCode, null, stderr);
        const text = existsSync(openedFile) ? readFileSync(openedFile, 'utf8') : '';
        return text === '' ? undefined : text;
      },
      timeoutMs,
    );
    const seen = await signIn(address);
    assert.equal(await ended, 0, stderr);
    // Libraries of the packages print to the same stream before.
    const printed = stdout.trimEnd().split('\n').at(-1) ?? '';
    return { ...(JSON.parse(printed) as Result), seen, address: new URL(address) };
  } finally {
    child.kill();
  }
}

/** A port that a package has as its default. */
function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer()
      .once('error', () => resolve(false))
      .listen(port, () => probe.close(() => resolve(true)));
  });
}

/** Adds TLS in front of a server, as a proxy does. */
function startProxy(folder: string, target: () => string): Promise<TlsServer> {
  const proxy = createTlsServer(
    { key: readFileSync(path.join(folder, 'key.pem')), cert: readFileSync(path.join(folder, 'cert.pem')) },
    (incoming, outgoing) => {
      const { url = '/', method, headers } = incoming;
      const forwarded = request(`${target()}${url}`, { method, headers }, (answer) => {
        outgoing.writeHead(answer.statusCode ?? 502, answer.headers);
        answer.pipe(outgoing);
      });
      forwarded.once('error', () => outgoing.destroy());
      incoming.pipe(forwarded);
    },
  );
  return new Promise((resolve) => proxy.listen(0, '127.0.0.1', () => resolve(proxy)));
}

describe('The official sign-in packages of programs, unmodified', { skip, timeout: npmMs + 4 * timeoutMs }, () => {
  let folder: string;
  const servers: { server: TestServer; installation: Installation }[] = [];
  const proxies: TlsServer[] = [];

  before(() => {
    folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'offshoot-sign-in-')));
  });
  after(async () => {
    for (const proxy of proxies) {
      proxy.close();
      proxy.closeAllConnections();
    }
    for (const { server, installation } of servers) {
      await server.close();
      installation.remove();
    }
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  });

  async function installed(t: TestContext, name: string): Promise<string | undefined> {
    const place = await install(folder, name);
    if (place === undefined) t.skip('no registry answers');
    return place;
  }

  async function start(settings: Parameters<Installation['start']>[0]): Promise<TestServer> {
    const installation = await Installation.create('sqlite');
    const server = await installation.start({ signIn: { tokenMinutes: 5 }, ...settings });
    servers.push({ server, installation });
    await server.services.accounts.setPassword(people.olivia.id, password);
    return server;
  }

  /** Each token is another one, and all are Olivia's. */
  async function assertTokens(server: TestServer, tokens: readonly string[]): Promise<void> {
    assert.equal(new Set(tokens).size, tokens.length);
    for (const token of tokens) {
      const { user } = await server.services.tokens.authenticate(token);
      assert.equal(user.id, people.olivia.id);
    }
  }

  test('node-cli-authorization signs a user in through the browser, and renews the token', async (t) => {
    if (!(await isFree(3000))) return t.skip('port 3000, to which the package returns by default, is in use');
    const place = await installed(t, 'nodeCli');
    if (place === undefined) return;
    const redirectUris = ['http://localhost:3000/signin-callback'];
    const server = await start({ clients: [{ id: 'program', redirectUris }] });
    // The package opens the browser with xdg-open, which asks this variable.
    const openedFile = path.join(folder, 'opened-by-program');
    const opener = path.join(folder, 'opener');
    writeFileSync(
      opener,
      `#!/bin/sh\nprintf %s "$1" > '${openedFile}.new' && mv '${openedFile}.new' '${openedFile}'\n`,
      {
        mode: 0o755,
      },
    );
    const { tokens, seen, address } = await run<{ tokens: string[] }>(
      place,
      [`${server.origin}/auth`, 'program'],
      { BROWSER: opener, DISPLAY: '', WAYLAND_DISPLAY: '', XDG_CURRENT_DESKTOP: '', DESKTOP_SESSION: '' },
      openedFile,
    );
    assert.match(seen, /Sign in was successful/);
    assert.deepEqual(
      [address.searchParams.get('redirect_uri'), address.searchParams.get('code_challenge_method')],
      [redirectUris[0], 'S256'],
    );
    await assertTokens(server, tokens);
  });

  test('electron-authorization signs a user in over https, renews the token after a restart, and revokes it', async (t) => {
    const made = await promisify(execFile)('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2'],
      ...['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost'],
      ...['-keyout', path.join(folder, 'key.pem'), '-out', path.join(folder, 'cert.pem')],
    ]).catch((error: unknown) => error as { code?: string });
    if ('code' in made && made.code === 'ENOENT') return t.skip('there is no openssl here');
    const place = await installed(t, 'electron');
    if (place === undefined) return;
    const proxy = await startProxy(folder, () => servers.at(-1)?.server.origin ?? '');
    proxies.push(proxy);
    const redirectUri = `http://localhost:${await freePort()}/signin-callback`;
    const publicUrl = `https://localhost:${(proxy.address() as AddressInfo).port}`;
    const server = await start({ publicUrl, clients: [{ id: 'desktop', redirectUris: [redirectUri] }] });
    const openedFile = path.join(folder, 'opened-by-desktop');
    const { tokens, ended, address } = await run<{ tokens: string[]; ended: string }>(
      place,
      [`${publicUrl}/auth`, 'desktop', redirectUri, openedFile, folder],
      { NODE_EXTRA_CA_CERTS: path.join(folder, 'cert.pem') },
      openedFile,
    );
    assert.deepEqual([address.origin, address.searchParams.get('prompt')], [publicUrl, null]);
    await assertTokens(server, tokens);
    assert.match(ended, /invalid_grant|Bad Request|400/i);
  });
});
