import path from 'node:path';
import { randomBytes } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import type { FastifyBaseLogger } from 'fastify';
import { Directory } from './access/directory.ts';
import { EmbeddedIssuer } from './access/embeddedIssuer.ts';
import { Permissions } from './access/permissions.ts';
import { RateLimits } from './access/rateLimits.ts';
import { Tokens } from './access/tokens.ts';
import { Briefcases } from './briefcases/briefcases.ts';
import type { Config } from './config.ts';
import { openDatabase, type Database } from './db/database.ts';
import { Baselines, ensureSeed } from './history/baselines.ts';
import { Changesets } from './history/changesets.ts';
import { collect } from './history/collect.ts';
import { ExtendedData } from './history/extendedData.ts';
import { ChangesetGroups } from './history/groups.ts';
import { Collector } from './history/collector.ts';
import { IModelPermissions } from './imodels/imodelPermissions.ts';
import { IModels } from './imodels/imodels.ts';
import { ITwins } from './itwins/itwins.ts';
import { Members } from './itwins/members.ts';
import { Locks } from './locks/locks.ts';
import { Marks } from './marks/marks.ts';
import { NamedVersions } from './namedVersions/namedVersions.ts';
import { Shares } from './shares/shares.ts';
import { Blobs } from './storage/blobs.ts';
import { FileStore } from './storage/fileStore.ts';
import { SignedLinks } from './storage/signedLinks.ts';
import { Thumbnails } from './thumbnails/thumbnails.ts';
import { Users } from './users/users.ts';

/** Everything that handles requests, wired once. */
export interface Services {
  config: Config;
  database: Database;
  blobs: Blobs;
  signedLinks: SignedLinks;
  directory: Directory;
  tokens: Tokens;
  permissions: Permissions;
  rateLimits: RateLimits;
  users: Users;
  iTwins: ITwins;
  members: Members;
  iModels: IModels;
  iModelPermissions: IModelPermissions;
  baselines: Baselines;
  changesets: Changesets;
  changesetGroups: ChangesetGroups;
  extendedData: ExtendedData;
  marks: Marks;
  thumbnails: Thumbnails;
  shares: Shares;
  briefcases: Briefcases;
  locks: Locks;
  namedVersions: NamedVersions;
  collector: Collector;
  close(): Promise<void>;
}

/** How often the collector also looks at what no deletion has touched. */
const thoroughEveryMs = 24 * 3600 * 1000;

/** Opens the data folder, the database and the store, and builds all services on them. */
export async function openServices(config: Config, log: FastifyBaseLogger): Promise<Services> {
  mkdirSync(config.dataDir, { recursive: true, mode: 0o700 });
  const database = await openDatabase(config);
  try {
    const directory = Directory.open(config.dataDir, (message) => log.error({ message }, 'the users file has a fault; its last good state stays in force'));
    const embedded = config.embeddedIssuer ? await EmbeddedIssuer.open(config.dataDir) : undefined;
    const store = await FileStore.open('files', path.join(config.dataDir, 'blobs'));
    const blobs = new Blobs(database.db, store);
    const seedBaselineId = await ensureSeed(database, blobs);
    const users = new Users(database.db);
    const rateLimits = new RateLimits(config, database);
    const shares = new Shares(database);
    let thoroughAt = Date.now();
    const collector = new Collector(() => {
      const thorough = Date.now() >= thoroughAt;
      if (thorough) thoroughAt = Date.now() + thoroughEveryMs;
      return collect(database, store, {
        graceMs: config.collector.graceSeconds * 1000,
        uploadLifeMs: config.signedLinkSeconds * 1000,
        seedBaselineId,
        thorough,
      });
    }, log);
    return {
      config,
      database,
      blobs,
      signedLinks: new SignedLinks(await linkKey(database), config.signedLinkSeconds),
      directory,
      tokens: new Tokens(config, directory, embedded, shares),
      permissions: new Permissions(database.db),
      rateLimits,
      users,
      iTwins: new ITwins(database, config),
      members: new Members(database, users, directory),
      iModels: new IModels(database, blobs, seedBaselineId),
      iModelPermissions: new IModelPermissions(database),
      baselines: new Baselines(database, blobs),
      changesets: new Changesets(database, blobs, config),
      changesetGroups: new ChangesetGroups(database),
      extendedData: new ExtendedData(database),
      marks: new Marks(database),
      thumbnails: new Thumbnails(database, blobs),
      shares,
      briefcases: new Briefcases(database, config),
      locks: new Locks(database),
      namedVersions: new NamedVersions(database),
      collector,
      close: async () => {
        await collector.stop();
        rateLimits.close();
        await database.close();
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** The key that signs links: made by the first server, shared by all through the database. */
async function linkKey({ db }: Database): Promise<Buffer> {
  await db
    .insertInto('secret')
    .values({ name: 'link-key', value: randomBytes(32).toString('base64') })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  const { value } = await db.selectFrom('secret').select('value').where('name', '=', 'link-key').executeTakeFirstOrThrow();
  return Buffer.from(value, 'base64');
}
