/** The pages of sign-in that no application takes part in, and their languages. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { bootServer, endServer, people } from './support/server.ts';
import { SignInBrowser } from './support/signInBrowser.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

/** The page that `offshoot login` opens. */
function signInAddress(authority: string): string {
  const parameters = new URLSearchParams({
    client_id: 'offshoot-cli',
    redirect_uri: 'http://127.0.0.1:4999/callback',
    response_type: 'code',
    scope: 'openid itwin-platform',
    code_challenge: createHash('sha256').update('a'.repeat(43)).digest('base64url'),
    code_challenge_method: 'S256',
  });
  return `${authority}/authorize?${parameters.toString()}`;
}

describe('The pages of sign-in', () => {
  test('the link in the banner of a new installation makes its first administrator, once', async () => {
    const data = mkdtempSync(path.join(tmpdir(), 'offshoot-first-'));
    const child = spawn(process.execPath, [cli, 'start', '--data', data, '--port', '0', '--host', '127.0.0.1'], {
      env: { ...process.env, OFFSHOOT_LOG_LEVEL: 'error' },
      cwd: data,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const ended = new Promise<void>((resolve) => child.once('close', () => resolve()));
    try {
      let printed = '';
      const link = await new Promise<string>((resolve, reject) => {
        const read = (part: Buffer) => {
          printed += part.toString();
          const [, found] = /^ *Sign-in +(\S+\?link=\S+)/m.exec(printed) ?? [];
          if (found !== undefined) resolve(found);
        };
        child.stdout.on('data', read);
        child.stderr.on('data', read);
        void ended.then(() => reject(new Error(printed)));
      });
      const browser = new SignInBrowser();
      const form = await browser.open(link);
      assert.equal(form.status, 200);
      assert.match(form.body, /Create the first account/);
      const account = { givenName: 'Ada', surname: 'Lovelace', email: 'ada@example.test' };
      const short = await browser.submit(form, { ...account, password: 'short', repeated: 'short' });
      assert.equal(short.status, 422);
      const password = 'a long password';
      const done = await browser.submit(short, { ...account, password, repeated: password });
      assert.match(done.body, /Your password is set/);
      assert.equal((await browser.open(link)).status, 410);

      const { users } = JSON.parse(readFileSync(path.join(data, 'users.json'), 'utf8')) as {
        users: { email: string; givenName: string; organizationAdministrator: unknown }[];
      };
      assert.deepEqual(
        users.map(({ email, givenName, organizationAdministrator }) => [email, givenName, organizationAdministrator]),
        [[account.email, account.givenName, true]],
      );
      const authority = link.slice(0, link.indexOf('/password?'));
      const signIn = await browser.open(signInAddress(authority));
      assert.match((await browser.submit(signIn, { name: account.email, password })).body, /Allow access\?/);
    } finally {
      child.kill('SIGTERM');
      await ended;
      rmSync(data, { recursive: true, force: true, maxRetries: 5 });
    }
  });

  test('are in German for browsers that prefer it', async () => {
    const server = await bootServer('sqlite');
    try {
      const { accounts } = server.running.services;
      const password = 'correct horse battery';
      await accounts.setPassword(people.olivia.id, password);
      const browser = new SignInBrowser('de-AT,de;q=0.9,en;q=0.5');
      const signIn = await browser.open(signInAddress(`${server.origin}/auth`));
      assert.match(signIn.body, /<html lang="de">/);
      assert.match(signIn.body, /Anmelden/);
      const wrong = await browser.submit(signIn, { name: people.olivia.email, password: 'falsch' });
      assert.equal(wrong.status, 401);
      assert.match(wrong.body, /E-Mail oder Passwort ist falsch\./);
      assert.match((await browser.submit(wrong, { name: people.olivia.email, password })).body, /Zugriff erlauben\?/);
      const device = await browser.open(`${server.origin}/auth/device`);
      assert.match(device.body, /Gerät verbinden/);
      const link = await accounts.makeLink({ userId: people.max.id, purpose: 'user' }, 60);
      const chosen = await browser.open(`${server.origin}/auth/password?link=${link}`);
      assert.match(chosen.body, /Passwort festlegen/);
      const other = { password: 'ein langes Passwort', repeated: 'ein anderes Passwort' };
      assert.match((await browser.submit(chosen, other)).body, /Die beiden Passwörter sind verschieden\./);
    } finally {
      await endServer(server);
    }
  });
});
