import type { Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { initialMigration } from './0001-initial.ts';
import { versionsAndLocksMigration } from './0002-versions-and-locks.ts';
import { groupsDataMarksMigration } from './0003-groups-data-marks.ts';
import { thumbnailsMigration } from './0004-thumbnails.ts';
import { sharesMigration } from './0005-shares.ts';
import { jobsCheckpointsMigration } from './0006-jobs-checkpoints.ts';
import { eventsITwinsMigration } from './0007-events-itwins.ts';
import { transfersMigration } from './0008-transfers.ts';
import { briefcaseNumbersMigration } from './0009-briefcase-numbers.ts';
import { recordedBriefcasesMigration } from './0010-recorded-briefcases.ts';
import { uploadsMigration } from './0011-uploads.ts';
import { auditByTimeMigration } from './0012-audit-by-time.ts';
import { jobWaitsMigration } from './0013-job-waits.ts';
import { failedCreationsMigration } from './0014-failed-creations.ts';
import { iTwinSurfaceMigration } from './0015-itwin-surface.ts';
import { idempotencyMigration } from './0016-idempotency.ts';
import { identitiesMigration } from './0017-identities.ts';
import { declaredPropertiesMigration } from './0019-declared-properties.ts';
import { blobAccountsMigration } from './0020-blob-accounts.ts';
import { jobUsersMigration } from './0021-job-users.ts';
import { webhookPausesMigration } from './0022-webhook-pauses.ts';
import { listsInOrderMigration } from './0023-lists-in-order.ts';
import { organizationsByTimeMigration } from './0024-organizations-by-time.ts';
import { pushCountsMigration } from './0025-push-counts.ts';
import { iModelsOfUsersMigration } from './0026-imodels-of-users.ts';
import { jobsByKindMigration } from './0027-jobs-by-kind.ts';
import { foreignKeysMigration } from './0030-foreign-keys.ts';
import { historyParentsMigration } from './0031-history-parents.ts';
import { orphanChecksMigration } from './0032-orphan-checks.ts';
import { signInMigration } from './0034-sign-in.ts';
import { graphicsMigration } from './0040-graphics.ts';
import { lineageMigration } from './0043-lineage.ts';
import { pagesBySeeksMigration } from './0045-pages-by-seeks.ts';
import { searchKeysMigration } from './0046-search-keys.ts';
import { versionCountsMigration } from './0047-version-counts.ts';

/** All migrations, in the order of their names. A released migration never changes. */
export function migrationsFor(engine: Engine): Record<string, Migration> {
  return {
    '0001-initial': initialMigration(engine),
    '0002-versions-and-locks': versionsAndLocksMigration(engine),
    '0003-groups-data-marks': groupsDataMarksMigration(engine),
    '0004-thumbnails': thumbnailsMigration(engine),
    '0005-shares': sharesMigration(engine),
    '0006-jobs-checkpoints': jobsCheckpointsMigration(engine),
    '0007-events-itwins': eventsITwinsMigration(engine),
    '0008-transfers': transfersMigration(engine),
    '0009-briefcase-numbers': briefcaseNumbersMigration(engine),
    '0010-recorded-briefcases': recordedBriefcasesMigration(engine),
    '0011-uploads': uploadsMigration(engine),
    '0012-audit-by-time': auditByTimeMigration(),
    '0013-job-waits': jobWaitsMigration(engine),
    '0014-failed-creations': failedCreationsMigration(engine),
    '0015-itwin-surface': iTwinSurfaceMigration(engine),
    '0016-idempotency': idempotencyMigration(engine),
    '0017-identities': identitiesMigration(engine),
    '0019-declared-properties': declaredPropertiesMigration(),
    '0020-blob-accounts': blobAccountsMigration(engine),
    '0021-job-users': jobUsersMigration(engine),
    '0022-webhook-pauses': webhookPausesMigration(engine),
    '0023-lists-in-order': listsInOrderMigration(),
    '0024-organizations-by-time': organizationsByTimeMigration(),
    '0025-push-counts': pushCountsMigration(engine),
    '0026-imodels-of-users': iModelsOfUsersMigration(),
    '0027-jobs-by-kind': jobsByKindMigration(),
    '0030-foreign-keys': foreignKeysMigration(),
    '0031-history-parents': historyParentsMigration(engine),
    '0032-orphan-checks': orphanChecksMigration(engine),
    '0034-sign-in': signInMigration(engine),
    '0040-graphics': graphicsMigration(engine),
    '0043-lineage': lineageMigration(engine),
    '0045-pages-by-seeks': pagesBySeeksMigration(engine),
    '0046-search-keys': searchKeysMigration(engine),
    '0047-version-counts': versionCountsMigration(engine),
  };
}
