import { createHash, createHmac, randomFillSync, timingSafeEqual, type KeyObject } from 'node:crypto';
import type { LinkKeys } from './linkKeys.ts';

/** What a link permits: reading or writing one blob, or reading a model file with the ids of one iModel. */
export interface LinkGrant {
  /** `blobs/{id}`, `files/{id}/{iModelId}`, or `graphics/{id}`. */
  resource: string;
  /** Last part of the address. Rule of the API: a changeset's link contains the changeset's id. */
  fileName: string;
  permission: 'r' | 'w';
  /** Id of the share through which the link was issued. The link expires with the share. */
  share?: string;
}

/** The share through which a link is issued. Links expire with their share at the latest. */
export interface LinkOrigin {
  id: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
}

/** Why a link was refused. */
export type LinkFault = 'tampered' | 'expired';

/**
 * First path segment of every data plane address. On localhost and IP hosts, Azure's client expects account and
 * container in the path.
 */
export const account = 'storage';
export const blobPath = `/${account}/blobs/:blobId/:fileName`;
export const graphicsPath = `/${account}/graphics/:blobId/:fileName`;
export const filePath = `/${account}/files/:fileId/:iModelId/:fileName`;
/** Path format of Cloud Backed SQLite: account, container, name. */
export const containerPath = `/${account}/:container/:name`;

/**
 * Creates and verifies the links of the data plane. A link is signed with an HMAC over its permission and expiry, so
 * that every server of the installation can verify it without stored state. A nonce makes each link unique.
 */
export class SignedLinks {
  readonly #keys: Pick<LinkKeys, 'signing' | 'accepted'>;
  readonly #lifeMs: number;

  /** @param lifeSeconds lifetime of a new link */
  constructor(keys: Pick<LinkKeys, 'signing' | 'accepted'>, lifeSeconds: number) {
    this.#keys = keys;
    this.#lifeMs = lifeSeconds * 1000;
  }

  /** When a link created now expires, ms since 1970. */
  expiry(): number {
    return Date.now() + this.#lifeMs;
  }

  /** Creates an absolute link. @param origin `http://host:port`, without a trailing slash */
  make(origin: string, grant: Omit<LinkGrant, 'share'>, through?: LinkOrigin): string {
    return `${origin}/${account}/${grant.resource}/${encodeURIComponent(grant.fileName)}?${this.#query(grant.permission, partsOf(grant), this.expiry(), through)}`;
  }

  /**
   * Creates a link that stays the same for a holder for half of its lifetime, so that a browser finds in its cache what it has
   * fetched before. The link is valid for at least half of the lifetime, and never for longer than all of it.
   * @param holder id of the user, because a link may be used a limited number of times at once
   */
  makeRepeatable(
    origin: string,
    grant: Omit<LinkGrant, 'share' | 'permission'>,
    holder: string,
    through?: LinkOrigin,
  ): string {
    const half = this.#lifeMs / 2;
    const until = (Math.floor(Date.now() / half) + 2) * half;
    const nonce = createHash('sha256').update(holder).digest('base64url').slice(0, 12);
    const query = this.#query('r', partsOf({ ...grant, permission: 'r' }), until, through, nonce);
    return `${origin}/${account}/${grant.resource}/${encodeURIComponent(grant.fileName)}?${query}`;
  }

  /**
   * Creates a token for reading a container, which is the query of every request for it. iTwin.js reads the expiry from
   * `se`.
   */
  containerToken(container: string, lifeSeconds: number, through?: LinkOrigin): string {
    return this.#query('r', partsOfContainer(container), Date.now() + lifeSeconds * 1000, through);
  }

  /** Verifies the token of a request. */
  checkContainer(container: string, query: Record<string, unknown>): Pick<LinkGrant, 'share'> | LinkFault {
    return this.#check(partsOfContainer(container), query);
  }

  /** Verifies the link of a request. A link that is both tampered with and expired counts as tampered. */
  check(parts: { resource: string; fileName: string; query: Record<string, unknown> }): LinkGrant | LinkFault {
    const { sp } = parts.query;
    if (sp !== 'r' && sp !== 'w') return 'tampered';
    const grant: LinkGrant = { resource: parts.resource, fileName: parts.fileName, permission: sp };
    const verdict = this.#check(partsOf(grant), parts.query);
    return typeof verdict === 'string' ? verdict : { ...grant, ...verdict };
  }

  #query(
    permission: LinkGrant['permission'],
    signed: string[],
    until: number,
    through: LinkOrigin | undefined,
    nonce = nextNonce(),
  ): string {
    const expires = new Date(Math.min(until, through?.expiresAt ?? Infinity)).toISOString();
    const parts = through === undefined ? signed : [...signed, through.id];
    const share = through === undefined ? '' : `&share=${encodeURIComponent(through.id)}`;
    const sig = sign(this.#keys.signing, parts, expires, nonce).toString('base64url');
    // A page of 100 changesets has 100 links: building their queries with `URLSearchParams` took longer than signing them.
    return `sp=${permission}&se=${encodeURIComponent(expires)}&nonce=${nonce}${share}&sig=${sig}`;
  }

  #check(signed: string[], { se, nonce, sig, share }: Record<string, unknown>): Pick<LinkGrant, 'share'> | LinkFault {
    if (
      typeof se !== 'string' ||
      typeof nonce !== 'string' ||
      typeof sig !== 'string' ||
      (share !== undefined && typeof share !== 'string')
    )
      return 'tampered';
    const given = Buffer.from(sig, 'base64url');
    const isGood = this.#keys.accepted.some((key) => {
      const expected = sign(key, share === undefined ? signed : [...signed, share], se, nonce);
      return given.length === expected.length && timingSafeEqual(given, expected);
    });
    if (!isGood) return 'tampered';
    if (Date.parse(se) <= Date.now()) return 'expired';
    return share === undefined ? {} : { share };
  }
}

const nonceBytes = 9;
/** Random bytes for the next nonces. They are no secret; asking the system for each costs more than the signature (2 to 7 µs). */
const nonces = Buffer.alloc(nonceBytes * 400);
let nonceAt = nonces.length;

function nextNonce(): string {
  if (nonceAt === nonces.length) {
    randomFillSync(nonces);
    nonceAt = 0;
  }
  nonceAt += nonceBytes;
  return nonces.toString('base64url', nonceAt - nonceBytes, nonceAt);
}

function sign(key: KeyObject, signed: string[], expires: string, nonce: string): Buffer {
  return createHmac('sha256', key)
    .update(JSON.stringify([...signed, expires, nonce]))
    .digest();
}

function partsOfContainer(container: string): string[] {
  return ['container', container];
}

function partsOf(grant: LinkGrant): string[] {
  return [grant.permission, grant.resource, grant.fileName];
}
