import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';

/** What a link allows: one thing, on one blob, for a while. */
export interface LinkGrant {
  blobId: string;
  /** Last part of the address. Rule of the API: a changeset's link contains the changeset's id. */
  fileName: string;
  permission: 'r' | 'w';
}

/** Why a link was refused. */
export type LinkFault = 'tampered' | 'expired';

const account = 'storage';
/** Parts of the address before the blob. Azure's client wants account and container in the path on localhost and IP hosts. */
export const linkPath = `/${account}/blobs/:blobId/:fileName`;

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

  /** An absolute link below `origin` (`http://host:port`, without a slash at its end). */
  make(origin: string, grant: LinkGrant): string {
    const expires = new Date(Date.now() + this.#lifeMs).toISOString();
    const nonce = randomBytes(9).toString('base64url');
    const query = new URLSearchParams({ sp: grant.permission, se: expires, nonce, sig: this.#sign(grant, expires, nonce).toString('base64url') });
    return `${origin}/${account}/blobs/${grant.blobId}/${encodeURIComponent(grant.fileName)}?${query.toString()}`;
  }

  /** Checks the parts of a link that came back. A link is judged tampered before it is judged expired. */
  check(parts: { blobId: string; fileName: string; query: Record<string, unknown> }): LinkGrant | LinkFault {
    const { sp, se, nonce, sig } = parts.query;
    if ((sp !== 'r' && sp !== 'w') || typeof se !== 'string' || typeof nonce !== 'string' || typeof sig !== 'string') return 'tampered';
    const grant: LinkGrant = { blobId: parts.blobId, fileName: parts.fileName, permission: sp };
    const expected = this.#sign(grant, se, nonce);
    const given = Buffer.from(sig, 'base64url');
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return 'tampered';
    return Date.parse(se) > Date.now() ? grant : 'expired';
  }

  #sign(grant: LinkGrant, expires: string, nonce: string): Buffer {
    return createHmac('sha256', this.#key).update(JSON.stringify([grant.permission, grant.blobId, grant.fileName, expires, nonce])).digest();
  }
}
