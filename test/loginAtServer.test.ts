/** `offshoot login` against the sign-in of the server itself. */
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { offshoot } from './support/commands.ts';
import { Installation, people, type TestServer } from './support/server.ts';
import { SignInBrowser, type BrowserPage } from './support/signInBrowser.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const password = 'correct horse battery';

describe('offshoot login at the server itself', () => {
  let installation: Installation;
  let server: TestServer;
  let home: string;

  before(async () => {
    home = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'));
    installation = await Installation.create('sqlite');
    server = await installation.start();
    await server.services.accounts.setPassword(people.olivia.id, password);
  });
  after(async () => {
    await server.close();
    installation.remove();
    rmSync(home, { recursive: true });
  });

  const env = () => ({ XDG_CONFIG_HOME: home, OFFSHOOT_NO_BROWSER: '1' });
  const me = async (): Promise<string> => {
    const { code, stdout, stderr } = await offshoot(['users', 'show', people.olivia.email, '--json'], env());
    return code === 0 ? (JSON.parse(stdout) as { id: string }).id : stderr;
  };

  /** Runs the command while `browse` does what a user does with what it prints. */
  async function login(options: readonly string[], printed: RegExp, browse: (found: string[]) => Promise<void>) {
    const child = spawn(process.execPath, [cli, 'login', '--url', server.origin, ...options], {
      env: { ...process.env, ...env() },
      stdio: ['ignore', 'ignore', 'pipe'],
      cwd: home,
    });
    let text = '';
    const found = new Promise<string[]>((resolve) =>
      child.stderr.on('data', (chunk: Buffer) => {
        text += chunk.toString();
        const match = printed.exec(text);
        if (match !== null) resolve([...match]);
      }),
    );
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    try {
      await browse(await Promise.race([found, ended.then(() => assert.fail(text))]));
      assert.equal(await ended, 0, text);
    } finally {
      child.kill();
    }
  }

  async function signIn(browser: SignInBrowser, page: BrowserPage): Promise<BrowserPage> {
    const consent = await browser.submit(page, { name: people.olivia.email, password });
    assert.match(consent.body, /Allow access\?/);
    return browser.submit(consent);
  }

  test('with a code that the user enters on another device', async () => {
    await login(['--device'], /Open (\S+) and enter the code (\S+)\n/, async ([, address, code]) => {
      const browser = new SignInBrowser();
      const entered = await browser.submit(await browser.open(address ?? ''), { user_code: code ?? '' });
      assert.match((await signIn(browser, await browser.submit(entered))).body, /The device is connected/);
    });
    assert.equal(await me(), people.olivia.id);
    assert.equal((await offshoot(['logout', '--url', server.origin], env())).code, 0);
    assert.notEqual(await me(), people.olivia.id);
  });

  test('in the browser, which returns to the command', async () => {
    await login([], /(http\S+\/auth\/authorize\?\S+)\n/, async ([address]) => {
      const browser = new SignInBrowser();
      const back = await signIn(browser, await browser.open(address ?? ''));
      assert.ok(back.url.startsWith('http://127.0.0.1:'), back.body);
      assert.match(await (await fetch(back.url)).text(), /You are signed in/);
    });
    assert.equal(await me(), people.olivia.id);
  });

  test('says what to do where the server has no sign-in of its own', async () => {
    const { code, stderr } = await offshoot(['login', '--device', '--url', `${server.origin}/elsewhere`], env());
    assert.deepEqual([code, stderr.includes('with --issuer')], [2, true], stderr);
  });
});
