import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { existsSync } from 'node:fs';
import { statfs } from 'node:fs/promises';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { Api, type Answer, type WireError } from './support/api.ts';
import { ServerProcess } from './support/serverProcess.ts';
import { makeIModel, official, type MadeIModel } from './support/clients.ts';
import { beginPush, downloadLink } from './support/push.ts';
import { Installation } from './support/server.ts';
import { smallDisk, type SmallDisk } from './support/smallDisk.ts';
import { until } from './support/until.ts';

const probe = smallDisk(1);
const skip = typeof probe === 'string' ? probe : false;
if (typeof probe !== 'string') probe.remove();

describe('On a full disk', { skip }, () => {
  let disk: SmallDisk;
  let installation: Installation;
  let iTwinId: string;
  let made: MadeIModel;
  let token: string;
  before(async () => {
    disk = smallDisk(48) as SmallDisk;
    installation = await Installation.create('sqlite', undefined, disk.folder);
    const server = await installation.start();
    iTwinId = await server.iTwin();
    made = await makeIModel(await official(server), iTwinId, { changesets: 3 });
    token = await server.token('olivia');
    await server.close();
  });
  after(() => disk?.remove());

  test('concurrent transactions stay isolated, and the data matches what was acknowledged', async () => {
    // Without a floor, so that the database itself runs out of space.
    const config = installation.config({ diskSpace: { floorMiB: 0 } });
    const server = new ServerProcess(config);
    await server.start();
    const api = new Api(server.origin, token);
    const answers: { name: string; answer: Answer }[] = [];
    let ending = false;
    const cloners = Array.from({ length: 8 }, async () => {
      while (!ending) {
        const name = randomUUID();
        answers.push({ name, answer: await api.post(`/imodels/${made.id}/clone`, { iTwinId, name }) });
      }
    });
    const refused = () => answers.filter(({ answer }) => answer.status >= 500).length;
    const accepted = () => answers.length - refused();
    try {
      for (let round = 0; round < 3; round++) {
        const [enough, tooMany] = [accepted() + 20, refused() + 60];
        await until('clones are made', () => accepted() >= enough || undefined);
        disk.fill();
        await until('clones are refused', () => {
          // Space that a checkpoint of the write-ahead log frees is filled too.
          disk.fill();
          return refused() >= tooMany || undefined;
        });
        disk.empty();
      }
      const enough = accepted() + 20;
      await until('clones are made again', () => accepted() >= enough || undefined);
    } finally {
      ending = true;
      await Promise.allSettled(cloners);
      // A restart on the files on disk, as after a crash.
      await server.end();
    }
    assert.deepEqual([...new Set(answers.map(({ answer }) => answer.status))].sort(), [202, 507]);
    assert.ok(
      answers
        .filter(({ answer }) => answer.status === 507)
        .every(({ answer }) => answer.headers.get('retry-after') !== null),
    );
    const wanted = answers
      .filter(({ answer }) => answer.status === 202)
      .map(({ name }) => name)
      .sort();

    const again = await installation.start();
    try {
      const { db } = again.services.database;
      const clones = await db
        .selectFrom('imodel')
        .select(['id', 'name', 'head_index', 'state'])
        .where('name', '!=', made.name)
        .execute();
      assert.deepEqual(clones.map(({ name }) => name).sort(), wanted);
      assert.ok(clones.every(({ head_index, state }) => head_index === 3 && state === 'initialized'));
      const ids = clones.map(({ id }) => id).sort();
      const operations = await db
        .selectFrom('operation')
        .select('imodel_id')
        .where('kind', '=', 'clone')
        .where('state', '=', 'successful')
        .execute();
      assert.deepEqual(operations.map(({ imodel_id }) => imodel_id).sort(), ids);
      const audited = await db.selectFrom('audit').select('imodel_id').where('action', '=', 'iModel.clone').execute();
      assert.deepEqual(audited.map(({ imodel_id }) => imodel_id).sort(), ids);
    } finally {
      await again.close();
    }
  });

  test('reading and deleting keep working, writing answers 507, and readiness gives the reason', async () => {
    disk.empty();
    let server = await installation.start();
    try {
      const olivia = await official(server);
      const api = await server.as('olivia');
      const doomed = await makeIModel(olivia, iTwinId, { changesets: 2 });
      const begun = await beginPush(olivia, api, iTwinId, 1000);
      const isReady = async () => (await fetch(`${server.origin}/health/ready`)).status === 200;
      const reads = async () => {
        for (const path of [
          '/itwins',
          `/imodels/${made.id}`,
          `/imodels?iTwinId=${iTwinId}`,
          `/imodels/${made.id}/changesets`,
          `/imodels/${made.id}/baselinefile`,
        ])
          assert.equal((await api.get(path)).status, 200, path);
        assert.equal((await fetch(await downloadLink(api, made.id))).status, 200);
        // Of a user whom the server has not seen yet.
        assert.equal((await (await server.as('admin')).get(`/imodels/${made.id}`)).status, 200);
      };
      assert.equal(await isReady(), true);
      disk.fill();
      await until('the server sees the full disk', async () => !(await isReady()) || undefined);
      const notReady = await fetch(`${server.origin}/health/ready`);
      assert.match(((await notReady.json()) as { reasons: string[] }).reasons.join(), /disk space/);
      await reads();
      // The write-ahead log may shrink at any commit, and room for one more change is not a fault.
      const refusalOf = <T extends { status: number }>(send: () => Promise<T>): Promise<T> =>
        until('a change is refused', async () => {
          disk.fill();
          const answer = await send();
          return answer.status === 507 ? answer : undefined;
        });
      for (const send of [
        () => api.post('/imodels', { iTwinId, name: randomUUID() }),
        () => api.post(`/imodels/${made.id}/clone`, { iTwinId, name: randomUUID() }),
        () => api.patch(`/imodels/${made.id}`, { description: 'no room' }),
        () => begun.complete(),
      ]) {
        const { headers, body } = await refusalOf(send);
        assert.equal((body as WireError).error.code, 'InsufficientStorage');
        assert.ok(Number(headers.get('retry-after')) > 0);
      }
      const upload = await refusalOf(() =>
        fetch(begun.upload, {
          method: 'PUT',
          headers: { 'x-ms-blob-type': 'BlockBlob' },
          body: randomBytes(1000),
        }),
      );
      assert.equal(upload.headers.get('x-ms-error-code'), 'InsufficientStorage');
      assert.equal((await api.delete(`/imodels/${doomed.id}`)).status, 204);
      assert.equal((await api.get(`/imodels/${doomed.id}`)).status, 404);
      await reads();

      // A start on the full disk.
      await server.close();
      server = await installation.start();
      assert.equal((await (await server.as('olivia')).get(`/imodels/${made.id}`)).status, 200);

      disk.empty();
      await until('the server sees the room', async () => (await isReady()) || undefined);
      const again = await server.as('olivia');
      assert.equal((await again.post('/imodels', { iTwinId, name: 'room again' })).status, 201);
      await server.services.collector.runOnce();
      assert.ok(existsSync(path.join(installation.dataDir, 'reserve')));
    } finally {
      await server.close();
    }
  });

  test('uploads stop at the disk space floor, or before it when the declared size exceeds it', async () => {
    disk.empty();
    const server = await installation.start({ diskSpace: { floorMiB: 12, floorPercent: 50 } });
    try {
      const olivia = await official(server);
      const api = await server.as('olivia');
      const tooLarge = await beginPush(olivia, api, iTwinId, 40 * 2 ** 20);
      const put = (href: string, bytes: Buffer) =>
        fetch(href, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob' }, body: bytes });
      const refused = await put(tooLarge.upload, Buffer.alloc(40 * 2 ** 20)).then(
        ({ status }) => status,
        () => 'cut off',
      );
      assert.ok(refused === 507 || refused === 'cut off', String(refused));
      // In blocks, whose total size is not known in advance.
      const block = await fetch(`${tooLarge.upload}&comp=block&blockid=AAAA`, {
        method: 'PUT',
        body: Buffer.alloc(38 * 2 ** 20),
      }).then(
        ({ status }) => status,
        () => 'cut off',
      );
      assert.ok(block === 507 || block === 'cut off', String(block));
      const { bavail, bsize } = await statfs(disk.folder);
      assert.ok(bavail * bsize > 8 * 2 ** 20, 'the floor is free, but for the last look');
      const small = await beginPush(olivia, api, iTwinId, 1000);
      await until(
        'a small upload is taken',
        async () => (await put(small.upload, randomBytes(1000))).status === 201 || undefined,
      );
    } finally {
      await server.close();
    }
  });
});
