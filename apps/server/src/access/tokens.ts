import type { JWTPayload } from 'jose';
import { BoundedCache } from '../boundedCache.ts';
import type { Config } from '../config.ts';
import type { Caller, HeldShare, Identity, User } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { standardClaims } from './claims.ts';
import { userOfEntry, type Directory } from './directory.ts';
import { IssuerUnavailableError } from './issuerKeys.ts';
import { Issuers, type Embedded, type VerifiedToken } from './issuers.ts';
import { RefusedToken } from './refusedToken.ts';
import { tokenUserOf, type TokenUser } from './tokenUser.ts';

/** How long a verified token is accepted without a new verification, milliseconds. The issuer's keys apply again afterwards. */
const verifiedForMs = 60_000;

/** Opens shares by their keys. Implemented by the shares, which need the permissions of this layer themselves. */
interface ShareKeys {
  open(key: string): Promise<HeldShare | undefined>;
}

/** A caller whose token was verified, and until when that holds. */
interface KnownCaller {
  caller: Caller;
  /** The contents of the users file from which the caller was made. */
  directory: object;
  /** End of the verification, on the monotonic clock. */
  verifiedUntil: number;
}

/** Looks up or assigns user ids. */
interface UserIds {
  idOf(
    identity: Identity,
    options: { isReserved: (id: string) => boolean; claimsEarlier: boolean; bySubject?: Identity },
  ): Promise<string>;
}

/** Determines the caller of a request from its Authorization header. */
export class Tokens {
  readonly #config: Pick<Config, 'defaultTier' | 'tiers'>;
  readonly #directory: Directory;
  readonly #shares: ShareKeys;
  readonly #users: UserIds;
  readonly #issuers: Issuers;
  readonly #verified = new BoundedCache<string, VerifiedToken>(5000, { ttl: verifiedForMs });

  readonly #good = new BoundedCache<string, true>(5000);
  /** Callers by their header. Computing one from verified claims took 6 % of a read. */
  readonly #callers = new BoundedCache<string, KnownCaller>(5000);

  constructor(
    config: Pick<Config, 'requiredScope' | 'defaultTier' | 'tiers' | 'issuers' | 'publicUrl' | 'signIn'>,
    directory: Directory,
    embedded: Embedded | undefined,
    shares: ShareKeys,
    users: UserIds,
  ) {
    this.#config = config;
    this.#directory = directory;
    this.#shares = shares;
    this.#users = users;
    this.#issuers = new Issuers(config, embedded);
  }

  /** The claims of a valid access token, whatever its scope. @throws ApiError */
  async claimsIn(token: string): Promise<JWTPayload> {
    return (await this.#verify(token)).payload;
  }

  /** Whether a request has a token that was verified before and has not expired. Such a sender is not flooding the server with forgeries. */
  isKnown(header: string | undefined): boolean {
    return header !== undefined && this.#good.has(header.trim());
  }

  /** The caller of a header that `authenticate` accepted, without waiting; undefined if it has to be checked again. */
  known(header: string | undefined): Caller | undefined {
    const known = header === undefined ? undefined : this.#callers.get(header);
    return known !== undefined &&
      known.verifiedUntil > performance.now() &&
      (known.caller.tokenEndsAt as number) > Date.now() &&
      known.directory === this.#directory.data
      ? known.caller
      : undefined;
  }

  /**
   * @param header the Authorization header as received
   * @throws ApiError 401 with the documented code, with a RefusedToken as its cause if the token is refused; 503 if the keys of an
   * issuer cannot be fetched
   */
  async authenticate(header: string | undefined): Promise<Caller> {
    if (header === undefined) throw new ApiError('HeaderNotFound');
    const text = header.trim();
    if (text === '') throw new ApiError('InvalidHeaderValue');
    const [scheme = '', ...rest] = text.split(' ');
    if (scheme.toLowerCase() === 'basic') return this.#holderOf(rest.join(' ').trim());
    if (scheme.toLowerCase() !== 'bearer')
      throw new ApiError('InvalidAuthorizationScheme', {
        message: `Authorization scheme '${scheme.slice(0, 50)}' is not valid.`,
      });
    const token = rest.join(' ').trim();
    const verified = await this.#verify(token);
    this.#good.set(text, true, { ttl: Math.max(1, (verified.payload.exp as number) * 1000 - Date.now()) });
    const cause = this.#issuers.scopeFault(verified);
    if (cause !== undefined) throw new ApiError('RequiredScopeMissing', { cause });
    const directory = this.#directory.data;
    const caller = await this.#callerOf(verified);
    const verifiedUntil = performance.now() + this.#verified.getRemainingTTL(token);
    this.#callers.set(header, { caller, directory, verifiedUntil });
    return caller;
  }

  /** Rule of the API: `Basic {shareKey}` identifies the holder of a share's key. */
  async #holderOf(key: string): Promise<Caller> {
    const share = await this.#shares.open(key);
    if (share === undefined) throw new ApiError('Unauthorized');
    const id = `share:${share.id}`;
    return {
      user: {
        id,
        identity: { issuer: 'share', subject: share.id },
        email: id,
        givenName: 'Share',
        surname: share.name,
        organizationId: null,
      },
      application: { id, name: 'Share', tier: this.#config.defaultTier },
      administeredOrganizationIds: [],
      share,
    };
  }

  async #verify(token: string): Promise<VerifiedToken> {
    const verified = this.#verified.get(token);
    if (verified !== undefined && (verified.payload.exp as number) * 1000 > Date.now()) return verified;
    try {
      const checked = await this.#issuers.verify(token);
      this.#verified.set(token, checked);
      return checked;
    } catch (error) {
      // All other errors are faults of the issuer or of the connection to it.
      if (error instanceof RefusedToken) throw new ApiError('Unauthorized', { cause: error });
      const waitMs = error instanceof IssuerUnavailableError ? error.waitMs : 1000;
      throw new ApiError('Unavailable', {
        message: 'The keys of the token issuer cannot be fetched. Try again.',
        headers: { 'retry-after': String(Math.ceil(waitMs / 1000)) },
        cause: error,
      });
    }
  }

  async #callerOf(token: VerifiedToken): Promise<Caller> {
    const described = this.#described(token);
    const { listed, organizationIds, administeredOrganizationIds, application } = described;
    return {
      user:
        listed === undefined
          ? await this.#userOf(token, described)
          : { ...userOfEntry(listed), organizationId: organizationIds[0] ?? null },
      application,
      administeredOrganizationIds,
      tokenEndsAt: (token.payload.exp as number) * 1000,
    };
  }

  #described(token: VerifiedToken): TokenUser {
    try {
      return tokenUserOf(token, this.#directory, this.#config);
    } catch (cause) {
      if (!(cause instanceof RefusedToken)) throw cause;
      throw new ApiError(cause.code === 'tierUnknown' ? 'InvalidApplicationTier' : 'Unauthorized', { cause });
    }
  }

  /** A user who is not in the users file, as described by the token. */
  async #userOf({ payload, issuer }: VerifiedToken, described: TokenUser): Promise<User> {
    const { subject, email, organizationIds } = described;
    const bySubject = { issuer: issuer.name, subject: payload.sub as string };
    const { userId } = issuer.claims;
    const isBySubject = userId === standardClaims.userId;
    // Values of different claims are kept apart: users may be able to choose the value of another claim than the subject.
    const identity = isBySubject ? bySubject : { issuer: `${issuer.name} (${userId})`, subject };
    // An id in the users file belongs to the user named there, not to another issuer's user with the same subject.
    const isReserved = (id: string): boolean => this.#directory.findUserById(id) !== undefined;
    const id = await this.#users.idOf(identity, {
      isReserved,
      claimsEarlier: issuer.claimsEarlierUsers,
      ...(!isBySubject && { bySubject }),
    });
    const name = email ?? described.name ?? id;
    return {
      id,
      identity,
      email: email ?? '',
      givenName: described.givenName ?? name,
      surname: described.surname ?? name,
      organizationId: organizationIds[0] ?? null,
    };
  }
}
