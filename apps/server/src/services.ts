import type { Refusals } from './access/audit.ts';
import type { AddressLimits } from './access/addressLimits.ts';
import type { Directory } from './access/directory.ts';
import type { EmbeddedIssuer } from './access/embeddedIssuer.ts';
import type { Permissions } from './access/permissions.ts';
import type { RateLimits } from './access/rateLimits.ts';
import type { RefusalLog } from './access/refusedToken.ts';
import type { Tokens } from './access/tokens.ts';
import type { Briefcases } from './briefcases/briefcases.ts';
import type { Checkpoints } from './checkpoints/checkpoints.ts';
import type { Containers } from './checkpoints/containers.ts';
import type { Generator } from './checkpoints/generate.ts';
import type { Workers } from './checkpoints/itwinjs/workers.ts';
import type { Drawer } from './graphics/drawer.ts';
import type { Graphics } from './graphics/graphics.ts';
import type { Cloning } from './cloning/cloning.ts';
import type { Config } from './config.ts';
import type { Database } from './db/database.ts';
import type { Webhooks } from './events/webhooks.ts';
import type { Baselines } from './baselines/baselines.ts';
import type { Changesets } from './changesets/changesets.ts';
import type { ExtendedData } from './changesets/extendedData.ts';
import type { ChangesetGroups } from './changesets/changesetGroups.ts';
import type { Collector } from './collector/collector.ts';
import type { RepeatableRequests } from './idempotency/repeatableRequests.ts';
import type { IModelPermissions } from './imodels/imodelPermissions.ts';
import type { IModels } from './imodels/imodels.ts';
import type { Lineage } from './imodels/lineage.ts';
import type { Groups } from './iTwins/groups.ts';
import type { ITwins } from './iTwins/itwins.ts';
import type { Members } from './iTwins/members.ts';
import type { Locks } from './locks/locks.ts';
import type { FavoritesAndRecents } from './favorites/favorites.ts';
import type { NamedVersions } from './namedVersions/namedVersions.ts';
import type { Jobs } from './operations/jobs.ts';
import type { Quotas } from './quotas/quotas.ts';
import type { Shares } from './shares/shares.ts';
import type { Accounts } from './signIn/accounts.ts';
import type { SignInClients } from './signIn/clients.ts';
import type { SignInState } from './signIn/state.ts';
import type { DiskSpace } from './storage/diskSpace.ts';
import type { Blobs } from './storage/blobs.ts';
import type { SignedLinks } from './storage/signedLinks.ts';
import type { Uploads } from './storage/uploads.ts';
import type { Thumbnails } from './thumbnails/thumbnails.ts';
import type { Viewer } from './viewer/viewer.ts';
import type { Users } from './users/users.ts';
import type { ITwinImages } from './iTwins/iTwinImages.ts';
import type { Repositories } from './iTwins/repositories.ts';

/** The services that handle requests and jobs. `wiring/services.ts` constructs each of them once. */
export interface Services {
  config: Config;
  database: Database;
  blobs: Blobs;
  uploads: Uploads;
  /** Free space of the disk that holds the embedded database, or the temporary files of jobs. */
  space: DiskSpace;
  signedLinks: SignedLinks;
  directory: Directory;
  tokens: Tokens;
  /** The issuer of this installation; undefined if it is switched off. */
  embedded: EmbeddedIssuer | undefined;
  /** Passwords of the users of the users file. */
  accounts: Accounts;
  signInState: SignInState;
  signInClients: SignInClients;
  permissions: Permissions;
  refusals: Refusals;
  refusalLog: RefusalLog;
  rateLimits: RateLimits;
  addressLimits: AddressLimits;
  repeatableRequests: RepeatableRequests;
  users: Users;
  iTwins: ITwins;
  members: Members;
  iModels: IModels;
  cloning: Cloning;
  lineage: Lineage;
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
  iTwinImages: ITwinImages;
  repositories: Repositories;
  checkpoints: Checkpoints;
  containers: Containers;
  /** Generates model files in this server; undefined if iTwin.js is not installed or not wanted. */
  generator: Generator | undefined;
  graphics: Graphics;
  /** Draws in this server; undefined if it does not. */
  drawer: Drawer | undefined;
  /** Answers viewers that are built on iTwin.js. */
  viewer: Viewer;
  workers: Workers | undefined;
  jobs: Jobs;
  collector: Collector;
  /**
   * Stops the jobs and the collector within `graceMs` plus 3 s, even if a step hangs. After `graceMs` it also aborts every call
   * of a store, including those of requests.
   */
  stop(graceMs: number): Promise<void>;
  /** Releases all resources; call it when no request is in progress. A resource that does not close in time is left as a crash would leave it. */
  close(): Promise<void>;
}
