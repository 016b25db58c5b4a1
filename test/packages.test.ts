import assert from 'node:assert/strict';
import { execFile, fork, type ChildProcess } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test, type TestContext } from 'node:test';
import { promisify } from 'node:util';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import {
  isOffline,
  npm,
  npmMs,
  packAll,
  publishable,
  root,
  sizeMiB,
  userEnvironment,
  writeSample,
  type Packed,
} from './support/packages.ts';
import { until } from './support/until.ts';

/** Most that the server alone takes on disk, without its optional parts, MiB. */
const mostMiB = 120;
/** Longest time for a server to start and for a program to end, milliseconds; both take seconds on a busy machine. */
const programMs = 120_000;

/** Packages that people have seen in installations of the server, which does not use them. */
const unused = ['google-gax', '@grpc/grpc-js', '@itwin/imodels-access-backend', 'apache-arrow', 'typescript', 'node'];

describe('Packages', { timeout: 2 * npmMs }, () => {
  /** Empty, and outside the workspace, so that nothing is found in its `node_modules`. */
  let folder: string;
  let packed: Packed[];
  let offline: string | undefined;
  const installed = (...names: string[]): string => path.join(folder, 'node_modules', ...names);
  const launcher = (): string => installed('offshoot', 'bin', 'offshoot.cjs');

  before(async () => {
    folder = realpathSync(mkdtempSync(path.join(tmpdir(), 'offshoot-packages-')));
    packed = await packAll(folder);
    writeFileSync(path.join(folder, 'package.json'), '{ "name": "somebody", "private": true, "type": "module" }\n');
    const tarballs = packed.map(({ filename }) => `./${filename}`);
    try {
      // The light way of the README.
      await npm(
        'npm',
        ['install', '--omit=optional', '--prefer-offline', '--no-audit', '--no-fund', ...tarballs],
        folder,
      );
    } catch (error) {
      if (!isOffline(error)) throw error;
      offline = 'no registry answers';
    }
  });
  after(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));

  const needsInstallation = (t: TestContext): boolean => {
    if (offline !== undefined) t.skip(offline);
    return offline === undefined;
  };

  test('everything that is not private is public, is built when it is packed, and proves where it was built', () => {
    assert.ok(publishable.map(({ manifest }) => manifest.name).includes('offshoot'));
    for (const { folder: place, manifest } of publishable) {
      assert.deepEqual(manifest.publishConfig, { access: 'public', provenance: true }, manifest.name);
      assert.match(manifest.scripts?.['prepack'] ?? '', /build/, manifest.name);
      assert.equal(manifest.engines.node, '>=24', manifest.name);
      assert.equal(readFileSync(path.join(place, 'LICENSE'), 'utf8'), readFileSync(path.join(root, 'LICENSE'), 'utf8'));
    }
    assert.match(readFileSync(path.join(root, '.github/workflows/release.yml'), 'utf8'), /npm publish --provenance/);
  });

  test('a package holds compiled code, its licence and a page for the registry; no sources and no tests', () => {
    assert.deepEqual(packed.map(({ name }) => name).sort(), publishable.map(({ manifest }) => manifest.name).sort());
    for (const { name, files } of packed) {
      const paths = files.map((file) => file.path);
      for (const needed of ['LICENSE', 'README.md', 'package.json'])
        assert.ok(paths.includes(needed), `${name}: ${needed}`);
      assert.ok(
        paths.some((file) => file.startsWith('dist/') && file.endsWith('.js')),
        name,
      );
      const foreign = paths.filter((file) => /(?<!\.d)\.ts$|\.map$|^(src|test)\//.test(file));
      assert.deepEqual(foreign, [], name);
    }
  });

  test('on an older Node the command says which one it needs, and fails', async () => {
    const older = path.join(folder, 'older.cjs');
    writeFileSync(older, "Object.defineProperty(process.versions, 'node', { value: '20.20.2' });\n");
    const server = publishable.find(({ manifest }) => manifest.name === 'offshoot') ?? assert.fail();
    const bin = path.join(server.folder, server.manifest.bin?.['offshoot'] ?? '');
    const failed = await promisify(execFile)(process.execPath, ['--require', older, bin, '--version']).then(
      () => assert.fail('it ran'),
      (error: unknown) => error as { code: number; stdout: string; stderr: string },
    );
    assert.deepEqual([failed.code, failed.stdout], [1, '']);
    assert.match(failed.stderr, /^offshoot: Offshoot needs Node 24 or later; this is Node 20\.20\.2\. .*\n$/);
    assert.equal(`>=${/needs Node (\d+)/.exec(failed.stderr)?.[1]}`, server.manifest.engines.node);
  });

  test(`the server without its optional parts takes at most ${mostMiB} MiB, with nothing that it does not use`, (t) => {
    if (!needsInstallation(t)) return;
    const size = sizeMiB(installed());
    t.diagnostic(`${Math.round(size)} MiB`);
    assert.ok(size <= mostMiB, `${Math.round(size)} MiB`);
    const server = publishable.find(({ manifest }) => manifest.name === 'offshoot')?.manifest;
    const found = [...unused, ...Object.keys(server?.optionalDependencies ?? {})].filter((name) =>
      existsSync(installed(name)),
    );
    assert.deepEqual(found, []);
    assert.ok(!existsSync(installed('offshoot', 'src')));
  });

  test('a part that was left out is named with the command that installs it', async (t) => {
    if (!needsInstallation(t)) return;
    const stores = {
      s3: [{ bucket: 'bucket', region: 'us-east-1' }, '@aws-sdk/client-s3'],
      azure: [{ container: 'container', connectionString: 'UseDevelopmentStorage=true' }, '@azure/storage-blob'],
    } as const;
    for (const [type, [settings, name]] of Object.entries(stores)) {
      const file = path.join(folder, 'left-out.json');
      writeFileSync(
        file,
        JSON.stringify({
          store: { type, ...settings },
          dataDir: path.join(folder, 'left-out'),
          port: 0,
          host: '127.0.0.1',
        }),
      );
      const failed = await promisify(execFile)(process.execPath, [launcher(), 'start', '--config', file], {
        cwd: folder,
        env: userEnvironment(),
        timeout: programMs,
      }).then(
        () => assert.fail('it started'),
        (error: unknown) => error as { code: number; stderr: string },
      );
      assert.equal(failed.code, 1, failed.stderr);
      assert.match(failed.stderr, /^offshoot: .*its packages are not installed\. Install them with: npm install /m);
      assert.ok(failed.stderr.includes(`"${name}@`), failed.stderr);
    }
  });

  test('the main job in an empty folder: start, token, import and clone with npx, and open the clone in iTwin.js', async (t) => {
    if (!needsInstallation(t)) return;
    writeSample(path.join(folder, 'plant'));
    const data = path.join(folder, 'data');
    let server = await start(launcher(), data);
    try {
      const token = (await offshoot('token', '--data', data)).trim();
      const call = async (url: string): Promise<unknown> => {
        const answer = await fetch(`${server.origin}${url}`, { headers: { authorization: `Bearer ${token}` } });
        return await answer.json();
      };
      const connection = (): string[] => ['--url', server.origin, '--token', token, '--json'];
      const { iTwins } = (await call('/itwins')) as { iTwins: { id: string }[] };
      const iTwinId = iTwins[0]?.id ?? assert.fail('there is no first iTwin');
      const source = JSON.parse(await offshoot('import', 'plant', '--itwin', iTwinId, ...connection())) as {
        id: string;
        changesets: number;
      };
      assert.equal(source.changesets, 6);
      const clone = JSON.parse(
        await offshoot(
          'clone',
          source.id,
          '--itwin',
          iTwinId,
          '--name',
          'What if',
          '--changeset',
          '4',
          ...connection(),
        ),
      ) as { id: string };
      const { changesets } = (await call(`/imodels/${clone.id}/changesets`)) as { changesets: unknown[] };
      assert.equal(changesets.length, 4);
      // The page of the API document is an optional part; the document is not.
      const page = await fetch(`${server.origin}/docs/`);
      assert.equal(page.status, 503);
      assert.match(await page.text(), /@scalar\/fastify-api-reference is not installed/);
      assert.equal((await fetch(`${server.origin}/openapi.json`)).status, 200);

      if (!isITwinJsInstalled()) return t.diagnostic('iTwin.js is not installed: the clone was not opened');
      await stop(server.child);
      linkITwinJs(installed());
      server = await start(launcher(), data);
      await until(
        'the checkpoint of the clone',
        async () => {
          const { checkpoint } = (await call(`/imodels/${clone.id}/changesets/0/checkpoint`)) as {
            checkpoint?: { state: string };
          };
          return checkpoint?.state === 'successful' ? true : undefined;
        },
        programMs,
      );
      copyFileSync(path.join(root, 'packages/itwinjs/example/main.ts'), path.join(folder, 'main.ts'));
      const { stdout } = await promisify(execFile)(
        process.execPath,
        ['main.ts', server.origin, token, iTwinId, clone.id],
        { cwd: folder, env: userEnvironment(), timeout: programMs },
      );
      assert.match(stdout, /^Sample plant: \d+ elements in the baseline$/m);
      assert.match(stdout, /^pushed changeset 5: [0-9a-f]{40}$/m);
    } finally {
      await stop(server.child);
    }
  });

  const offshoot = (...args: string[]): Promise<string> => npm('npx', ['--no-install', 'offshoot', ...args], folder);
});

/** Starts the installed server as its own process. */
async function start(launcher: string, data: string): Promise<{ child: ChildProcess; origin: string }> {
  const child = fork(launcher, ['start', '--data', data, '--port', '0', '--host', '127.0.0.1'], {
    cwd: path.dirname(data),
    env: userEnvironment(),
    execArgv: [],
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const late = setTimeout(() => child.kill('SIGKILL'), programMs);
  try {
    const origin = await new Promise<string>((resolve, reject) => {
      child.once('message', (message) => resolve((message as { origin: string }).origin));
      child.once('exit', () => reject(new Error(`the server ended before it listened, or took ${programMs} ms`)));
    });
    return { child, origin };
  } finally {
    clearTimeout(late);
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const ended = new Promise((resolve) => child.once('exit', resolve));
  const late = setTimeout(() => child.kill('SIGKILL'), programMs);
  child.kill('SIGTERM');
  await ended;
  clearTimeout(late);
}

/**
 * Links the iTwin.js of the workspace instead of installing it again: its native part alone has 145 MB, and what is tested is the
 * code of the packages, which finds it by name.
 */
function linkITwinJs(modules: string): void {
  assert.deepEqual(
    readdirSync(modules).filter((name) => name === '@itwin'),
    [],
  );
  symlinkSync(path.join(root, 'node_modules/@itwin'), path.join(modules, '@itwin'), 'dir');
}
