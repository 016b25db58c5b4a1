/**
 * A complete program: opens an iModel of an Offshoot server read-only from its checkpoint; then acquires a briefcase,
 * pushes a change, and releases the briefcase.
 *
 *   node main.ts <server> <token> <iTwinId> <iModelId>
 */
import path from 'node:path';
import { tmpdir } from 'node:os';
import { BriefcaseDb, BriefcaseManager, IModelHost, SnapshotDb, Subject } from '@itwin/core-backend';
import { DbResult } from '@itwin/core-bentley';
import { IModel } from '@itwin/core-common';
import { startOnOffshoot } from '@offshoot/itwinjs';

const [server = '', token = '', iTwinId = '', iModelId = ''] = process.argv.slice(2);
await startOnOffshoot({
  server,
  getAccessToken: async () => `Bearer ${token}`,
  cacheDir: path.join(tmpdir(), `offshoot-example-${process.pid}`),
});
try {
  // Any changeset that has a checkpoint; "" is the baseline, which always has one.
  const db = await SnapshotDb.openCheckpoint({ iTwinId, iModelId, changeset: { id: '', index: 0 } });
  const elements = db.withPreparedStatement('select count(*) from bis.Element', (statement) =>
    statement.step() === DbResult.BE_SQLITE_ROW ? statement.getValue(0).getInteger() : 0,
  );
  console.log(`${db.rootSubject.name}: ${elements} elements in the baseline`);
  db.close();

  // A briefcase consists of the nearest checkpoint and all later changesets.
  const file = await BriefcaseManager.downloadBriefcase({ iTwinId, iModelId });
  const briefcase = await BriefcaseDb.open(file);
  await briefcase.locks.acquireLocks({ shared: IModel.rootSubjectId });
  Subject.insert(briefcase, IModel.rootSubjectId, `added at ${new Date().toISOString()}`);
  briefcase.saveChanges('a subject');
  await briefcase.pushChanges({ description: 'a subject' });
  console.log(`pushed changeset ${briefcase.changeset.index}: ${briefcase.changeset.id}`);
  const { briefcaseId } = briefcase;
  briefcase.close();
  await BriefcaseManager.releaseBriefcase((await IModelHost.getAccessToken()) || token, { iModelId, briefcaseId });
} finally {
  await IModelHost.shutdown();
}
