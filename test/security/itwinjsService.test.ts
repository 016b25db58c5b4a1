/**
 * The iTwin.js service: native code processes hostile files where no database, store or key of the installation is reachable, and
 * its results are not trusted.
 */
import assert from 'node:assert/strict';
import { fork, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, request as requestHttp } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { CheckpointState, type Checkpoint } from '@itwin/imodels-client-management';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { RemoteWorker } from '../../apps/server/src/checkpoints/itwinjs/service/remoteWorker.ts';
import { FinalError, PublicError } from '../../apps/server/src/operations/reasons.ts';
import { finishedCheckpoint, pushPrefix } from '../support/changesetFile.ts';
import { official, type Official } from '../support/clients.ts';
import { freePort } from '../support/freePort.ts';
import { bootServer, endServer, setups, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));
const key = 'a key of the service, for this test alone';
const schemaChange = { ContainsSchemaChanges: true, DDL: 'CREATE TABLE [t]([Id] INTEGER PRIMARY KEY)' };

/** The service in a separate process, with nothing in its environment but its key. */
class ServiceProcess {
  readonly folder = mkdtempSync(path.join(tmpdir(), 'offshoot-service-'));
  readonly port: number;
  #child: ChildProcess | undefined;

  constructor(port: number) {
    this.port = port;
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`;
  }

  async start(): Promise<void> {
    const env = { PATH: process.env['PATH'], OFFSHOOT_ITWINJS_KEY: key, OFFSHOOT_LOG_LEVEL: 'fatal' };
    const child = fork(cli, ['itwinjs', '--data', this.folder, '--host', '127.0.0.1', '--port', String(this.port)], {
      cwd: this.folder,
      env,
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    });
    this.#child = child;
    const started = await Promise.race([once(child, 'message'), once(child, 'exit').then(() => undefined)]);
    assert.notEqual(started, undefined, 'the service ended while it started');
  }

  async end(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const child = this.#child;
    if (child?.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill(signal);
    await ended;
  }

  /** Folders of requests in progress. */
  get inWork(): string[] {
    const work = path.join(this.folder, 'work');
    const slots = readdirSync(work).flatMap((own) =>
      readdirSync(path.join(work, own)).map((slot) => path.join(work, own, slot)),
    );
    return slots.flatMap((slot) => readdirSync(slot).filter((name) => /^[0-9a-f-]{36}$/.test(name)));
  }
}

for (const setup of setups.filter(({ store }) => store !== 'azure'))
  describe(`A server on ${setup.engine} and ${setup.store} that uses the iTwin.js service`, { skip }, () => {
    const work = mkdtempSync(path.join(tmpdir(), 'offshoot-hostile-'));
    let service: ServiceProcess;
    let server: TestServer;
    let olivia: Official;
    before(async () => {
      service = new ServiceProcess(await freePort());
      await service.start();
      server = await bootServer(setup, {
        verifyChangesets: 'off',
        checkpoints: {
          generate: 'here',
          delaySeconds: 0,
          attempts: 3,
          firstRetrySeconds: 0,
          service: { url: service.url, key },
        },
      });
      olivia = await official(server);
    });
    after(async () => {
      await endServer(server);
      await service.end();
      for (const folder of [work, service.folder]) rmSync(folder, { recursive: true, force: true });
    });
    const push = async (prefix: object): Promise<string> => pushPrefix(olivia, await server.iTwin(), work, prefix);
    const checkpointOf = async (prefix: object): Promise<Checkpoint & { failureReason?: string }> =>
      finishedCheckpoint(olivia, await push(prefix));

    test('gets its checkpoints, and leaves none of its files there', async () => {
      assert.equal((await checkpointOf(schemaChange)).state, CheckpointState.Successful);
      await until('the folder of the work is gone', () => (service.inWork.length === 0 ? true : undefined));
      const { body } = await (await server.as('olivia')).get('/health/ready');
      assert.match(
        (body as { checkpoints: { isolation: string } }).checkpoints.isolation,
        /^(process|user|namespaces)$/,
      );
    });

    test('reports why a changeset cannot be applied', async () => {
      const { state, failureReason = '' } = await checkpointOf({
        ContainsSchemaChanges: true,
        DDL: 'CREATE TABLE copied AS SELECT * FROM be_Local',
      });
      assert.equal(state, CheckpointState.Failed);
      assert.match(failureReason, /it holds .*, which no schema of an iModel needs/);
      assert.doesNotMatch(failureReason, /\/tmp|\.ts:|node_modules|\.cs/);
    });

    test('waits for a service that is unavailable, and continues when it returns', { timeout: 120_000 }, async () => {
      await service.end('SIGTERM');
      const iModelId = await push(schemaChange);
      const { db } = server.services.database;
      await until('the job runs', async () =>
        db.selectFrom('job').select('id').where('lease_until', 'is not', null).executeTakeFirst(),
      );
      await service.start();
      assert.equal((await finishedCheckpoint(olivia, iModelId)).state, CheckpointState.Successful);
    });
  });

describe('The iTwin.js service', { skip }, () => {
  let service: ServiceProcess;
  before(async () => {
    service = new ServiceProcess(await freePort());
    await service.start();
  });
  after(async () => {
    await service.end();
    rmSync(service.folder, { recursive: true, force: true });
  });
  const post = async (body: Uint8Array<ArrayBuffer>, authorization = `Bearer ${key}`): Promise<number> => {
    const response = await fetch(`${service.url}/work`, {
      method: 'POST',
      body,
      headers: { authorization },
      signal: AbortSignal.timeout(30_000),
    });
    await response.arrayBuffer();
    return response.status;
  };
  const withHead = (head: string, length = head.length, files = Buffer.alloc(0)): Uint8Array<ArrayBuffer> => {
    const size = Buffer.alloc(4);
    size.writeUInt32BE(length);
    return new Uint8Array(Buffer.concat([size, Buffer.from(head), files]));
  };
  const head = (change: object = {}): string =>
    JSON.stringify({ purpose: 'checkpoint', countMissingGuids: false, size: 3, changesets: [], ...change });

  test('refuses requests without its key', async () => {
    for (const authorization of ['', 'Bearer', 'Bearer ', `Bearer ${key}x`, `bearer ${key}`, `Basic ${key}`])
      assert.equal(await post(withHead(head()), authorization), 401, authorization);
  });

  test('refuses a request that no server sends, and keeps nothing of it', async () => {
    const changeset = { id: 'a'.repeat(40), parentId: '', index: 1, schema: false, size: 1 };
    const wrong: [string, Uint8Array<ArrayBuffer>][] = [
      ['an endless head', withHead('', 2 ** 31)],
      ['no JSON', withHead('{')],
      ['another purpose', withHead(head({ purpose: 'shell' }))],
      ['a name of a file', withHead(head({ file: '/etc/passwd' }))],
      ['a name of a changeset', withHead(head({ changesets: [{ ...changeset, path: '../../x' }] }))],
      ['a size that is none', withHead(head({ size: -1 }))],
      ['too many changesets', withHead(head({ changesets: Array.from({ length: 501 }, () => changeset) }))],
      ['an end that comes early', withHead(head({ size: 2 ** 40 }), undefined, Buffer.from('abc'))],
    ];
    for (const [what, body] of wrong) assert.equal(await post(body), 400, what);
    await until('all folders are gone', () => (service.inWork.length === 0 ? true : undefined));
  });

  test('cancels the work of a caller that disconnects', async () => {
    const call = requestHttp(`${service.url}/work`, { method: 'POST', headers: { authorization: `Bearer ${key}` } });
    call.on('error', () => undefined);
    call.write(withHead(head({ size: 1000 })));
    await until('its folder is there', () => (service.inWork.length === 1 ? true : undefined));
    call.destroy();
    await until('its folder is gone', () => (service.inWork.length === 0 ? true : undefined));
    assert.equal(await post(withHead('{')), 400, 'the slot is free again');
  });

  test('refuses to start without a key, or where it knows the address of the database', () => {
    const start = (env: Record<string, string>) =>
      spawnSync(process.execPath, [cli, 'itwinjs', '--data', service.folder, '--port', '0'], {
        env: { PATH: process.env['PATH'], ...env },
        encoding: 'utf8',
        timeout: 60_000,
      });
    const withDatabase = start({ OFFSHOOT_ITWINJS_KEY: key, OFFSHOOT_DATABASE_URL: 'postgres://127.0.0.1:1/none' });
    assert.deepEqual(
      [withDatabase.status, withDatabase.stderr.includes('databaseUrl is set')],
      [2, true],
      withDatabase.stderr,
    );
    const withoutKey = start({});
    assert.deepEqual(
      [withoutKey.status, withoutKey.stderr.includes('OFFSHOOT_ITWINJS_KEY is missing')],
      [2, true],
      withoutKey.stderr,
    );
  });
});

describe('A server whose iTwin.js service is compromised', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-remote-'));
  const file = path.join(folder, 'model.bim');
  after(() => rmSync(folder, { recursive: true, force: true }));

  /** The outcome of work that a service answers with these bytes. */
  async function answered(answer: string, isolation = 'namespaces'): Promise<Error | undefined> {
    writeFileSync(file, 'as it was');
    const hostile = createServer((request, response) => {
      if (request.method === 'GET')
        return void response.end(JSON.stringify({ status: 'ok', iTwinJs: '5.1.9', isolation }));
      request.resume();
      request.once('end', () => response.end(answer));
    });
    await new Promise<void>((resolve) => hostile.listen(0, '127.0.0.1', resolve));
    const worker = new RemoteWorker(
      { url: `http://127.0.0.1:${(hostile.address() as AddressInfo).port}`, key },
      'namespaces',
      60_000,
    );
    try {
      return await worker
        .work(
          { file, changesets: [], purpose: 'checkpoint', countMissingGuids: false },
          { signal: AbortSignal.timeout(60_000) },
          () => undefined,
        )
        .then(
          () => undefined,
          (error: unknown) => error as Error,
        );
    } finally {
      worker.kill();
      hostile.closeAllConnections();
      hostile.close();
    }
  }
  const result = { iModelIdOffset: 0, iTwinIdOffset: 16, missingGuids: 0, highestBriefcaseId: 2 };
  const finished = (change: object, size: number, bytes: string): string =>
    `${JSON.stringify({ result: { ...result, ...change }, size })}\n${bytes}`;

  test('accepts a finished file that matches its description', async () => {
    assert.equal(await answered(`{}\n{"applied":1}\n${finished({}, 40, 'x'.repeat(40))}`), undefined);
    assert.equal(readFileSync(file, 'utf8'), 'x'.repeat(40));
  });

  test('keeps its file, and records only a failure, after any other answer', async () => {
    const answers: Record<string, string> = {
      nothing: '',
      'no JSON': 'x\n',
      'a line without an end': 'x'.repeat(200_000),
      'an event of no kind': '{"run":"rm"}\n',
      'a place outside the file': finished({ iModelIdOffset: 30 }, 40, 'x'.repeat(40)),
      'a place that is no number': finished({ iTwinIdOffset: '0' }, 40, 'x'.repeat(40)),
      'a file that is cut': finished({}, 40, 'x'.repeat(39)),
      'a file without an end': finished({}, 2 ** 42, ''),
      'a briefcase that cannot be': finished({ highestBriefcaseId: 2 ** 40 }, 40, 'x'.repeat(40)),
      'an endless reason': `${JSON.stringify({ failed: 'x'.repeat(100_000), final: true })}\n`,
    };
    for (const [what, answer] of Object.entries(answers)) {
      const error = await answered(answer);
      assert.ok(error instanceof PublicError, what);
      assert.ok(error.message.length < 200, what);
      assert.equal(readFileSync(file, 'utf8'), 'as it was', what);
    }
  });

  test('sends no work to a service whose isolation is below the required level', async () => {
    assert.ok((await answered(finished({}, 40, 'x'.repeat(40)), 'process')) instanceof FinalError);
    assert.equal(readFileSync(file, 'utf8'), 'as it was');
  });
});
