/**
 * Attacks on the process that makes checkpoints, by a user who may push changesets and upload baselines to an iModel of their
 * own: it executes only statements that iTwin.js itself writes, sees nothing of the server, and ends within its limits.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
import { CheckpointState, type Checkpoint } from '@itwin/imodels-client-management';
import { findIsolation, IsolationError, type Isolation } from '../../apps/server/src/checkpoints/itwinjs/isolation.ts';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { finishedCheckpoint, pushPrefix } from '../support/changesetFile.ts';
import { official, type Official } from '../support/clients.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';

/**
 * A server that makes checkpoints, and a folder for the attacker's files, for the tests of one suite. Pushes are not verified, so
 * that statements get through which a push would refuse, as with a prefix that the push parses differently from iTwin.js.
 */
function bootCheckpointServer(): { work: string; context: { server: TestServer; olivia: Official } } {
  const work = mkdtempSync(path.join(tmpdir(), 'offshoot-hostile-'));
  const context = {} as { server: TestServer; olivia: Official };
  before(async () => {
    context.server = await bootServer('sqlite', {
      verifyChangesets: 'off',
      checkpoints: { generate: 'here', delaySeconds: 0, attempts: 2, firstRetrySeconds: 0, workSeconds: 20 },
    });
    context.olivia = await official(context.server);
  });
  after(async () => {
    await endServer(context.server);
    rmSync(work, { recursive: true, force: true });
  });
  return { work, context };
}

describe('Hostile changesets', { skip }, () => {
  const { work, context } = bootCheckpointServer();

  const checkpointOf = async (prefix: object): Promise<Checkpoint> =>
    finishedCheckpoint(context.olivia, await pushPrefix(context.olivia, await context.server.iTwin(), work, prefix));

  test('whose statements are those of a schema change are applied', async () => {
    const { state } = await checkpointOf({
      ContainsSchemaChanges: true,
      DDL: 'CREATE TABLE [t]([Id] INTEGER PRIMARY KEY);CREATE INDEX [i] ON [t]([Id])',
    });
    assert.equal(state, CheckpointState.Successful);
  });

  for (const [what, ddl] of Object.entries({
    'attaches the database of the server':
      "CREATE TABLE a(x); COMMIT; ATTACH DATABASE '../../offshoot.db' AS server; CREATE TABLE copied AS SELECT * FROM server.secret",
    'copies a table': 'CREATE TABLE copied AS SELECT * FROM be_Local',
    'never ends': 'CREATE TABLE t AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c',
    'takes memory': 'CREATE TABLE t(a DEFAULT (zeroblob(1000000000)))',
    'writes a file': "VACUUM INTO 'copy.db'",
  }))
    test(`whose statement ${what} fail their checkpoint with a plain reason, and none of it runs`, async () => {
      const checkpoint = (await checkpointOf({ ContainsSchemaChanges: true, DDL: ddl })) as Checkpoint & {
        failureReason?: string;
      };
      assert.equal(checkpoint.state, CheckpointState.Failed);
      assert.match(checkpoint.failureReason ?? '', /it holds .*, which no schema of an iModel needs/);
      assert.doesNotMatch(checkpoint.failureReason ?? '', /\/tmp|\.ts:|node_modules/);
    });
});

describe('Hostile baselines', { skip }, () => {
  const { work, context } = bootCheckpointServer();

  for (const [what, sql] of Object.entries({
    'never ends':
      'create trigger x after update on be_Prop begin insert into be_Prop(Namespace, Name, Id, SubId) select x, x, x, x from (with recursive c(x) as (select 1 union all select x + 1 from c) select x from c); end',
    'fills the disk':
      'create trigger x after insert on be_Local begin update be_Local set Val = zeroblob(1000000000) where Name = new.Name; end',
    'is hidden in a view':
      'create view [a.b] as with recursive c(x) as (select 1 union all select x + 1 from c) select x from c',
    'is a view by the name of a table': 'create view bis_Secret as select 1',
  }))
    test(`whose schema contains a statement that ${what} get no checkpoint, and none of it runs`, async () => {
      const file = path.join(work, 'hostile.bim');
      writeFileSync(
        file,
        brotliDecompressSync(readFileSync(new URL('../../apps/server/assets/seed.bim.br', import.meta.url))),
      );
      const db = new DatabaseSync(file);
      db.exec(sql);
      db.close();
      const { client, authorization } = context.olivia;
      const api = await context.server.as('olivia');
      const iTwinId = await context.server.iTwin();
      const created = await client.iModels
        .createFromBaseline({ authorization, iModelProperties: { iTwinId, name: 'hostile', filePath: file } })
        .then(
          ({ id }) => id,
          () => undefined,
        );
      const { body } = await api.get(`/imodels?iTwinId=${iTwinId}`);
      const id = created ?? (body as { iModels: { id: string }[] }).iModels[0]?.id;
      const { body: operation } = await api.get(`/imodels/${id}/operations/create`);
      const checkpoint = await api.get(`/imodels/${id}/changesets/0/checkpoint`);
      assert.match(JSON.stringify([operation, checkpoint.body]), /it holds .*, which no schema of an iModel needs/);
    });
});

describe('The isolation of the iTwin.js process', { skip }, () => {
  const root = mkdtempSync(path.join(tmpdir(), 'offshoot-isolation-'));
  const folder = path.join(root, 'work');
  const secret = path.join(root, 'secret');
  let isolation: Isolation;

  before(async () => {
    mkdirSync(folder);
    // As the server sets up its data folder: others may enter, and read nothing.
    chmodSync(root, 0o711);
    writeFileSync(secret, 'the key that signs links', { mode: 0o600 });
    isolation = await findIsolation(folder, 'process');
  });
  after(() => rmSync(root, { recursive: true, force: true }));

  /** Runs code at the current isolation level. @returns what it printed */
  function run(code: string): string {
    const script = path.join(folder, 'probe.mjs');
    writeFileSync(script, code);
    const { file, args, options } = isolation.command(script, [], false);
    const { stdout, stderr, status } = spawnSync(file, args, { ...options, encoding: 'utf8', timeout: 30_000 });
    assert.equal(status, 0, stderr);
    return stdout.trim();
  }

  test('passes no environment variable of the server on', () => {
    process.env['OFFSHOOT_TEST_SECRET'] = 'a secret of the cloud';
    try {
      assert.doesNotMatch(run('console.log(JSON.stringify(process.env))'), /secret/i);
    } finally {
      delete process.env['OFFSHOOT_TEST_SECRET'];
    }
  });

  test('lets the process write to its own folder', () => {
    run("import { writeFileSync } from 'node:fs'; writeFileSync('made', 'x');");
    assert.equal(readFileSync(path.join(folder, 'made'), 'utf8'), 'x');
  });

  test('hides the files of the server', (t) => {
    if (isolation.level === 'process') return t.skip('neither bubblewrap nor another user is to be had here');
    assert.equal(
      run(
        `import { readFileSync } from 'node:fs'; try { console.log(readFileSync(${JSON.stringify(secret)}, 'utf8')); } catch { console.log('refused'); }`,
      ),
      'refused',
    );
  });

  test('exposes only the system, the packages and the own folder, and no network', (t) => {
    if (isolation.level !== 'namespaces') return t.skip('bubblewrap is not to be had here');
    const seen = JSON.parse(
      run(
        "import { readdirSync } from 'node:fs'; import { networkInterfaces } from 'node:os'; console.log(JSON.stringify({ root: readdirSync('/'), etc: readdirSync('/etc'), network: networkInterfaces() }));",
      ),
    ) as Record<string, unknown>;
    assert.deepEqual(seen['etc'], ['ld.so.cache']);
    assert.ok(
      !(seen['root'] as string[]).includes('home') &&
        !(seen['root'] as string[]).includes('var') &&
        !(seen['root'] as string[]).includes('root'),
    );
    assert.ok(Object.keys(seen['network'] as object).every((name) => name === 'lo'));
    const server = fileURLToPath(new URL('../../', import.meta.url));
    assert.equal(
      run(
        `import { existsSync } from 'node:fs'; console.log(existsSync(${JSON.stringify(path.join(server, 'test'))}))`,
      ),
      'false',
    );
  });

  test('refuses to run below the configured level', async () => {
    const saved = process.env['PATH'];
    process.env['PATH'] = '/nowhere';
    try {
      await assert.rejects(findIsolation(folder, 'namespaces'), IsolationError);
    } finally {
      process.env['PATH'] = saved;
    }
    assert.ok(existsSync(folder));
  });
});
