import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { DirectoryData } from '../../apps/server/src/access/directory.ts';
import { EmbeddedIssuer } from '../../apps/server/src/access/embeddedIssuer.ts';
import { emptyIModel, makeInstallation, type Installation } from '../installation.ts';
import { openBulk } from './bulk.ts';
import { idOf } from './ids.ts';
import { addChangesets, addIModels, addJobs } from './models.ts';
import { addPeople } from './people.ts';

/** Ids of what the measurements use. */
export interface Content {
  ownerId: string;
  /** An iTwin with `size` iModels, all hidden from its members. */
  manyId: string;
  /** With 10 × `size` changesets, and `size` locks, users and versions. */
  largeId: string;
  /** An iTwin with `size` members and groups, and an iModel there. */
  crowdId: string;
  crowdIModelId: string;
  /** The baseline that all iModels share, and its file. */
  baselineId: string;
  blobId: string;
  storeId: string;
  /** Tokens of members of both iTwins, who manage neither. */
  tokens: string[];
}

/** An installation of a size: `size` iModels, iTwins, users, members, groups and locks; ten times as many changesets. */
export async function makeData(
  dataDir: string,
  databaseUrl: string | undefined,
  size: number,
  activeUsers: number,
): Promise<Installation<Content>> {
  const installation = await makeInstallation(
    dataDir,
    databaseUrl,
    async (services, caller, manyId): Promise<Content> => {
      const { id: crowdId } = await services.iTwins.create(caller, {
        class: 'Endeavor',
        subClass: 'Project',
        type: null,
        number: undefined,
        displayName: 'Crowd',
        geographicLocation: null,
        dataCenterLocation: undefined,
        status: 'Active',
        parentId: null,
        organizationId: caller.user.organizationId,
      });
      const largeId = await emptyIModel(services, caller, manyId);
      const baseline = await services.database.db
        .selectFrom('baseline as s')
        .innerJoin('imodel as m', 'm.baseline_id', 's.id')
        .select(['s.id', 's.blob_id'])
        .where('m.id', '=', largeId)
        .executeTakeFirstOrThrow();
      return {
        ownerId: caller.user.id,
        manyId,
        largeId,
        crowdId,
        crowdIModelId: await emptyIModel(services, caller, crowdId),
        baselineId: baseline.id,
        blobId: baseline.blob_id,
        storeId: services.blobs.stores.home.id,
        tokens: [],
      };
    },
    // The start looks for missing checkpoints; nobody makes them. Runs of the collector are started by the benchmark.
    { checkpoints: { generate: 'elsewhere' }, collector: { intervalSeconds: 0, graceSeconds: 0 } },
  );
  const { content } = installation;
  content.tokens = await addToUsersFile(dataDir, size, Math.min(size, activeUsers));
  const bulk = await openBulk(dataDir, databaseUrl);
  try {
    await addPeople(bulk, content, size);
    await addIModels(bulk, content, size);
    await addChangesets(bulk, content, size, path.join(dataDir, 'blobs', 'objects'));
    await addJobs(bulk, content, Math.floor(size / 5));
  } finally {
    await bulk.finish();
  }
  return installation;
}

/** Adds users to the users file. @returns tokens of the first ones */
async function addToUsersFile(dataDir: string, size: number, active: number): Promise<string[]> {
  const file = path.join(dataDir, 'users.json');
  const directory = JSON.parse(readFileSync(file, 'utf8')) as DirectoryData;
  const users = Array.from({ length: size }, (_, n) => ({
    id: idOf('user', n),
    email: `user${n}@example.com`,
    givenName: 'User',
    surname: String(n),
  }));
  directory.users.push(...users);
  writeFileSync(file, JSON.stringify(directory));
  const issuer = await EmbeddedIssuer.open(dataDir);
  const tokens: string[] = [];
  for (const user of users.slice(0, active))
    tokens.push(await issuer.mint(user, { applicationId: 'offshoot-cli', scope: 'itwin-platform', lifeSeconds: 3600 }));
  return tokens;
}
