import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { offshoot, type CommandResult } from './support/commands.ts';
import { engines, Installation, people, type TestServer } from './support/server.ts';
import { SignInBrowser } from './support/signInBrowser.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const password = 'correct horse battery';

for (const engine of engines)
  describe(`Accounts and applications on the command line, on ${engine}`, () => {
    let installation: Installation;
    let server: TestServer;
    let env: NodeJS.ProcessEnv;

    before(async () => {
      installation = await Installation.create(engine);
      server = await installation.start();
      env = {
        OFFSHOOT_PUBLIC_URL: server.origin,
        ...(installation.databaseUrl !== undefined && { OFFSHOOT_DATABASE_URL: installation.databaseUrl }),
      };
    });
    after(async () => {
      await server.close();
      installation.remove();
    });

    const run = (...args: string[]): Promise<CommandResult> =>
      offshoot([...args, '--data', installation.dataDir, '--json'], env);

    async function done(...args: string[]): Promise<Record<string, unknown>> {
      const { code, stdout, stderr } = await run(...args);
      assert.equal(code, 0, stderr);
      return JSON.parse(stdout) as Record<string, unknown>;
    }

    /** Runs a command that reads a password. */
    async function withInput(input: string, ...args: string[]): Promise<CommandResult> {
      const child = spawn(process.execPath, [cli, ...args, '--data', installation.dataDir, '--json'], {
        env: { ...process.env, ...env },
        stdio: ['pipe', 'pipe', 'pipe'],
      });
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (part: Buffer) => (stdout += part.toString()));
      child.stderr.on('data', (part: Buffer) => (stderr += part.toString()));
      child.stdin.end(input);
      const code = await new Promise<number>((resolve) => child.once('close', (exit) => resolve(exit ?? -1)));
      return { code, stdout, stderr };
    }

    async function signsIn(name: string, secret: string): Promise<boolean> {
      const user = await server.services.accounts.authenticate(name, secret);
      return user !== undefined;
    }

    test('a user who is added sets a password with a link that is good once, beside a running server', async () => {
      const added = await done('users', 'add', 'ada@example.test', '--given-name', 'Ada', '--surname', 'Lovelace');
      const link = added['link'] as string;
      assert.ok(link.startsWith(`${server.origin}/auth/password?link=`), link);
      const browser = new SignInBrowser();
      const page = await browser.open(link);
      assert.match((await browser.submit(page, { password, repeated: password })).body, /Your password is set/);
      assert.equal((await browser.open(link)).status, 410);
      assert.ok(await signsIn('ada@example.test', password));

      const again = await run('users', 'add', 'ADA@example.test');
      assert.equal(again.code, 1);
      assert.match(again.stderr, /there is a user/);
      const accounts = (await done('users', 'accounts')) as unknown as { email: string; hasPassword: boolean }[];
      assert.deepEqual(
        accounts.filter(({ hasPassword }) => hasPassword).map(({ email }) => email),
        ['ada@example.test'],
      );
    });

    test('a password comes from standard input, is checked, and can be removed', async () => {
      const short = await withInput('short\n', 'users', 'password', people.max.email, '--password-stdin');
      assert.equal(short.code, 2);
      assert.match(short.stderr, /10 to 256 characters/);
      const set = await withInput(`${password}\n`, 'users', 'password', people.max.email, '--password-stdin');
      assert.equal(set.code, 0, set.stderr);
      assert.doesNotMatch(set.stdout + set.stderr, /correct horse/);
      assert.ok(await signsIn(people.max.email, password));
      await done('users', 'password', people.max.email, '--remove');
      assert.ok(!(await signsIn(people.max.email, password)));
    });

    test('a user who is removed cannot sign in any more', async () => {
      const added = await withInput(`${password}\n`, 'users', 'add', 'gone@example.test', '--password-stdin');
      assert.equal(added.code, 0, added.stderr);
      const unasked = await run('users', 'remove', 'gone@example.test');
      assert.equal(unasked.code, 2);
      await done('users', 'remove', 'gone@example.test', '--yes');
      assert.equal((await run('users', 'password', 'gone@example.test')).code, 2);
    });

    test('an application gets a secret that is shown once and never stored, and works until it is removed', async () => {
      const added = await done('clients', 'add', 'robot', '--name', 'Robot');
      const secret = added['secret'] as string;
      const tokenOf = async (): Promise<number> => {
        const response = await fetch(`${server.origin}/auth/token`, {
          method: 'POST',
          headers: { authorization: `Basic ${Buffer.from(`robot:${secret}`).toString('base64')}` },
          body: new URLSearchParams({ grant_type: 'client_credentials', scope: 'itwin-platform' }),
          signal: AbortSignal.timeout(20_000),
        });
        await response.arrayBuffer();
        return response.status;
      };
      assert.equal(await tokenOf(), 200);
      const { rows } = { rows: await server.services.database.db.selectFrom('sign_in_state').selectAll().execute() };
      assert.ok(!JSON.stringify(rows).includes(secret));
      const listed = (await done('clients', 'list')) as unknown as { id: string; confidential: boolean }[];
      assert.deepEqual(
        listed.map(({ id, confidential }) => [id, confidential]),
        [['robot', true]],
      );
      assert.equal((await run('clients', 'add', 'robot')).code, 1);
      assert.equal((await run('clients', 'add', 'offshoot-cli')).code, 1);
      const faulty = await run('clients', 'add', 'nobody', '--public');
      assert.match(faulty.stderr, /needs a secret/);
      await done('clients', 'remove', 'robot', '--yes');
      assert.equal(await tokenOf(), 401);
    });
  });
