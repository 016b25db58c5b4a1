import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { LinkKeys } from './linkKeys.ts';

/** What a link allows: one thing, on one blob or one iModel's view of a model file, for a while. */
export interface LinkGrant {
  /** `blobs/{id}`, or `files/{id}/{iModelId}`. */
  resource: string;
  /** Last part of the address. Rule of the API: a changeset's link contains the changeset's id. */
  fileName: string;
  permission: 'r' | 'w';
  /** Id of the share through which it was given out, and with which it ends. */
  share?: string;
}

/** What an answer is given out through, where that is a share: nothing of it outlives the share. */
export interface LinkOrigin {
  id: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
}

/** Why a link was refused. */
export type LinkFault = 'tampered' | 'expired';

/**
 * First part of every address of the data plane. Azure's client wants account and container in the path on localhost
 * and IP hosts.
 */
export const account = 'storage';
export const blobPath = `/${account}/blobs/:blobId/:fileName`;
export const filePath = `/${account}/files/:fileId/:iModelId/:fileName`;
/** Shorter than the addresses above, as Cloud Backed SQLite builds it: account, container, name. */
export const containerPath = `/${account}/:container/:name`;

/**
 * Makes and checks the links of the data plane: an HMAC over what the link allows and until when, so that any server of
 * the installation can check one without keeping anything. Each link carries a nonce, so no two are alike.
 */
export class SignedLinks {
  readonly #keys: Pick<LinkKeys, 'signing' | 'accepted'>;
  readonly #lifeMs: number;

  /** @param lifeSeconds how long a new link is good for */
  constructor(keys: Pick<LinkKeys, 'signing' | 'accepted'>, lifeSeconds: number) {
    this.#keys = keys;
    this.#lifeMs = lifeSeconds * 1000;
  }

  /** When a link that is made now ends, ms since 1970. */
  expiry(): number {
    return Date.now() + this.#lifeMs;
  }

  /** An absolute link below `origin` (`http://host:port`, without a slash at its end). */
  make(origin: string, grant: Omit<LinkGrant, 'share'>, through?: LinkOrigin): string {
    return `${origin}/${account}/${grant.resource}/${encodeURIComponent(grant.fileName)}?${this.#query(grant.permission, partsOf(grant), this.expiry(), through)}`;
  }

  /**
   * A token that lets its holder read a container: the query of every request for it. iTwin.js reads its end from `se`.
   */
  containerToken(container: string, lifeSeconds: number, through?: LinkOrigin): string {
    return this.#query('r', partsOfContainer(container), Date.now() + lifeSeconds * 1000, through);
  }

  /** Checks a token that came back. */
  checkContainer(container: string, query: Record<string, unknown>): Pick<LinkGrant, 'share'> | LinkFault {
    return this.#check(partsOfContainer(container), query);
  }

  /** Checks the parts of a link that came back. A link is judged tampered before it is judged expired. */
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
  ): string {
    const expires = new Date(Math.min(until, through?.expiresAt ?? Infinity)).toISOString();
    const nonce = randomBytes(9).toString('base64url');
    const share = through && { share: through.id };
    return new URLSearchParams({
      sp: permission,
      se: expires,
      nonce,
      ...share,
      sig: sign(this.#keys.signing, [...signed, ...Object.values(share ?? {})], expires, nonce).toString('base64url'),
    }).toString();
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

function sign(key: Buffer, signed: string[], expires: string, nonce: string): Buffer {
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
