/**
 * The vocabulary of Offshoot: one term per concept.
 *
 * - **iTwin**: owns iModels; belongs to one organization and one data center.
 * - **iModel**: a versioned engineering model: one baseline and a chain of changesets. It refers to a history up to its head.
 * - **baseline**: the file at index 0 of an iModel (SQLite inside), immutable, shared by its clones.
 * - **changeset**: an immutable file that leads from one version of an iModel to the next; its id is a SHA-1 over its
 *   parent's id and its contents. Index 1 is the first.
 * - **head**: the index and id of the last changeset that an iModel contains; index 0 and id `""` mean the baseline.
 * - **segment**: a run of changesets written by one iModel. Only its owner appends to it.
 * - **history**: an immutable list of segments with their index ranges, the last range open. iModels share histories,
 *   each up to its own head; a clone only has to store the reference and the head.
 * - **briefcase**: a numbered local copy of an iModel from which its owner pushes changesets.
 * - **checkpoint**: a complete file of an iModel at one changeset, for clients to open or download.
 * - **operation**: the durable record of how an iModel came to be (created, uploaded, cloned) and of its progress.
 * - **store**: a place for blobs, one per data center. **blob**: one immutable file under an opaque key in a store.
 * - **lease**: an exclusive claim that expires by itself, such as the one to push to an iModel.
 */

/** Permissions on iModels that a role can grant. Wire names; `imodels_delete` only has an effect at iTwin level. */
export const imodelPermissions = [
  'imodels_webview',
  'imodels_read',
  'imodels_write',
  'imodels_manage',
  'imodels_delete',
] as const;
export type IModelPermission = (typeof imodelPermissions)[number];

/** Permissions that can be set on a single iModel: all except `imodels_delete`. */
export const ownIModelPermissions = ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage'] as const;

/** Permissions on an iTwin itself, its roles and its members. */
export const administrationPermissions = [
  'administration_manage_roles',
  'administration_invite_member',
  'itwins_modify',
  'webhooks_maintainer',
] as const;
type AdministrationPermission = (typeof administrationPermissions)[number];

/**
 * Permissions that no role can grant. Owners of an iTwin and Organization Administrators hold `administrator`; only
 * Organization Administrators hold `organization_administrator`.
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

/** The geographic area that an iModel covers, degrees. A box with reversed corners is accepted unchanged. */
export interface Extent {
  southWest: GeoPoint;
  northEast: GeoPoint;
}

/** Identifies a user by issuer and subject: different issuers may assign the same subject to different users. */
export interface Identity {
  issuer: string;
  subject: string;
}

/** A user as described by a token or the users file. */
export interface User {
  id: string;
  identity: Identity;
  /** Verified by the issuer or taken from the users file; empty if there is none. */
  email: string;
  givenName: string;
  surname: string;
  organizationId: string | null;
}

/** The form in which e-mail addresses are compared. Only ASCII letters are folded: some other letters fold to ASCII, which would match the address of another user. */
export function emailKey(email: string): string {
  return email.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The OAuth client that a token was issued to. */
export interface Application {
  id: string;
  name: string;
  tier: string;
}

/** The sender of a request. */
export interface Caller {
  user: User;
  application: Application;
  /** Ids of the organizations of which the user is an Organization Administrator, with all permissions on their iTwins. Often empty. */
  administeredOrganizationIds: readonly string[];
  /** Expiry of the access token, ms since 1970; absent for the holder of a share, which has its own expiry. */
  tokenEndsAt?: number;
  /** Set if the request was authenticated by the key of a share instead of a token: access to one iModel, to view or read. */
  share?: HeldShare;
}

/** The holder of permissions: a user and the organizations that the user administers. */
export interface Principal {
  id: string;
  administeredOrganizationIds: readonly string[];
}

/** The share that authenticated a request. */
export interface HeldShare {
  id: string;
  name: string;
  iModelId: string;
  permission: IModelPermission;
  /** Milliseconds since 1970. */
  expiresAt: number;
  /** Its creator, as far as known to the server without a token. */
  creator: Principal;
}

const guidPattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;
const changesetIdPattern = /^[0-9a-f]{40}$/i;

/** The id in its stored form (lower case), or undefined if it is not a valid id. */
export function parseGuid(text: string): string | undefined {
  return guidPattern.test(text) ? text.toLowerCase() : undefined;
}

/** A changeset id (40 hex digits) in its stored form, or undefined. */
export function parseChangesetId(text: string): string | undefined {
  return changesetIdPattern.test(text) ? text.toLowerCase() : undefined;
}

/** A reference to a changeset by index or id. */
export type ChangesetRef = { index: number } | { id: string };

/**
 * Reads the `{changeset}` part of a path. Rule of the API: a text of 1 to 39 digits is an index,
 * everything else an id; 40 digits are therefore an id. Undefined if the text is neither a valid index nor a valid id.
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
