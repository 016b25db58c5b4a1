/**
 * Pushes a row of spheres with iTwin.js: `spheresProcess.ts SERVER TOKEN ITWIN IMODEL COUNT ROW`. A process of its own, because
 * iTwin.js blocks.
 */
import { BriefcaseManager } from '@itwin/core-backend';
import { RealModels } from '../../scripts/realModel.ts';
import { workFolder } from './clients.ts';

const [server = '', token = '', iTwinId = '', iModelId = '', count = '', row = ''] = process.argv.slice(2);
const work = workFolder();
const models = await RealModels.start(work.path, server, token);
try {
  const db = await models.openBriefcase(iTwinId, iModelId);
  await models.pushSpheres(db, Number(count), Number(row));
  const { briefcaseId } = db;
  db.close();
  await BriefcaseManager.releaseBriefcase(`Bearer ${token}`, { iModelId, briefcaseId });
} finally {
  await models.stop();
  work.remove();
}
