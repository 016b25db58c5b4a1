import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** What a link allows: one thing, on one blob or one iModel's view of a model file, for a while. */
export interface LinkGrant {
  /** `blobs/{id}`, or `files/{id}/{iModelId}`. */
  resource: string;
  /** Last part of the address. Rule of the API: a changeset's link contains the changeset's id. */
  fileName: string;
  permission: 'r' | 'w';
}

/** Why a link was refused. */
export type LinkFault = 'tampered' | 'expired';

/** First part of every address of the data plane. Azure's client wants account and container in the path on localhost and IP hosts. */
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
  readonly #key: Buffer;
  readonly #lifeMs: number;

  /** @param lifeSeconds how long a new link is good for */
  constructor(key: Buffer, lifeSeconds: number) {
    this.#key = key;
    this.#lifeMs = lifeSeconds * 1000;
  }

  /** When a link that is made now ends, ms since 1970. */
  expiry(): number {
    return Date.now() + this.#lifeMs;
  }

  /** An absolute link below `origin` (`http://host:port`, without a slash at its end). */
  make(origin: string, grant: LinkGrant): string {
    const expires = new Date(this.expiry()).toISOString();
    const nonce = randomBytes(9).toString('base64url');
    const query = new URLSearchParams({ sp: grant.permission, se: expires, nonce, sig: this.#sign(partsOf(grant), expires, nonce).toString('base64url') });
    return `${origin}/${account}/${grant.resource}/${encodeURIComponent(grant.fileName)}?${query.toString()}`;
  }

  /** A token that lets its holder read a container: the query of every request for it. iTwin.js reads its end from `se`. */
  containerToken(container: string, lifeSeconds: number): string {
    const expires = new Date(Date.now() + lifeSeconds * 1000).toISOString();
    const nonce = randomBytes(9).toString('base64url');
    return new URLSearchParams({ sp: 'r', se: expires, nonce, sig: this.#sign(['container', container], expires, nonce).toString('base64url') }).toString();
  }

  /** Checks a token that came back. */
  checkContainer(container: string, query: Record<string, unknown>): 'good' | LinkFault {
    return this.#check(['container', container], query);
  }

  /** Checks the parts of a link that came back. A link is judged tampered before it is judged expired. */
  check(parts: { resource: string; fileName: string; query: Record<string, unknown> }): LinkGrant | LinkFault {
    const { sp } = parts.query;
    if (sp !== 'r' && sp !== 'w') return 'tampered';
    const grant: LinkGrant = { resource: parts.resource, fileName: parts.fileName, permission: sp };
    const verdict = this.#check(partsOf(grant), parts.query);
    return verdict === 'good' ? grant : verdict;
  }

  #check(signed: string[], { se, nonce, sig }: Record<string, unknown>): 'good' | LinkFault {
    if (typeof se !== 'string' || typeof nonce !== 'string' || typeof sig !== 'string') return 'tampered';
    const expected = this.#sign(signed, se, nonce);
    const given = Buffer.from(sig, 'base64url');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return 'tampered';
    return Date.parse(se) > Date.now() ? 'good' : 'expired';
  }

  #sign(signed: string[], expires: string, nonce: string): Buffer {
    return createHmac('sha256', this.#key).update(JSON.stringify([...signed, expires, nonce])).digest();
  }
}

function partsOf(grant: LinkGrant): string[] {
  return [grant.permission, grant.resource, grant.fileName];
}
