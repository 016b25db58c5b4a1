import { rmSync } from 'node:fs';
import path from 'node:path';
import type { FastifyBaseLogger } from 'fastify';
import { AddressLimits } from '../access/addressLimits.ts';
import { Refusals } from '../access/audit.ts';
import { Directory } from '../access/directory.ts';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import { Permissions } from '../access/permissions.ts';
import { RateLimits } from '../access/rateLimits.ts';
import { RefusalLog } from '../access/refusedToken.ts';
import { Tokens } from '../access/tokens.ts';
import { Baselines, ensureSeeds } from '../baselines/baselines.ts';
import { Briefcases } from '../briefcases/briefcases.ts';
import { ChangesetGroups } from '../changesets/changesetGroups.ts';
import { Changesets } from '../changesets/changesets.ts';
import { ExtendedData } from '../changesets/extendedData.ts';
import { ChangesetVerifier } from '../changesets/verifier.ts';
import { Containers } from '../checkpoints/containers.ts';
import { ModelFiles } from '../checkpoints/modelFiles.ts';
import { Graphics } from '../graphics/graphics.ts';
import { Cloning } from '../cloning/cloning.ts';
import type { Config } from '../config.ts';
import { openDatabase, type Database } from '../db/database.ts';
import { guardTransactions } from '../db/guards.ts';
import { observeTransactions } from '../db/requestOutcomes.ts';
import { Webhooks } from '../events/webhooks.ts';
import { FavoritesAndRecents } from '../favorites/favorites.ts';
import { RepeatableRequests } from '../idempotency/repeatableRequests.ts';
import { IModelPermissions } from '../imodels/imodelPermissions.ts';
import { IModels } from '../imodels/imodels.ts';
import { Lineage } from '../imodels/lineage.ts';
import { SearchIndex } from '../imodels/searchIndex.ts';
import { Groups } from '../iTwins/groups.ts';
import { ITwinImages } from '../iTwins/iTwinImages.ts';
import { ITwins } from '../iTwins/itwins.ts';
import { Members } from '../iTwins/members.ts';
import { Repositories } from '../iTwins/repositories.ts';
import { Locks } from '../locks/locks.ts';
import { NamedVersions } from '../namedVersions/namedVersions.ts';
import { within } from '../operations/within.ts';
import { Quotas } from '../quotas/quotas.ts';
import type { Services } from '../services.ts';
import { Shares } from '../shares/shares.ts';
import { Accounts } from '../signIn/accounts.ts';
import { SignInClients } from '../signIn/clients.ts';
import { SignInState } from '../signIn/state.ts';
import { Blobs } from '../storage/blobs.ts';
import { DiskSpace } from '../storage/diskSpace.ts';
import { LinkKeys } from '../storage/linkKeys.ts';
import { SignedLinks } from '../storage/signedLinks.ts';
import { openStores } from '../storage/stores.ts';
import { Uploads } from '../storage/uploads.ts';
import { Pictures } from '../thumbnails/pictures.ts';
import { Thumbnails } from '../thumbnails/thumbnails.ts';
import { Users } from '../users/users.ts';
import { wireCheckpoints, wireDrawer, wireGenerator } from './checkpoints.ts';
import { wireCollector } from './collector.ts';
import { openDataFolder, openWorkFolder } from './dataFolder.ts';
import { wireViewer } from './viewer.ts';
import { wireJobs, wireTransfers } from './jobs.ts';

/** Longest times that the shutdown waits for a step of the collector, the workers and the database connections, milliseconds. */
const stepMs = 2000;
const workerMs = 300;
const closeMs = 2000;

/** Opens the data folder, the database and the stores, and constructs all services on them. */
export async function openServices(config: Config, log: FastifyBaseLogger): Promise<Services> {
  openDataFolder(config.dataDir);
  const space = new DiskSpace(
    config.dataDir,
    config.diskSpace,
    config.databaseUrl === undefined ? path.join(config.dataDir, 'reserve') : undefined,
  );
  // Opening an embedded database needs some space as well.
  await space.makeRoom();
  const database = observeTransactions(guardTransactions(await openDatabase(config)));
  try {
    await space.keepReserve();
    return await wireServices(config, database, space, log);
  } catch (error) {
    await database.close();
    throw error;
  }
}

async function wireServices(
  config: Config,
  database: Database,
  space: DiskSpace,
  log: FastifyBaseLogger,
): Promise<Services> {
  const ending = new AbortController();
  const identity = await wireIdentity(config, database, log);
  const { directory, permissions, users, members, quotas, shares } = identity;
  const stores = await openStores(config, database.db, ending.signal);
  const linkKeys = await LinkKeys.open(database.db, log);
  const blobs = new Blobs(database.db, stores, quotas);
  const uploads = new Uploads(database.db, stores, log, config);
  const modelFiles = new ModelFiles(database, blobs);
  const seeds = await ensureSeeds(database, blobs, modelFiles, config.seedFile);
  const repeatableRequests = new RepeatableRequests(database);
  const jobs = wireJobs(config, database, log);
  // On SQLite this server is the only one: whatever the previous process was running has stopped, so its leases need not expire first.
  if (database.engine === 'sqlite') await Promise.all([jobs.reclaim(), repeatableRequests.reclaim()]);
  const workDir = openWorkFolder(config.dataDir, database.engine === 'sqlite' ? 'alone' : 'beside others');
  const checkpoints = wireCheckpoints(config, database);
  const files = { database, blobs, modelFiles, checkpoints, seeds, quotas };
  const { workers, generator } = wireGenerator(config, { ...files, jobs, workDir });
  const drawer = wireDrawer(config, { ...files, jobs, workDir });
  const graphics = new Graphics(database, checkpoints);
  wireTransfers(config, jobs, { database, blobs, seeds, checkpoints, quotas });
  const verifier = new ChangesetVerifier(config, log);
  const rateLimits = new RateLimits(config, database);
  const pictures = new Pictures();
  const signedLinks = new SignedLinks(linkKeys, config.signedLinkSeconds);
  const viewer = wireViewer(config, { database, stores, checkpoints, signedLinks, workDir, log });
  const collector = wireCollector(config, { database, stores, space, seeds, viewer }, log);
  const searchIndex = new SearchIndex(database, log);
  let abortTimer: NodeJS.Timeout | undefined;
  return {
    config,
    database,
    blobs,
    uploads,
    space,
    signedLinks,
    directory,
    tokens: identity.tokens,
    embedded: identity.embedded,
    accounts: identity.accounts,
    signInState: identity.signInState,
    signInClients: identity.signInClients,
    permissions,
    refusals: new Refusals(database.db),
    refusalLog: new RefusalLog(),
    rateLimits,
    addressLimits: new AddressLimits(config),
    repeatableRequests,
    users,
    iTwins: new ITwins(database, config),
    members,
    iModels: new IModels(database, blobs, seeds, quotas, searchIndex),
    cloning: new Cloning({ database, stores, quotas, checkpoints }),
    lineage: new Lineage(database, permissions),
    iModelPermissions: new IModelPermissions(database, members),
    baselines: new Baselines(database, blobs, uploads, checkpoints),
    changesets: new Changesets({ database, blobs, uploads, checkpoints, verifier }),
    changesetGroups: new ChangesetGroups(database),
    extendedData: new ExtendedData(database),
    favorites: new FavoritesAndRecents(database),
    thumbnails: new Thumbnails(database, blobs, pictures, graphics),
    shares,
    quotas,
    briefcases: new Briefcases(database, config, quotas),
    locks: new Locks(database),
    namedVersions: new NamedVersions(database, checkpoints, quotas),
    webhooks: new Webhooks(database, quotas, config.webhooks),
    groups: new Groups(database, members),
    iTwinImages: new ITwinImages(database, blobs, pictures),
    repositories: new Repositories(database, quotas),
    checkpoints,
    containers: new Containers(database, checkpoints, modelFiles),
    generator,
    graphics,
    drawer,
    viewer,
    workers,
    jobs,
    collector,
    stop: async (graceMs) => {
      abortTimer = setTimeout(() => ending.abort(new Error('the server shuts down')), graceMs);
      await Promise.all([collector.stop(stepMs), jobs.stop(graceMs), within(searchIndex.stop(), stepMs)]);
    },
    close: async () => {
      clearTimeout(abortTimer);
      linkKeys.close();
      await within(searchIndex.stop(), stepMs);
      ending.abort(new Error('the server shuts down'));
      await Promise.all([workers?.stop(workerMs), drawer?.stop(workerMs), viewer.stop(), verifier.close()]);
      rmSync(workDir, { recursive: true, force: true });
      rateLimits.close();
      if (!(await within(database.close(), closeMs)))
        log.warn('the database did not close its connections within the time limit');
    },
  };
}

type Identity = Pick<
  Services,
  | 'directory'
  | 'permissions'
  | 'users'
  | 'members'
  | 'quotas'
  | 'shares'
  | 'tokens'
  | 'embedded'
  | 'accounts'
  | 'signInState'
  | 'signInClients'
>;

/** Who may call the server, and what each caller may do. */
async function wireIdentity(config: Config, database: Database, log: FastifyBaseLogger): Promise<Identity> {
  const directory = Directory.open(config.dataDir, (message) =>
    log.error({ message }, 'the users file has an error; its last valid contents stay in force'),
  );
  const embedded = config.embeddedIssuer ? await EmbeddedIssuer.open(config.dataDir) : undefined;
  const quotas = new Quotas(config.quotas);
  const permissions = new Permissions(database.db);
  const users = new Users(database.db, database.scans);
  const members = new Members(database, users, directory);
  const shares = new Shares({ database, permissions, directory, quotas, usersFileOnly: config.issuers.length === 0 });
  const signInState = new SignInState(database.db);
  const signInClients = new SignInClients(config, signInState);
  const accounts = new Accounts(database.db, directory, signInState);
  const tokens = new Tokens(
    config,
    directory,
    embedded === undefined ? undefined : { issuer: embedded, clients: signInClients },
    shares,
    users,
  );
  return {
    directory,
    permissions,
    users,
    members,
    quotas,
    shares,
    tokens,
    embedded,
    accounts,
    signInState,
    signInClients,
  };
}
