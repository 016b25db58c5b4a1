import { decodeJwt, errors, jwtVerify, type CryptoKey, type JWTPayload, type JWTVerifyResult } from 'jose';
import { LRUCache } from 'lru-cache';
import type { Config, IssuerConfig } from '../config.ts';
import type { Caller, HeldShare, Identity, User } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { userOfEntry, type Directory, type DirectoryUser } from './directory.ts';
import { embeddedAudience, type EmbeddedIssuer } from './embeddedIssuer.ts';
import { issuerKeys, IssuerUnavailableError } from './issuerKeys.ts';

/** How long a verified token is accepted without a new verification, milliseconds. The issuer's keys apply again afterwards. */
const verifiedForMs = 60_000;
const clockToleranceSeconds = 5;

/** Errors that the library throws for a token with an invalid form, signature, key or claim. */
const tokenFaults = [
  errors.JWTClaimValidationFailed,
  errors.JWTExpired,
  errors.JWTInvalid,
  errors.JWSInvalid,
  errors.JWSSignatureVerificationFailed,
  errors.JWKSNoMatchingKey,
  errors.JWKSMultipleMatchingKeys,
  errors.JOSEAlgNotAllowed,
  errors.JOSENotSupported,
] as const;

interface TrustedIssuer {
  name: string;
  /** The claims of an access token. @throws what the library throws, and IssuerUnavailableError */
  verify(token: string): Promise<JWTPayload>;
  organizationClaim: string;
  administratorClaim: string;
  /** Whether this is the embedded issuer. Its users exist in the users file only: removing an entry removes the user's access. */
  isEmbedded: boolean;
  /** Whether entries of the users file without an issuer are subjects of this issuer. */
  isDefault: boolean;
  emailsVerified: boolean;
  /** Whether users recorded by an earlier version, which stored only the subject, belong to this issuer. */
  claimsEarlierUsers: boolean;
}

/** Opens shares by their keys. Implemented by the shares, which need the permissions of this layer themselves. */
interface ShareKeys {
  open(key: string): Promise<HeldShare | undefined>;
}

/** Looks up or assigns user ids. */
interface UserIds {
  idOf(identity: Identity, options: { isReserved: (id: string) => boolean; claimsEarlier: boolean }): Promise<string>;
}

/** Determines the caller of a request from its Authorization header. */
export class Tokens {
  readonly #config: Pick<Config, 'requiredScope' | 'defaultTier' | 'tiers'>;
  readonly #directory: Directory;
  readonly #shares: ShareKeys;
  readonly #users: UserIds;
  readonly #issuers = new Map<string, TrustedIssuer>();
  readonly #verified = new LRUCache<string, { payload: JWTPayload; issuer: TrustedIssuer }>({
    max: 5000,
    ttl: verifiedForMs,
  });

  readonly #good = new LRUCache<string, true>({ max: 5000 });

  constructor(
    config: Pick<Config, 'requiredScope' | 'defaultTier' | 'tiers' | 'issuers'>,
    directory: Directory,
    embedded: EmbeddedIssuer | undefined,
    shares: ShareKeys,
    users: UserIds,
  ) {
    this.#config = config;
    this.#directory = directory;
    this.#shares = shares;
    this.#users = users;
    const isOnly = {
      ofAll: config.issuers.length === 1 && embedded === undefined,
      ofItsKind: config.issuers.length === 1,
    };
    for (const issuer of config.issuers) this.#issuers.set(issuer.issuer, oidcIssuer(issuer, isOnly));
    if (embedded !== undefined) this.#issuers.set(embedded.issuer, embeddedIssuer(embedded));
  }

  /** Whether a request has a token that was verified before and has not expired. Such a sender is not flooding the server with forgeries. */
  isKnown(header: string | undefined): boolean {
    return header !== undefined && this.#good.has(header.trim());
  }

  /**
   * @param header the Authorization header as received
   * @throws ApiError 401 with the documented code; 503 if the keys of an issuer cannot be fetched
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
    const { payload, issuer } = await this.#verify(rest.join(' ').trim());
    this.#good.set(text, true, { ttl: Math.max(1, (payload.exp as number) * 1000 - Date.now()) });
    this.#requireScope(payload);
    return this.#callerOf(payload, issuer);
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

  async #verify(token: string): Promise<{ payload: JWTPayload; issuer: TrustedIssuer }> {
    const verified = this.#verified.get(token);
    if (verified !== undefined && (verified.payload.exp as number) * 1000 > Date.now()) return verified;
    const issuer = this.#issuerOf(token);
    if (issuer === undefined) throw new ApiError('Unauthorized');
    try {
      const checked = { payload: await issuer.verify(token), issuer };
      this.#verified.set(token, checked);
      return checked;
    } catch (error) {
      // These errors describe faults of the token; all others are faults of the issuer or of the connection to it.
      if (tokenFaults.some((fault) => error instanceof fault)) throw new ApiError('Unauthorized', { cause: error });
      const waitMs = error instanceof IssuerUnavailableError ? error.waitMs : 1000;
      throw new ApiError('Unavailable', {
        message: 'The keys of the token issuer cannot be fetched. Try again.',
        headers: { 'retry-after': String(Math.ceil(waitMs / 1000)) },
        cause: error,
      });
    }
  }

  #issuerOf(token: string): TrustedIssuer | undefined {
    try {
      return this.#issuers.get(decodeJwt(token).iss ?? '');
    } catch {
      return undefined;
    }
  }

  #requireScope(payload: JWTPayload): void {
    const required = this.#config.requiredScope;
    if (required === null) return;
    const scope = payload['scope'] ?? payload['scp'];
    const scopes = Array.isArray(scope) ? scope : typeof scope === 'string' ? scope.split(' ') : [];
    if (!scopes.includes(required)) throw new ApiError('RequiredScopeMissing');
  }

  async #callerOf(payload: JWTPayload, issuer: TrustedIssuer): Promise<Caller> {
    const subject = payload.sub as string;
    // An unverified e-mail address could belong to anybody, including an administrator in the users file.
    const verified =
      issuer.emailsVerified || payload['email_verified'] === true || payload['email_verified'] === 'true';
    const email = verified ? exactText(payload['email']) : undefined;
    const listed = this.#listed(issuer, subject, email);
    if (listed === undefined && issuer.isEmbedded) throw new ApiError('Unauthorized');

    const applicationId = exactText(payload['client_id']) ?? exactText(payload['azp']) ?? 'unknown';
    const known = this.#directory.findApplication(applicationId);
    const tier = known?.tier ?? this.#config.defaultTier;
    if (!(tier in this.#config.tiers)) throw new ApiError('InvalidApplicationTier');

    const organizationIds =
      listed?.organizationId === undefined ? textsClaim(payload, issuer.organizationClaim) : [listed.organizationId];
    return {
      user:
        listed === undefined
          ? await this.#userOf(payload, issuer, email, organizationIds[0] ?? null)
          : { ...userOfEntry(listed), organizationId: organizationIds[0] ?? null },
      application: { id: applicationId, name: known?.name ?? applicationId, tier },
      administeredOrganizationIds: administered(organizationIds, listed?.organizationAdministrator, payload, issuer),
      tokenEndsAt: (payload.exp as number) * 1000,
    };
  }

  /** The entry of the users file for the user of a token. An entry that names an issuer applies to tokens of that issuer and to minted ones. */
  #listed(issuer: TrustedIssuer, subject: string, verifiedEmail: string | undefined): DirectoryUser | undefined {
    const named = this.#directory.findUserById(subject);
    if (
      named !== undefined &&
      (issuer.isEmbedded || (named.issuer === undefined ? issuer.isDefault : named.issuer === issuer.name))
    )
      return named;
    const byEmail = verifiedEmail === undefined ? undefined : this.#directory.findUserByEmail(verifiedEmail);
    return byEmail?.issuer === undefined || byEmail.issuer === issuer.name ? byEmail : undefined;
  }

  /** A user who is not in the users file, as described by the token. */
  async #userOf(
    payload: JWTPayload,
    issuer: TrustedIssuer,
    email: string | undefined,
    organizationId: string | null,
  ): Promise<User> {
    const identity = { issuer: issuer.name, subject: payload.sub as string };
    // An id in the users file belongs to the user named there, not to another issuer's user with the same subject.
    const isReserved = (id: string): boolean => this.#directory.findUserById(id) !== undefined;
    const id = await this.#users.idOf(identity, { isReserved, claimsEarlier: issuer.claimsEarlierUsers });
    const name = email ?? shownText(payload['name']) ?? shownText(payload['preferred_username']) ?? id;
    return {
      id,
      identity,
      email: email ?? '',
      givenName: shownText(payload['given_name']) ?? name,
      surname: shownText(payload['family_name']) ?? name,
      organizationId,
    };
  }
}

/**
 * The organizations that a caller administers: those in the users file if it defines them, otherwise those of the claim, where `true`
 * means the user's own organizations and a list names them.
 */
function administered(
  organizationIds: readonly string[],
  listed: boolean | readonly string[] | undefined,
  payload: JWTPayload,
  issuer: TrustedIssuer,
): readonly string[] {
  const administrator = listed ?? payload[issuer.administratorClaim];
  if (administrator === true) return organizationIds;
  return listed === undefined
    ? textsClaim(payload, issuer.administratorClaim)
    : listed === false
      ? []
      : (listed as readonly string[]);
}

/** Maximum number of organizations read from a claim; the remaining ones are ignored. */
const maxOrganizations = 1000;

/** The values of a claim that holds one text or a list; empty if the claim is absent. */
function textsClaim(payload: JWTPayload, name: string): string[] {
  const value = payload[name];
  const values: unknown[] = Array.isArray(value) ? value.slice(0, maxOrganizations) : [value];
  return values.map(exactText).filter((text) => text !== undefined);
}

const maxTextLength = 255;

/** A claim used as a key: unchanged or not at all, because a truncated or cleaned value could identify somebody else. */
function exactText(value: unknown): string | undefined {
  return typeof value === 'string' &&
    value !== '' &&
    value.length <= maxTextLength &&
    !/\p{Cc}/u.test(value) &&
    value.isWellFormed()
    ? value
    : undefined;
}

/** A claim used for display only, without control characters and truncated to 255 characters; undefined if it is absent. */
function shownText(value: unknown): string | undefined {
  const text =
    typeof value === 'string'
      ? value
          .replace(/\p{Cc}/gu, '')
          .slice(0, maxTextLength)
          .toWellFormed()
      : '';
  return text === '' ? undefined : text;
}

function embeddedIssuer(embedded: EmbeddedIssuer): TrustedIssuer {
  return {
    name: embedded.issuer,
    isEmbedded: true,
    isDefault: true,
    emailsVerified: false,
    claimsEarlierUsers: false,
    verify: async (token) => {
      const [latest, ...earlier] = await embedded.acceptedKeys();
      const verifyWith = (key: CryptoKey) =>
        jwtVerify(token, key, {
          issuer: embedded.issuer,
          audience: embeddedAudience,
          algorithms: [embedded.algorithm],
          typ: 'JWT',
          requiredClaims: ['exp', 'sub'],
          clockTolerance: clockToleranceSeconds,
        });
      let verified = verifyWith(latest as CryptoKey);
      for (const key of earlier)
        verified = verified.catch((error: unknown) => {
          if (error instanceof errors.JWSSignatureVerificationFailed) return verifyWith(key);
          throw error;
        });
      return accessToken(await verified);
    },
    organizationClaim: 'org',
    administratorClaim: 'org_admin',
  };
}

/** Any OpenID Connect issuer. @param isOnly whether no other issuer is configured, and whether it is the only OpenID Connect issuer */
function oidcIssuer(config: IssuerConfig, isOnly: { ofAll: boolean; ofItsKind: boolean }): TrustedIssuer {
  const keys = issuerKeys(config);
  return {
    name: config.issuer,
    isEmbedded: false,
    isDefault: isOnly.ofAll,
    emailsVerified: config.emailsVerified ?? false,
    claimsEarlierUsers: config.claimsEarlierUsers ?? isOnly.ofItsKind,
    verify: async (token) =>
      accessToken(
        await jwtVerify(token, keys, {
          issuer: config.issuer,
          audience: config.audience,
          algorithms: config.algorithms,
          ...(config.tokenType !== undefined && { typ: config.tokenType }),
          requiredClaims: ['exp', 'sub'],
          clockTolerance: clockToleranceSeconds,
        }),
      ),
    organizationClaim: config.organizationClaim,
    administratorClaim: config.administratorClaim,
  };
}

/** Types of access tokens in the header (RFC 9068; earlier there was no such type), and in the claims of Keycloak and similar issuers. */
const headerTypes: readonly unknown[] = [undefined, 'at+jwt', 'jwt'];
const claimTypes: readonly unknown[] = [undefined, 'at+jwt', 'jwt', 'bearer'];
/** Claims that only ID tokens have (OpenID Connect Core, 3.1.3.6 and 3.3.2.11). */
const idTokenClaims = ['at_hash', 'c_hash'];

/**
 * The claims of a token with a valid signature, if it is an access token and names a user.
 * @throws JWTInvalid for ID, refresh and logout tokens, and for a subject that is not a text of 1 to 255 characters
 */
function accessToken({ payload, protectedHeader }: JWTVerifyResult): JWTPayload {
  const typeIn = (value: unknown): unknown =>
    typeof value === 'string' ? value.toLowerCase().replace(/^application\//, '') : value;
  if (!headerTypes.includes(typeIn(protectedHeader.typ)) || !claimTypes.includes(typeIn(payload['typ'])))
    throw new errors.JWTInvalid('not an access token, by its type');
  if (idTokenClaims.some((claim) => claim in payload))
    throw new errors.JWTInvalid('not an access token, but an ID token');
  if (exactText(payload.sub) === undefined) throw new errors.JWTInvalid('the subject is not usable');
  return payload;
}
