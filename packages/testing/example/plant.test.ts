/**
 * Tests of an application on iTwin.js with a server of their own in place of HubMock. Each test works on its own clone of one
 * iModel.
 *
 *   node --test plant.test.ts
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, beforeEach, describe, it } from 'node:test';
import { BriefcaseDb, BriefcaseManager, IModelHost, SnapshotDb, Subject } from '@itwin/core-backend';
import { IModel } from '@itwin/core-common';
import { startOnOffshoot } from '@offshoot/itwinjs';
import { startOffshoot, type Hub } from '@offshoot/testing';

/** What the tests of this example check. */
async function addSubject(db: BriefcaseDb, name: string): Promise<void> {
  await db.locks.acquireLocks({ shared: IModel.rootSubjectId });
  Subject.insert(db, IModel.rootSubjectId, name);
  db.saveChanges(name);
  await db.pushChanges({ description: name });
}

function hasSubject(db: BriefcaseDb, name: string): boolean {
  return db.elements.queryElementIdByCode(Subject.createCode(db, IModel.rootSubjectId, name)) !== undefined;
}

describe('The subjects of a plant', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'plant-test-'));
  let hub: Hub;
  let fixture: string;
  let iModelId: string;

  before(async () => {
    hub = await startOffshoot();
    await startOnOffshoot({
      server: hub.origin,
      getAccessToken: async () => `Bearer ${await hub.token()}`,
      cacheDir: path.join(folder, 'cache'),
    });
    const file = path.join(folder, 'plant.bim');
    const seed = SnapshotDb.createEmpty(file, { rootSubject: { name: 'Plant' } });
    seed.saveChanges();
    seed.close();
    fixture = await hub.createIModel(file);
  });

  after(async () => {
    await IModelHost.shutdown();
    await hub.stop();
    rmSync(folder, { recursive: true, force: true });
  });

  beforeEach(async () => {
    iModelId = await hub.clone(fixture);
  });

  async function openBriefcase(): Promise<BriefcaseDb> {
    return BriefcaseDb.open(await BriefcaseManager.downloadBriefcase({ iTwinId: hub.iTwinId, iModelId }));
  }

  it('a pushed subject arrives in another briefcase', async () => {
    const mine = await openBriefcase();
    const yours = await openBriefcase();
    await addSubject(mine, 'Boiler');
    assert.equal(hasSubject(yours, 'Boiler'), false);
    await yours.pullChanges();
    assert.equal(hasSubject(yours, 'Boiler'), true);
    mine.close();
    yours.close();
  });

  it('an iModel has nothing of the test before', async () => {
    const db = await openBriefcase();
    assert.equal(db.changeset.index, 0);
    assert.equal(hasSubject(db, 'Boiler'), false);
    await addSubject(db, 'Boiler');
    assert.equal(db.changeset.index, 1);
    db.close();
  });
});
