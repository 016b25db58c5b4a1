import path from 'node:path';
import { rmSync } from 'node:fs';
import type { FastifyBaseLogger } from 'fastify';
import { Refusals, removeOldAudit } from '../access/audit.ts';
import { AddressLimits } from '../access/addressLimits.ts';
import { Directory } from '../access/directory.ts';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import { Permissions } from '../access/permissions.ts';
import { RateLimits } from '../access/rateLimits.ts';
import { Tokens } from '../access/tokens.ts';
import { Briefcases } from '../briefcases/briefcases.ts';
import { ChangesetVerifier } from '../changesets/verifier.ts';
import { Checkpoints } from '../checkpoints/checkpoints.ts';
import { Containers } from '../checkpoints/containers.ts';
import { Generator } from '../checkpoints/generate.ts';
import { ModelFiles } from '../checkpoints/modelFiles.ts';
import type { ModelWorker } from '../checkpoints/itwinjs/modelWorker.ts';
import { isITwinJsInstalled, localWorker } from '../checkpoints/itwinjs/workerProcess.ts';
import { Workers } from '../checkpoints/itwinjs/workers.ts';
import { RemoteWorker } from '../checkpoints/itwinjs/service/remoteWorker.ts';
import { Cloning } from '../cloning/cloning.ts';
import { deriveHandler } from '../cloning/deriveJob.ts';
import type { Config } from '../config.ts';
import { openDataFolder, openWorkFolder } from './dataFolder.ts';
import { openDatabase, type Database } from '../db/database.ts';
import { guardTransactions } from '../db/guards.ts';
import { returnFreeSpace } from '../db/sqlite/freeSpace.ts';
import { observeTransactions } from '../db/requestOutcomes.ts';
import { deliveryHandler } from '../events/deliver.ts';
import { Webhooks } from '../events/webhooks.ts';
import { Baselines, ensureSeeds } from '../baselines/baselines.ts';
import { Changesets } from '../changesets/changesets.ts';
import { collect } from '../collector/collect.ts';
import { ExtendedData } from '../changesets/extendedData.ts';
import { ChangesetGroups } from '../changesets/changesetGroups.ts';
import { Collector } from '../collector/collector.ts';
import { RepeatableRequests } from '../idempotency/repeatableRequests.ts';
import { IModelPermissions } from '../imodels/imodelPermissions.ts';
import { IModels } from '../imodels/imodels.ts';
import { Groups } from '../iTwins/groups.ts';
import { ITwins } from '../iTwins/itwins.ts';
import { ITwinThings } from '../iTwins/things.ts';
import { Members } from '../iTwins/members.ts';
import { Locks } from '../locks/locks.ts';
import { FavoritesAndRecents } from '../favorites/favorites.ts';
import { NamedVersions } from '../namedVersions/namedVersions.ts';
import { exponentialBackoff, Jobs } from '../operations/jobs.ts';
import { steadyClock } from '../operations/steadyClock.ts';
import { within } from '../operations/within.ts';
import { Quotas } from '../quotas/quotas.ts';
import { Shares } from '../shares/shares.ts';
import { DiskSpace } from '../storage/diskSpace.ts';
import { Blobs } from '../storage/blobs.ts';
import { openStores } from '../storage/stores.ts';
import { LinkKeys } from '../storage/linkKeys.ts';
import { SignedLinks } from '../storage/signedLinks.ts';
import { Uploads } from '../storage/uploads.ts';
import { Pictures } from '../thumbnails/pictures.ts';
import { Thumbnails } from '../thumbnails/thumbnails.ts';
import { BlobCopier } from '../transfer/blobCopier.ts';
import { transferCheckpointsHandler } from '../transfer/checkpoints.ts';
import { transferFilesHandler } from '../transfer/files.ts';
import { Users } from '../users/users.ts';

/** Everything that handles requests, wired once. */
export interface Services {
  config: Config;
  database: Database;
  blobs: Blobs;
  uploads: Uploads;
  /** Free space of the disk with the embedded database, or with the files in work. */
  space: DiskSpace;
  signedLinks: SignedLinks;
  directory: Directory;
  tokens: Tokens;
  permissions: Permissions;
  refusals: Refusals;
  rateLimits: RateLimits;
  addressLimits: AddressLimits;
  repeatableRequests: RepeatableRequests;
  users: Users;
  iTwins: ITwins;
  members: Members;
  iModels: IModels;
  cloning: Cloning;
  iModelPermissions: IModelPermissions;
  baselines: Baselines;
  changesets: Changesets;
  changesetGroups: ChangesetGroups;
  extendedData: ExtendedData;
  favorites: FavoritesAndRecents;
  thumbnails: Thumbnails;
  shares: Shares;
  quotas: Quotas;
  briefcases: Briefcases;
  locks: Locks;
  namedVersions: NamedVersions;
  webhooks: Webhooks;
  groups: Groups;
  iTwinThings: ITwinThings;
  checkpoints: Checkpoints;
  containers: Containers;
  /** Makes model files here; undefined where iTwin.js is not installed or not wanted. */
  generator: Generator | undefined;
  workers: Workers | undefined;
  jobs: Jobs;
  collector: Collector;
  /** Ends jobs and collector, within `graceMs` and 3 s, whatever hangs; after `graceMs` every call of a store ends too, also those of requests. */
  stop(graceMs: number): Promise<void>;
  /** Lets go of everything, once no request is under way any more. What does not end in time is left as a crash would leave it. */
  close(): Promise<void>;
}

/** Longest wait between attempts of the iTwin.js process. */
const longestRetryMs = 60_000;
/** Messages that this server posts to webhooks at a time. */
const deliverySlots = 8;
/** How often the collector also looks at what no deletion has touched. */
const thoroughEveryMs = 24 * 3600 * 1000;

/** How long a step of the collector may take to end, the worker process, and the connections of the database, when the server ends, milliseconds. */
const stepMs = 2000;
const workerMs = 300;
const closeMs = 2000;

/** Opens the data folder, the database and the store, and builds all services on them. */
export async function openServices(config: Config, log: FastifyBaseLogger): Promise<Services> {
  const ending = new AbortController();
  let endingLate: NodeJS.Timeout | undefined;
  openDataFolder(config.dataDir);
  const space = new DiskSpace(
    config.dataDir,
    config.diskSpace,
    config.databaseUrl === undefined ? path.join(config.dataDir, 'reserve') : undefined,
  );
  // Opening an embedded database takes some room as well.
  await space.makeRoom();
  const database = observeTransactions(guardTransactions(await openDatabase(config)));
  try {
    await space.keepReserve();
    const directory = Directory.open(config.dataDir, (message) =>
      log.error({ message }, 'the users file has a fault; its last good state stays in force'),
    );
    const embedded = config.embeddedIssuer ? await EmbeddedIssuer.open(config.dataDir) : undefined;
    const stores = await openStores(config, database.db, ending.signal);
    const linkKeys = await LinkKeys.open(database.db, log);
    const quotas = new Quotas(config.quotas);
    const blobs = new Blobs(database.db, stores, quotas);
    const uploads = new Uploads(database.db, stores, log, config);
    const modelFiles = new ModelFiles(database, blobs);
    const seeds = await ensureSeeds(database, blobs, modelFiles, config.seedFile);
    const { generate, service } = config.checkpoints;
    const here =
      config.jobs.here &&
      (generate === 'here' || (generate === 'auto' && (service !== undefined || isITwinJsInstalled())));
    const checkpoints = new Checkpoints(database, {
      enabled: here || generate === 'elsewhere' || (!config.jobs.here && generate !== 'off'),
      every: config.checkpoints.everyChangesets,
      delayMs: config.checkpoints.delaySeconds * 1000,
    });
    const leaseMs = config.jobs.leaseSeconds * 1000;
    const jobs = new Jobs(database, log, {
      lease: leaseMs,
      renew: leaseMs / 3,
      progress: config.jobs.progressSeconds * 1000,
    });
    // What ran when the last server on this folder ended runs nowhere now: no lease has to run out first.
    const repeatableRequests = new RepeatableRequests(database);
    if (database.engine === 'sqlite') await Promise.all([jobs.reclaim(), repeatableRequests.reclaim()]);
    if (config.jobs.here && config.webhooks.here)
      jobs.handle(deliverySlots, [deliveryHandler(database, config.webhooks)]);
    const workDir = openWorkFolder(config.dataDir, database.engine === 'sqlite' ? 'alone' : 'beside others');
    const workers = here
      ? new Workers(workDir, config.checkpoints.slots, (folder, slot) => modelWorker(config.checkpoints, folder, slot))
      : undefined;
    const retries = {
      attempts: config.checkpoints.attempts,
      backoffMs: exponentialBackoff(config.checkpoints.firstRetrySeconds * 1000, longestRetryMs),
    };
    const generator =
      workers === undefined
        ? undefined
        : new Generator({ database, blobs, checkpoints, files: modelFiles, workers, retries });
    if (generator !== undefined)
      jobs.handle(config.checkpoints.slots, [
        deriveHandler({ database, blobs, files: modelFiles, checkpoints, generator, seeds, quotas, retries }),
        generator.handler(),
      ]);
    const verifier = new ChangesetVerifier(config, log);
    const permissions = new Permissions(database.db);
    const transfer = {
      database,
      blobs,
      copier: new BlobCopier(blobs, config.transfers.bytesPerSecond),
      seeds,
      checkpoints,
      quotas,
      config: config.transfers,
    };
    if (config.jobs.here && config.transfers.slots > 0)
      jobs.handle(config.transfers.slots, [transferFilesHandler(transfer), transferCheckpointsHandler(transfer)]);
    const users = new Users(database.db);
    const members = new Members(database, users, directory);
    const rateLimits = new RateLimits(config, database);
    const pictures = new Pictures();
    const shares = new Shares({ database, permissions, directory, quotas, usersFileOnly: config.issuers.length === 0 });
    const now = steadyClock(Math.max(config.signedLinkSeconds, config.collector.graceSeconds) * 1000);
    // By the time that passes, whatever the clock says.
    let thoroughAt = performance.now();
    const collector = new Collector(async (signal) => {
      await space.makeRoom();
      await space.keepReserve();
      const thorough = performance.now() >= thoroughAt;
      if (thorough) thoroughAt = performance.now() + thoroughEveryMs;
      const { keepDays } = config.audit;
      if (keepDays > 0) await removeOldAudit(database.db, now() - keepDays * 24 * 3_600_000, signal);
      const collected = await collect(database, stores, {
        graceMs: config.collector.graceSeconds * 1000,
        uploadLifeMs: config.signedLinkSeconds * 1000,
        groupLifeMs: config.changesetGroupHours * 3_600_000,
        seeds,
        now,
        thorough,
        signal,
      });
      if (database.writer !== undefined) await returnFreeSpace(database.writer, signal);
      return collected;
    }, log);
    return {
      config,
      database,
      blobs,
      uploads,
      space,
      signedLinks: new SignedLinks(linkKeys, config.signedLinkSeconds),
      directory,
      tokens: new Tokens(config, directory, embedded, shares, users),
      permissions,
      refusals: new Refusals(database.db),
      rateLimits,
      addressLimits: new AddressLimits(config),
      repeatableRequests,
      users,
      iTwins: new ITwins(database, config),
      members,
      iModels: new IModels(database, blobs, seeds, quotas),
      cloning: new Cloning({ database, stores, quotas, checkpoints }),
      iModelPermissions: new IModelPermissions(database, members),
      baselines: new Baselines(database, blobs, uploads, checkpoints),
      changesets: new Changesets({ database, blobs, uploads, checkpoints, verifier }),
      changesetGroups: new ChangesetGroups(database),
      extendedData: new ExtendedData(database),
      favorites: new FavoritesAndRecents(database),
      thumbnails: new Thumbnails(database, blobs, pictures),
      shares,
      quotas,
      briefcases: new Briefcases(database, config, quotas),
      locks: new Locks(database),
      namedVersions: new NamedVersions(database, checkpoints, quotas),
      webhooks: new Webhooks(database, quotas, config.webhooks),
      groups: new Groups(database, members),
      iTwinThings: new ITwinThings(database, blobs, quotas, pictures),
      checkpoints,
      containers: new Containers(database, checkpoints, modelFiles),
      generator,
      workers,
      jobs,
      collector,
      stop: async (graceMs) => {
        endingLate = setTimeout(() => ending.abort(new Error('the server ends')), graceMs);
        await Promise.all([collector.stop(stepMs), jobs.stop(graceMs)]);
      },
      close: async () => {
        clearTimeout(endingLate);
        linkKeys.close();
        ending.abort(new Error('the server ends'));
        await Promise.all([workers?.stop(workerMs), verifier.close()]);
        rmSync(workDir, { recursive: true, force: true });
        rateLimits.close();
        if (!(await within(database.close(), closeMs)))
          log.warn('the database did not let go of its connections in time');
      },
    };
  } catch (error) {
    await database.close();
    throw error;
  }
}

/** iTwin.js in the iTwin.js service where there is one, else in a process of this server. */
function modelWorker(config: Config['checkpoints'], folder: string, slot: number): ModelWorker {
  if (config.service !== undefined)
    return new RemoteWorker(
      { url: config.service.url, key: config.service.key ?? '' },
      config.isolation,
      config.workSeconds * 1000,
    );
  return localWorker(config, folder, slot);
}
