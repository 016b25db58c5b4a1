import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { Api, type Answer } from './support/api.ts';
import { ServerProcess } from './support/child.ts';
import { makeIModel, official, type MadeIModel } from './support/clients.ts';
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

  test('no transaction of many at a time runs into another, and what was answered is what is there', async () => {
    // Without a floor, so that the database itself meets the full disk.
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
          // What a checkpoint of the write-ahead log gives back is taken too.
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
      // A restart on what is on the disk, as a crash would leave it.
      await server.end();
    }
    assert.deepEqual([...new Set(answers.map(({ answer }) => answer.status))].sort(), [202, 507]);
    assert.ok(answers.filter(({ answer }) => answer.status === 507).every(({ answer }) => answer.headers.get('retry-after') !== null));
    const wanted = answers.filter(({ answer }) => answer.status === 202).map(({ name }) => name).sort();

    const again = await installation.start();
    try {
      const { db } = again.services.database;
      const clones = await db.selectFrom('imodel').select(['id', 'name', 'head_index', 'state']).where('name', '!=', made.name).execute();
      assert.deepEqual(clones.map(({ name }) => name).sort(), wanted);
      assert.ok(clones.every(({ head_index, state }) => head_index === 3 && state === 'initialized'));
      const ids = clones.map(({ id }) => id).sort();
      const operations = await db.selectFrom('operation').select('imodel_id').where('kind', '=', 'clone').where('state', '=', 'successful').execute();
      assert.deepEqual(operations.map(({ imodel_id }) => imodel_id).sort(), ids);
      const audited = await db.selectFrom('audit').select('imodel_id').where('action', '=', 'iModel.clone').execute();
      assert.deepEqual(audited.map(({ imodel_id }) => imodel_id).sort(), ids);
    } finally {
      await again.close();
    }
  });
});
