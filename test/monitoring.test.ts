import assert from 'node:assert/strict';
import { execFile, fork } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { clientsOf } from '../scripts/clients.ts';
import { Api } from './support/api.ts';
import { makeIModel, official } from './support/clients.ts';
import { bootServer, endServer } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

test('metrics can have a separate port that serves nothing else, and the API port then serves no metrics', async () => {
  const server = await bootServer('sqlite', { metrics: true, metricsPort: 0 });
  try {
    const metrics = server.running.metricsOrigin ?? assert.fail('there is no port of the metrics');
    await fetch(`${server.origin}/health`);
    const page = await fetch(`${metrics}/metrics`);
    assert.deepEqual([page.status, page.headers.get('x-content-type-options')], [200, 'nosniff']);
    assert.match(await page.text(), /offshoot_request_duration_seconds_count\{operation="\/health",status="200"\} 1/);
    assert.equal((await fetch(`${server.origin}/metrics`)).status, 404);
    for (const path of ['/', '/health', '/imodels', '/openapi.json'])
      assert.equal((await fetch(`${metrics}${path}`)).status, 404, path);
  } finally {
    await endServer(server);
  }
});

onEachDatabase('Monitoring', { metrics: true }, (context) => {
  test('reports whether the server is alive, and whether it is ready', async () => {
    assert.equal((await context.api.get('/health')).status, 200);
    assert.equal((await context.api.get('/health/ready')).status, 200);
    const store = context.server.services.blobs.stores.home;
    // An own property shadows the method of the class until it is deleted.
    Object.assign(store, { check: () => Promise.reject(new Error('the store is away')) });
    const remoteStore = await context.api.get('/health/ready');
    Reflect.deleteProperty(store, 'check');
    assert.deepEqual([remoteStore.status, JSON.stringify(remoteStore.body).includes('away')], [503, false]);
    assert.equal((await context.api.get('/health')).status, 200);
  });

  test('counts requests by operation and jobs by state, without addresses or ids', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    await context.api.get(`/imodels/${made.id}`);
    const { body, headers } = await context.api.get('/metrics');
    const text = body as string;
    assert.match(headers.get('content-type') ?? '', /^text\/plain/);
    assert.match(text, /offshoot_request_duration_seconds_count\{operation="get-imodel-details",status="200"\} \d+/);
    assert.match(text, /process_resident_memory_bytes \d+/);
    assert.ok(!text.includes(made.id));
  });

  test('reports missing, damaged and orphaned files, and that all others are intact', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
    const { database, blobs } = context.server.services;
    const clean = await verify(database.db, blobs.stores, true);
    assert.deepEqual([clean.faults, clean.orphanObjects, clean.files >= 4], [[], [], true]);

    const keyOf = async (index: number): Promise<{ id: string; key: string; size: number }> => {
      const row = await database.db
        .selectFrom('changeset as c')
        .innerJoin('blob as b', 'b.id', 'c.blob_id')
        .select(['b.id', 'b.key', 'b.size'])
        .where('c.id', '=', made.changesets[index]?.id ?? '')
        .executeTakeFirstOrThrow();
      return { ...row, key: row.key as string };
    };
    const [missing, short, changed] = [await keyOf(0), await keyOf(1), await keyOf(2)];
    await blobs.stores.home.delete(missing.key);
    const replace = async ({ key }: { key: string }, bytes: Buffer) => {
      await blobs.stores.home.delete(key);
      await blobs.stores.home.put(key, Readable.from([bytes]), bytes.length);
    };
    await replace(short, randomBytes(short.size - 1));
    await replace(changed, randomBytes(changed.size));
    const shallow = await verify(database.db, blobs.stores, false);
    assert.deepEqual(
      new Map(shallow.faults.map(({ key, what }) => [key, what])),
      new Map([
        [missing.key, 'missing'],
        [short.key, 'size'],
      ]),
    );
    const deep = await verify(database.db, blobs.stores, true);
    assert.equal(deep.faults.find(({ key }) => key === changed.key)?.what, 'content');
    // A recent file may belong to an upload; it is no orphan yet.
    await blobs.stores.home.put(randomUUID(), Readable.from([randomBytes(5)]), 5);
    assert.deepEqual((await verify(database.db, blobs.stores, false)).orphanObjects, []);
  });
});

describe('The log', () => {
  test('contains requests and errors, and neither tokens nor the secrets of links', { timeout: 60_000 }, async () => {
    const server = await bootServer('sqlite');
    const { dataDir } = server.installation;
    const token = await server.token('olivia');
    await server.close();
    const config = path.join(dataDir, 'log.json');
    writeFileSync(config, JSON.stringify(server.installation.config({ logLevel: 'trace' })));
    const child = fork(
      fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url)),
      ['start', '--config', config],
      { stdio: ['ignore', 'pipe', 'pipe', 'ipc'] },
    );
    let log = '';
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text: Buffer) => (log += text.toString()));
    try {
      const [{ origin }] = (await once(child, 'message')) as [{ origin: string }];
      const olivia = clientsOf(origin, token);
      const api = new Api(origin, token);
      const { body } = await api.post('/itwins', { displayName: randomUUID(), class: 'Endeavor', subClass: 'Project' });
      const made = await makeIModel(olivia, (body as { iTwin: { id: string } }).iTwin.id, { changesets: 1 });
      const { _links } = await olivia.client.changesets.getSingle({
        authorization: olivia.authorization,
        iModelId: made.id,
        changesetIndex: 1,
      });
      const link = new URL(_links.download?.href ?? '');
      assert.equal((await fetch(link)).status, 200);
      assert.equal((await new Api(origin, `${token}x`).get(`/imodels/${made.id}`)).status, 401);
      // A missing file is a server error, which is logged.
      rmSync(path.join(dataDir, 'blobs', 'objects'), { recursive: true });
      assert.equal((await fetch(link)).status, 500);
      child.kill('SIGTERM');
      await once(child, 'exit');
      assert.match(log, /storage request failed/);
      assert.match(log, new RegExp(`/imodels/${made.id}`));
      for (const secret of [
        token,
        token.split('.')[2] ?? '-',
        link.searchParams.get('sig') ?? '-',
        readFileSync(path.join(dataDir, 'issuer.json'), 'utf8').slice(20, 80),
      ])
        assert.ok(!log.includes(secret));
    } finally {
      child.kill('SIGKILL');
      server.installation.remove();
    }
  });
});

describe('offshoot verify', () => {
  test('runs beside the server, reports its findings, and exits with 1 on problems', async () => {
    const server = await bootServer('sqlite');
    try {
      const olivia = await official(server);
      await makeIModel(olivia, await server.iTwin(), { changesets: 1 });
      const { dataDir } = server.installation;
      const run = () =>
        new Promise<{ code: number; stdout: string }>((resolve) => {
          const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
          const child = execFile(
            process.execPath,
            [cli, 'verify', '--data', dataDir, '--deep'],
            { cwd: dataDir },
            (_error, stdout) => resolve({ code: child.exitCode ?? -1, stdout }),
          );
        });
      const whole = await run();
      assert.deepEqual(
        [whole.code, /files, .* MB: all present; 0 orphaned files/.test(whole.stdout)],
        [0, true],
        whole.stdout,
      );
      const { key } = await server.services.database.db
        .selectFrom('changeset as c')
        .innerJoin('blob as b', 'b.id', 'c.blob_id')
        .select('b.key')
        .executeTakeFirstOrThrow();
      const file = path.join(dataDir, 'blobs', 'objects', (key as string).slice(0, 2), key as string);
      renameSync(file, path.join(dataDir, 'aside'));
      const broken = await run();
      assert.deepEqual([broken.code, broken.stdout.includes(`missing  ${key}`)], [1, true], broken.stdout);
      writeFileSync(file, '');
      assert.match((await run()).stdout, /^size /m);
    } finally {
      await endServer(server);
    }
  });
});
