/**
 * The words of Offshoot, one for each thing.
 *
 * - **iTwin**: owns iModels; belongs to one organization and one data center.
 * - **iModel**: a versioned engineering model: one baseline and a chain of changesets. It sees a history up to its head.
 * - **baseline**: the file at index 0 of an iModel (SQLite inside), immutable, shared by its clones.
 * - **changeset**: an immutable file that leads from one version of an iModel to the next; its id is a SHA-1 over its
 *   parent's id and its contents. Index 1 is the first.
 * - **head**: the index (and id) of the last changeset that an iModel sees; index 0 and id `""` mean the baseline.
 * - **segment**: a run of changesets written by one iModel. Only its owner appends to it.
 * - **history**: an immutable list of segments with their index ranges, the last range open. iModels share histories and
 *   cut them at their own head, which is all that a clone has to write down.
 * - **briefcase**: a numbered local copy of an iModel from which its owner pushes changesets.
 * - **checkpoint**: a ready-made file of an iModel at one changeset.
 * - **operation**: the durable record of how an iModel came to be (created, uploaded, cloned) and how far that is.
 * - **store**: a place for blobs, one per data center. **blob**: one immutable file under an opaque key in a store.
 * - **lease**: a claim that runs out by itself, such as the turn to push.
 */

/** What a role may allow on iModels. Wire names; `imodels_delete` counts at iTwin level only. */
export const imodelPermissions = [
  'imodels_webview',
  'imodels_read',
  'imodels_write',
  'imodels_manage',
  'imodels_delete',
] as const;
export type IModelPermission = (typeof imodelPermissions)[number];

/** Permissions that an iModel of its own may hand out: all but `imodels_delete`. */
export const ownIModelPermissions = ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage'] as const;

/** Permissions over an iTwin itself, its roles and its members. */
export const administrationPermissions = [
  'administration_manage_roles',
  'administration_invite_member',
  'itwins_modify',
  'webhooks_maintainer',
] as const;
type AdministrationPermission = (typeof administrationPermissions)[number];

/**
 * What no role gives: `administrator` is held by owners of an iTwin and by Organization Administrators, the other by these
 * alone.
 */
type AdministratorPermission = 'administrator' | 'organization_administrator';

export type Permission = IModelPermission | AdministrationPermission | AdministratorPermission;

export type IModelState = 'notInitialized' | 'initialized';
export type OperationState =
  'waitingForFile' | 'scheduled' | 'successful' | 'failed' | 'mainIModelIsMissingFederationGuids';
export type BaselineState =
  'waitingForFile' | 'initializationScheduled' | 'initialized' | 'initializationFailed' | 'fileIsBriefcase';

interface GeoPoint {
  latitude: number;
  longitude: number;
}

/** The area on earth that an iModel covers, degrees. A "reversed" box is accepted as it comes. */
export interface Extent {
  southWest: GeoPoint;
  northEast: GeoPoint;
}

/** Who names a user, and how: a subject alone is a user of any issuer that gives it out. */
export interface Identity {
  issuer: string;
  subject: string;
}

/** A user as tokens and the users file describe it. */
export interface User {
  id: string;
  identity: Identity;
  /** One that the issuer has verified, or of the users file; empty where there is none. */
  email: string;
  givenName: string;
  surname: string;
  organizationId: string | null;
}

/** An e-mail in the form in which two are compared. Only ASCII letters are folded: others fold into them, and would be somebody else's. */
export function emailKey(email: string): string {
  return email.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The OAuth client that a token was issued to. */
export interface Application {
  id: string;
  name: string;
  tier: string;
}

/** Who sends a request, with what. */
export interface Caller {
  user: User;
  application: Application;
  /** Ids of the organizations whose Organization Administrator this is: may do everything on all their iTwins. Often empty. */
  administeredOrganizationIds: readonly string[];
  /** When the token ends by which the caller is known, ms since 1970; absent for the holder of a share, which has an end of its own. */
  tokenEndsAt?: number;
  /** Set when nobody in person asks but whoever holds the key of a share: one iModel, to look at or read. */
  share?: HeldShare;
}

/** What permissions are held by: a user, with the organizations that this one administers. */
export interface Principal {
  id: string;
  administeredOrganizationIds: readonly string[];
}

/** A share as its holder has it. */
export interface HeldShare {
  id: string;
  name: string;
  iModelId: string;
  permission: IModelPermission;
  /** Milliseconds since 1970. */
  expiresAt: number;
  /** Its creator, with what the server knows of them without a token. */
  creator: Principal;
}

const guidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const changesetIdPattern = /^[0-9a-f]{40}$/i;

/** The id in its stored form (lower case), or undefined when it cannot be the id of anything here. */
export function parseGuid(text: string): string | undefined {
  return guidPattern.test(text) ? text.toLowerCase() : undefined;
}

/** A changeset id (40 hex digits) in its stored form, or undefined. */
export function parseChangesetId(text: string): string | undefined {
  return changesetIdPattern.test(text) ? text.toLowerCase() : undefined;
}

/** What a caller names a changeset by. */
export type ChangesetRef = { index: number } | { id: string };

/**
 * Reads the `{changeset}` part of a path. Rule of the API: only digits and fewer than 40 of them is an index, everything
 * else an id, so 40 digits are an id. Undefined when it can name no changeset at all.
 */
export function parseChangesetRef(text: string): ChangesetRef | undefined {
  if (/^\d{1,39}$/.test(text)) {
    const index = Number(text);
    return Number.isSafeInteger(index) ? { index } : undefined;
  }
  const id = parseChangesetId(text);
  return id === undefined ? undefined : { id };
}

/**
 * Isolation levels, from weak to strong. `process`: a separate process with an empty environment. `user`: also a
 * separate user, who cannot read the server's files. `namespaces`: access only to the working folder, Node and the
 * installed packages, and no network.
 */
export const isolationLevels = ['process', 'user', 'namespaces'] as const;
export type IsolationLevel = (typeof isolationLevels)[number];

/**
 * Maximum number of pixels of a picture. A PNG is decoded completely, with four bytes per pixel; 4096 × 4096 pixels are
 * 40 times those of a thumbnail. A JPEG is decoded at a reduced scale, so a photo of 50 megapixels needs less memory
 * than that.
 */
export const maxPixels = { png: 4096 * 4096, jpeg: 50_000_000 } as const;
