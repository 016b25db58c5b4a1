import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { decodeJwt } from 'jose';
import { makeIModel, official, workFolder, type MadeIModel } from './support/clients.ts';
import { offshoot as run } from './support/commands.ts';
import { bootServer, endServer, people, type TestServer } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

describe('The command line', () => {
  let server: TestServer;
  let made: MadeIModel;
  let target: string;
  let connection: string[];

  before(async () => {
    server = await bootServer('sqlite');
    made = await makeIModel(await official(server), await server.iTwin('olivia', 'First'), {
      changesets: 3,
      name: 'from the shell',
    });
    target = await server.iTwin('olivia', 'Second');
    connection = ['--url', server.origin, '--token', await server.token('olivia')];
  });
  after(() => endServer(server));

  test('token prints nothing but a token that is valid for the server of the data folder', async () => {
    const data = server.installation.dataDir;
    const { code, stdout } = await run([
      'token',
      '--data',
      data,
      '--user',
      people.max.email,
      '--application',
      'basic-app',
      '--expires-in',
      '30m',
    ]);
    assert.equal(code, 0);
    const token = stdout.trim();
    const claims = decodeJwt(token);
    assert.deepEqual(
      [claims.sub, claims['client_id'], (claims.exp ?? 0) - (claims.iat ?? 0)],
      [people.max.id, 'basic-app', 1800],
    );
    const response = await fetch(`${server.origin}/itwins`, { headers: { authorization: `Bearer ${token}` } });
    assert.equal(response.status, 200);
    await response.arrayBuffer();
  });

  test('token refuses an unknown user and an invalid duration', async () => {
    const data = server.installation.dataDir;
    const nobody = await run(['token', '--data', data, '--user', 'nobody@example.test']);
    assert.deepEqual([nobody.code, nobody.stdout], [2, '']);
    assert.match(nobody.stderr, /no user 'nobody@example.test'/);
    assert.equal((await run(['token', '--data', data, '--expires-in', 'soon'])).code, 2);
  });

  test('commands refuse a data folder without an installation, and create nothing', async () => {
    const work = workFolder();
    try {
      const typo = path.join(work.path, 'typo');
      for (const args of [
        ['token'],
        ['verify'],
        ['backup', path.join(work.path, 'copy')],
        ['migrate-database', '--to', 'postgres://localhost:9/none'],
        ['imodels', '--url', server.origin],
      ]) {
        const ran = await run([...args, '--data', typo]);
        assert.ok(ran.code === 1 || ran.code === 2, `${args[0]} ends with ${ran.code}`);
        assert.equal(ran.stdout, '');
        assert.ok(ran.stderr.includes(typo), ran.stderr);
      }
      assert.deepEqual(readdirSync(work.path), []);
    } finally {
      work.remove();
    }
  });

  test('a file that cannot be used is named with the reason in words', async () => {
    const work = workFolder();
    try {
      const file = path.join(work.path, 'file');
      writeFileSync(file, '');
      const ran = await run(['backup', file, '--data', server.installation.dataDir]);
      assert.deepEqual([ran.code, ran.stderr], [1, `offshoot: cannot use ${file}: it exists already\n`]);
    } finally {
      work.remove();
    }
  });

  test('the address of the server is accepted with any ending that clients use', async () => {
    const token = connection.slice(2);
    for (const url of [`${server.origin}/`, `${server.origin}/imodels`, `${server.origin}/iModels/`])
      assert.match((await run(['imodels', '--url', url, ...token])).stdout, /from the shell/);
    const wrong = await run(['imodels', '--url', 'localhost:4700', ...token]);
    assert.deepEqual([wrong.code, wrong.stderr.includes("'localhost:4700' is not a valid address")], [2, true]);
  });

  test('start explains why a data folder cannot be used', async () => {
    const work = workFolder();
    try {
      const file = path.join(work.path, 'file');
      writeFileSync(file, '');
      for (const data of [file, path.join(file, 'below')]) {
        const { code, stderr } = await run(['start', '--data', data, '--port', '0']);
        assert.equal(code, 1);
        assert.match(stderr, /^offshoot: The data folder .* cannot be used: a file is in its place/);
      }
      const locked = path.join(work.path, 'locked');
      mkdirSync(locked, { mode: 0o555 });
      // Root can write everywhere, so as root the command runs as another user.
      chmodSync(work.path, 0o755);
      const asNobody = process.getuid?.() === 0 ? { uid: 65_534, gid: 65_534 } : {};
      const { code, stderr } = await run(
        ['start', '--data', locked, '--port', '0'],
        {},
        { ...asNobody, cwd: work.path },
      );
      assert.deepEqual(
        [code, stderr.split('\n')[0]],
        [
          1,
          `offshoot: The data folder ${locked} cannot be used: this user has no permission to write to it. Choose another folder with --data, or make this one writable.`,
        ],
      );
    } finally {
      work.remove();
    }
  });

  test('clone --json prints one object with the clone, ready to use', async () => {
    const { code, stdout, stderr } = await run([
      'clone',
      made.id,
      '--itwin',
      target,
      '--name',
      'cut',
      '--changeset',
      '2',
      '--json',
      ...connection,
    ]);
    assert.deepEqual([code, stderr], [0, '']);
    const result = JSON.parse(stdout) as {
      id: string;
      state: string;
      clonedFrom: object;
      location: string;
      elapsedMs: number;
    };
    assert.equal(result.state, 'successful');
    assert.deepEqual(result.clonedFrom, { iModelId: made.id, changesetId: made.changesets[1]?.id });
    assert.equal(result.location, `${server.origin}/imodels/${result.id}`);
    assert.ok(result.elapsedMs > 0);
  });

  test('clone reports what it created, and accepts a changeset id too', async () => {
    const { code, stdout } = await run([
      'clone',
      made.id,
      '--itwin',
      target,
      '--changeset',
      made.changesets[0]?.id ?? '',
      ...connection,
    ]);
    assert.equal(code, 0);
    assert.match(stdout, /^[0-9a-f-]{36}\n {2}1 changeset, accepted in [\d.]+ ms, usable after [\d.]+ ms/);
  });

  test('clone reports refusals with the message of the server and a separate exit code', async () => {
    const taken = await run(['clone', made.id, '--itwin', made.iTwinId, ...connection]);
    assert.deepEqual([taken.code, taken.stdout], [3, '']);
    assert.match(taken.stderr, /iModel with the same name already exists within the iTwin\. \(409 iModelExists\)/);
    const blank = await run(['clone', made.id, '--itwin', target, '--name', ' ', ...connection]);
    assert.equal(blank.code, 3);
    assert.match(blank.stderr, /name: ' ' is not a valid 'name' value/);
  });

  test('wrong usage, an unreachable server and a missing token have separate exit codes', async () => {
    assert.equal((await run(['clone', made.id])).code, 2);
    assert.equal((await run(['nonsense'])).code, 2);
    assert.equal((await run(['clone', made.id, '--itwin', target, '--timeout', 'x', ...connection])).code, 2);
    const remoteStore = await run(['imodels', '--url', 'http://127.0.0.1:9', '--token', 'x']);
    assert.equal(remoteStore.code, 4);
    assert.match(remoteStore.stderr, /no server answers at http:\/\/127\.0\.0\.1:9/);
    const tokenless = await run([
      'imodels',
      '--url',
      server.origin,
      '--data',
      path.join(server.installation.dataDir, 'nothing'),
    ]);
    assert.equal(tokenless.code, 2);
    assert.match(tokenless.stderr, /no token/);
    assert.equal((await run(['--version'])).code, 0);
    assert.equal((await run(['--help'])).code, 0);
  });

  test('imodels lists all iModels that the caller may see, those of one iTwin, or the results of a search', async () => {
    const plain = await run(['imodels', ...connection]);
    assert.match(plain.stdout, /First {2}[0-9a-f-]{36}\n {2}[0-9a-f-]{36} {2}from the shell {2}last push/);
    const json = JSON.parse((await run(['imodels', '--itwin', made.iTwinId, '--json', ...connection])).stdout) as {
      id: string;
    }[];
    assert.deepEqual(
      json.map(({ id }) => id),
      [made.id],
    );
    const none = JSON.parse(
      (await run(['imodels', '--itwin', made.iTwinId, '--search', 'nothing', '--json', ...connection])).stdout,
    ) as unknown[];
    assert.deepEqual(none, []);
  });

  test('start prints all addresses, creates a first iTwin, and protects its keys', async () => {
    const work = workFolder();
    try {
      const data = path.join(work.path, "Olivia's data");
      const child = spawn(process.execPath, [cli, 'start', '--data', data, '--port', '0', '--host', '127.0.0.1'], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      let printed = '';
      const ready = new Promise<void>((resolve, reject) => {
        child.stdout.on('data', (text: Buffer) => {
          printed += text.toString();
          if (printed.includes('Token')) resolve();
        });
        child.once('exit', () => reject(new Error(`the server ended: ${printed}`)));
      });
      await ready;
      const origin = /API +(http:\/\/localhost:\d+)\/imodels/.exec(printed)?.[1];
      assert.match(printed, /Document +http.*\/docs/);
      assert.match(printed, /iTwin +[0-9a-f-]{36} +My iTwin/);
      // The output can be pasted into a shell.
      const pasted = /npx offshoot (token --data '.*') +\(users:/.exec(printed)?.[1] ?? '';
      assert.match(
        execFileSync('sh', ['-c', `"${process.execPath}" "${cli}" ${pasted}`], { encoding: 'utf8' }),
        /^[\w-]+\.[\w-]+\.[\w-]+\n$/,
      );
      const listed = await run(['imodels', '--url', origin ?? '', '--data', data]);
      assert.match(listed.stdout, /^My iTwin/);
      for (const secret of ['issuer.json', 'users.json'])
        assert.equal(statSync(path.join(data, secret)).mode & 0o777, 0o600);
      assert.ok(
        !printed.includes(
          (JSON.parse(readFileSync(path.join(data, 'issuer.json'), 'utf8')) as { key: { d: string } }).key.d,
        ),
      );
      const second = await run(['start', '--data', data, '--port', '0']);
      assert.equal(second.code, 1);
      assert.match(second.stderr, /Another server runs on/);
      const ended = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGINT');
      assert.equal(await ended, 0);
    } finally {
      work.remove();
    }
  });

  test('start refuses an invalid configuration and reports all its errors', async () => {
    const { code, stderr } = await run(['start', '--port', '99999'], { OFFSHOOT_LOG_LEVEL: 'loud' });
    assert.equal(code, 2);
    assert.match(stderr, /2 faults/);
  });
});
