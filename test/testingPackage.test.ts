import assert from 'node:assert/strict';
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { existsSync, readdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { startOffshoot, type Hub } from '../packages/testing/src/index.ts';
import { clientsOf, type Official } from '../scripts/clients.ts';
import { sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import { Api } from './support/api.ts';
import { changesetIdOf, workFolder } from './support/clients.ts';
import { until } from './support/until.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = path.join(root, 'apps/server/src/cli.ts');
const packageFolder = path.join(root, 'packages/testing');
/** How long a process of these tests may take, milliseconds. */
const processMs = 120_000;

const environment = Object.fromEntries(
  // A test runner that another one has started reports to that one.
  Object.entries(process.env).filter(([name]) => !name.startsWith('OFFSHOOT_') && name !== 'NODE_TEST_CONTEXT'),
);

interface Ran {
  code: number | null;
  stdout: string;
  stderr: string;
}

function run(args: readonly string[], cwd = packageFolder): Promise<Ran> {
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      args,
      { cwd, env: environment, timeout: processMs, killSignal: 'SIGKILL' },
      (_error, stdout, stderr) => resolve({ code: child.exitCode, stdout, stderr }),
    );
  });
}

describe('offshoot start --json', () => {
  test('prints one line with address, iTwin and token to stdout, and its log to stderr', async () => {
    const work = workFolder();
    const child = spawn(
      process.execPath,
      [cli, 'start', '--json', '--data', path.join(work.path, 'data'), '--host', '127.0.0.1', '--port', '0'],
      { cwd: work.path, env: environment, stdio: ['ignore', 'pipe', 'pipe'] },
    );
    try {
      let [stdout, stderr] = ['', ''];
      child.stdout.on('data', (text: Buffer) => (stdout += text.toString()));
      child.stderr.on('data', (text: Buffer) => (stderr += text.toString()));
      await until('the ready line', () => (stdout.includes('\n') ? true : undefined), processMs);
      const ready = JSON.parse(stdout) as { origin: string; iTwinId: string; token: string };
      assert.deepEqual(Object.keys(ready), ['origin', 'iTwinId', 'token']);
      const { status, body } = await new Api(ready.origin, ready.token).get(`/itwins/${ready.iTwinId}`);
      assert.deepEqual([status, (body as { iTwin: { displayName: string } }).iTwin.displayName], [200, 'My iTwin']);
      const ended = new Promise((resolve) => child.once('close', resolve));
      child.kill('SIGTERM');
      assert.equal(await ended, 0);
      assert.equal(stdout, `${JSON.stringify(ready)}\n`);
      const log = stderr
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { msg: string; origin?: string });
      assert.deepEqual(
        log.filter(({ msg }) => msg === 'ready').map(({ origin }) => origin),
        [ready.origin],
      );
      assert.ok(!stderr.includes(ready.token));
    } finally {
      child.kill('SIGKILL');
      work.remove();
    }
  });

  test('prints nothing to stdout if the server cannot start', async () => {
    const { code, stdout, stderr } = await run([cli, 'start', '--json', '--port', '99999']);
    assert.deepEqual([code, stdout], [2, '']);
    assert.match(stderr, /^offshoot: The configuration has a fault/);
  });
});

describe('@offshoot/testing', () => {
  let hub: Hub;
  let admin: Official;
  let api: Api;
  before(async () => {
    hub = await startOffshoot({ users: ['max'] });
    admin = clientsOf(hub.origin, await hub.token());
    api = new Api(hub.origin, await hub.token());
  });
  after(() => hub.stop());

  test('two hundred clones of one fixture are writable iModels that do not affect one another', async () => {
    const work = workFolder();
    try {
      const { client, authorization } = admin;
      /** Pushes one changeset of random bytes. @returns its id */
      const push = async (iModelId: string, parentId: string): Promise<string> => {
        const bytes = randomBytes(200);
        const id = changesetIdOf(parentId, bytes);
        const filePath = path.join(work.path, `${id}.cs`);
        writeFileSync(filePath, bytes);
        const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
        await client.changesets.create({
          authorization,
          iModelId,
          changesetProperties: { id, parentId, briefcaseId, filePath },
        });
        return id;
      };
      const changesetsOf = async (iModelId: string): Promise<string[]> =>
        ((await api.get(`/imodels/${iModelId}/changesets`)).body as { changesets: { id: string }[] }).changesets.map(
          ({ id }) => id,
        );
      const fixture = await hub.createIModel();
      const inherited = await push(fixture, '');
      const clones = new Map<string, string>();
      for (let n = 0; n < 200; n++) {
        const iModelId = await hub.clone(fixture);
        assert.deepEqual(await changesetsOf(iModelId), [inherited]);
        clones.set(iModelId, await push(iModelId, inherited));
      }
      assert.equal(clones.size, 200);
      for (const [iModelId, own] of clones) assert.deepEqual(await changesetsOf(iModelId), [inherited, own]);
      assert.deepEqual(await changesetsOf(fixture), [inherited]);
    } finally {
      work.remove();
    }
  });

  test('an iModel of a file has that baseline, and its clones end at the changeset asked for', async () => {
    const work = workFolder();
    try {
      const { client, authorization } = admin;
      const file = path.join(work.path, 'plant.bim');
      const baseline = sampleBaseline();
      writeFileSync(file, baseline);
      const iModelId = await hub.createIModel(file, { name: 'Plant' });
      const { state, fileSize } = await client.baselineFiles.getSingle({ authorization, iModelId });
      assert.deepEqual([String(state), fileSize], ['initialized', baseline.length]);
      const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
      const samples = sampleChangesets();
      for (const { id, parentId, file: filePath } of samples)
        await client.changesets.create({
          authorization,
          iModelId,
          changesetProperties: { id, parentId, briefcaseId, filePath },
        });
      const headOf = async (id: string): Promise<string | undefined> =>
        (
          (await api.get(`/imodels/${id}/changesets?$orderBy=index%20desc&$top=1`)).body as {
            changesets: { id: string }[];
          }
        ).changesets[0]?.id;
      assert.equal(await headOf(await hub.clone(iModelId)), samples.at(-1)?.id);
      assert.equal(await headOf(await hub.clone(iModelId, { changesetIndex: 2 })), samples[1]?.id);
      assert.equal(await headOf(await hub.clone(iModelId, { changesetId: samples[0]?.id ?? '' })), samples[0]?.id);
      assert.equal(await headOf(await hub.clone(iModelId, { changesetIndex: 0 })), undefined);
      await assert.rejects(hub.clone(iModelId, { changesetIndex: 99 }), /failed with status 404: .*Changeset/);
      writeFileSync(`${file}-wal`, 'a change');
      await assert.rejects(hub.createIModel(file), /has changes in plant\.bim-wal: close the iModel/);
    } finally {
      work.remove();
    }
  });

  test('each user has a token of their own', async () => {
    const emailOf = (token: string): string =>
      (JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()) as { email: string }).email;
    assert.equal(emailOf(await hub.token()), 'admin@offshoot.test');
    assert.equal(emailOf(await hub.token('max')), 'max@offshoot.test');
    assert.equal(await hub.token('max@offshoot.test'), await hub.token('max'));
    await assert.rejects(hub.token('olivia'), /There is no user 'olivia': name it in the option users/);
    const { status } = await new Api(hub.origin, await hub.token('max')).get(`/itwins/${hub.iTwinId}`);
    assert.ok(status === 403 || status === 404, `a user without a role sees the iTwin: ${status}`);
  });

  test('stop ends the server and removes its data', async () => {
    const work = workFolder();
    try {
      {
        await using short = await startOffshoot({ parentFolder: work.path });
        assert.ok(await answers(short.origin));
        assert.equal(leftIn(work.path).length, 1);
        await short.stop();
        await short.stop();
        assert.ok(!(await answers(short.origin)));
        await assert.rejects(short.createIModel(), /does not answer: it was stopped/);
      }
      assert.deepEqual(leftIn(work.path), []);
    } finally {
      work.remove();
    }
  });

  test('a server that cannot start is reported with its reason and leaves nothing', async () => {
    const work = workFolder();
    try {
      const options = { parentFolder: work.path };
      await assert.rejects(
        startOffshoot({ ...options, settings: { logLevel: 'loud' } }),
        /did not start: its process ended with exit code 2\. Its log:\noffshoot: The configuration has a fault/,
      );
      await assert.rejects(startOffshoot({ ...options, startTimeoutMs: 1 }), /it was not ready after 1 ms/);
      await assert.rejects(
        startOffshoot({
          ...options,
          settings: { embeddedIssuer: false, issuers: [{ issuer: 'https://issuer.test', audience: 'test' }] },
        }),
        /it has no embedded issuer of tokens/,
      );
      assert.deepEqual(leftIn(work.path), []);
    } finally {
      work.remove();
    }
  });
});

describe('The server of a test process', () => {
  const program = (parentFolder: string, rest: string): string[] => [
    '--input-type=module',
    '--eval',
    `const { startOffshoot } = await import(${JSON.stringify(path.join(packageFolder, 'src/index.ts'))});
     const hub = await startOffshoot({ parentFolder: ${JSON.stringify(parentFolder)} });
     process.stdout.write(hub.origin + '\\n');
     ${rest}`,
  ];

  test('ends with it when it is killed, and removes its data', { timeout: processMs }, async () => {
    const work = workFolder();
    const child = spawn(process.execPath, program(work.path, 'setInterval(() => undefined, 1000);'), {
      env: environment,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    try {
      let printed = '';
      child.stdout.on('data', (text: Buffer) => (printed += text.toString()));
      await until('the server', () => (printed.includes('\n') ? true : undefined), processMs);
      child.kill('SIGKILL');
      await ended(printed, work.path);
    } finally {
      child.kill('SIGKILL');
      work.remove();
    }
  });

  test('does not keep it alive if the tests forget to stop it', { timeout: processMs }, async () => {
    const work = workFolder();
    try {
      const { code, stdout } = await run(program(work.path, ''));
      assert.equal(code, 0);
      await ended(stdout, work.path);
    } finally {
      work.remove();
    }
  });
});

describe('Tests with @offshoot/testing run', () => {
  const condition = '--conditions=offshoot-source';
  const runners = path.join(packageFolder, 'test-runners');

  test('in node:test', async () => {
    const { code, stdout, stderr } = await run([condition, '--test', '--test-reporter=tap', 'node.test.mjs'], runners);
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.match(stdout, /^# pass 1$/m);
  });

  test('in Mocha', async () => {
    const mocha = path.join(root, 'node_modules/mocha/bin/mocha.js');
    const { code, stdout, stderr } = await run([condition, mocha, 'mocha.test.mjs'], runners);
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.match(stdout, /1 passing/);
  });

  test('in Vitest', async () => {
    const vitest = path.join(root, 'node_modules/vitest/vitest.mjs');
    const { code, stdout, stderr } = await run(
      [vitest, 'run', '--config=vitest.config.mjs', '--reporter=json'],
      runners,
    );
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.equal((JSON.parse(stdout) as { numPassedTests: number }).numPassedTests, 1);
  });

  const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
  test('with iTwin.js in place of HubMock, each on its own clone', { skip }, async () => {
    const { code, stdout, stderr } = await run([condition, '--test', '--test-reporter=tap', 'example/plant.test.ts']);
    assert.equal(code, 0, `${stdout}${stderr}`);
    assert.match(stdout, /^# pass 2$/m);
  });
});

/** Waits until a server neither answers nor has a data folder. */
async function ended(printedOrigin: string, parentFolder: string): Promise<void> {
  await until(
    'the end of the server',
    async () => ((await answers(printedOrigin.trim())) ? undefined : true),
    processMs,
  );
  await until('an empty folder', () => (leftIn(parentFolder).length === 0 ? true : undefined), processMs);
}

async function answers(origin: string): Promise<boolean> {
  return fetch(`${origin}/health`).then(
    ({ ok }) => ok,
    () => false,
  );
}

function leftIn(folder: string): string[] {
  return existsSync(folder) ? readdirSync(folder) : [];
}
