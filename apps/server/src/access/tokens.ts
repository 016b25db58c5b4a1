import { createRemoteJWKSet, decodeJwt, errors, jwtVerify, type JWTPayload, type JWTVerifyGetKey } from 'jose';
import { LRUCache } from 'lru-cache';
import type { Config, IssuerConfig } from '../config.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Shares } from '../shares/shares.ts';
import type { Directory } from './directory.ts';
import { embeddedAudience, type EmbeddedIssuer } from './embeddedIssuer.ts';

/** A checked token is believed again without a new check for this long; then its issuer's keys are asked anew. */
const believeMs = 60_000;
const clockToleranceSeconds = 5;

/** What the library throws for a token that is not good, in form, signature, key or claims. */
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
  verify(token: string): Promise<JWTPayload>;
  organizationClaim: string;
  administratorClaim: string;
  /** Users of the embedded issuer live in the users file only: whoever is taken out of it is out. */
  usersFileOnly: boolean;
}

/** Turns the Authorization header of a request into the caller behind it. */
export class Tokens {
  readonly #config: Pick<Config, 'requiredScope' | 'defaultTier' | 'tiers'>;
  readonly #directory: Directory;
  readonly #shares: Shares;
  readonly #issuers = new Map<string, TrustedIssuer>();
  readonly #believed = new LRUCache<string, { payload: JWTPayload; issuer: TrustedIssuer }>({ max: 5000, ttl: believeMs });

  constructor(config: Pick<Config, 'requiredScope' | 'defaultTier' | 'tiers' | 'issuers'>, directory: Directory, embedded: EmbeddedIssuer | undefined, shares: Shares) {
    this.#config = config;
    this.#directory = directory;
    this.#shares = shares;
    for (const issuer of config.issuers) this.#issuers.set(issuer.issuer, oidcIssuer(issuer));
    if (embedded !== undefined) this.#issuers.set(embedded.issuer, embeddedIssuer(embedded));
  }

  /**
   * @param header the Authorization header as it came
   * @throws ApiError 401 with the documented code for what is wrong; 503 when an issuer's keys cannot be fetched
   */
  async authenticate(header: string | undefined): Promise<Caller> {
    if (header === undefined) throw new ApiError('HeaderNotFound');
    const text = header.trim();
    if (text === '') throw new ApiError('InvalidHeaderValue');
    const [scheme = '', ...rest] = text.split(' ');
    if (scheme.toLowerCase() === 'basic') return this.#holderOf(rest.join(' ').trim());
    if (scheme.toLowerCase() !== 'bearer')
      throw new ApiError('InvalidAuthorizationScheme', { message: `Authorization scheme '${scheme.slice(0, 50)}' is not valid.` });
    const { payload, issuer } = await this.#verify(rest.join(' ').trim());
    this.#requireScope(payload);
    return this.#callerOf(payload, issuer);
  }

  /** Rule of the API: `Basic {shareKey}` stands for whoever holds the key of a share. */
  async #holderOf(key: string): Promise<Caller> {
    const share = await this.#shares.open(key);
    if (share === undefined) throw new ApiError('Unauthorized');
    const id = `share:${share.id}`;
    return {
      user: { id, email: id, givenName: 'Share', surname: share.name, organizationId: null },
      application: { id, name: 'Share', tier: this.#config.defaultTier },
      administeredOrganizationIds: [],
      share,
    };
  }

  async #verify(token: string): Promise<{ payload: JWTPayload; issuer: TrustedIssuer }> {
    const believed = this.#believed.get(token);
    if (believed !== undefined && (believed.payload.exp as number) * 1000 > Date.now()) return believed;
    const issuer = this.#issuerOf(token);
    if (issuer === undefined) throw new ApiError('Unauthorized');
    try {
      const checked = { payload: await issuer.verify(token), issuer };
      this.#believed.set(token, checked);
      return checked;
    } catch (error) {
      // What is wrong with the token is told by these; anything else is a fault of the issuer or of the way to it.
      if (tokenFaults.some((fault) => error instanceof fault)) throw new ApiError('Unauthorized', { cause: error });
      throw new ApiError('Unavailable', { message: 'The keys of the token issuer cannot be fetched. Try again.', cause: error });
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
    const scope = payload.scope ?? payload.scp;
    const scopes = Array.isArray(scope) ? scope : typeof scope === 'string' ? scope.split(' ') : [];
    if (!scopes.includes(required)) throw new ApiError('RequiredScopeMissing');
  }

  #callerOf(payload: JWTPayload, issuer: TrustedIssuer): Caller {
    const subject = payload.sub as string;
    // An id is kept as it is or not at all: without the characters that no database can hold it would be somebody else's.
    if (subject.includes('\0') || !subject.isWellFormed()) throw new ApiError('Unauthorized');
    const email = textClaim(payload, 'email');
    // An e-mail that its issuer did not verify could be anybody's, an administrator's of the users file among them.
    const verifiedEmail = payload.email_verified === true ? email : undefined;
    const listed = this.#directory.findUserById(subject) ?? (verifiedEmail === undefined ? undefined : this.#directory.findUserByEmail(verifiedEmail));
    if (listed === undefined && issuer.usersFileOnly) throw new ApiError('Unauthorized');

    const applicationId = textClaim(payload, 'client_id') ?? textClaim(payload, 'azp') ?? 'unknown';
    const known = this.#directory.findApplication(applicationId);
    const tier = known?.tier ?? this.#config.defaultTier;
    if (!(tier in this.#config.tiers)) throw new ApiError('InvalidApplicationTier');

    const organizationIds = listed?.organizationId === undefined ? textsClaim(payload, issuer.organizationClaim) : [listed.organizationId];
    const name = listed?.email ?? email ?? textClaim(payload, 'preferred_username') ?? subject;
    return {
      user: {
        id: listed?.id ?? subject,
        email: name,
        givenName: listed?.givenName ?? textClaim(payload, 'given_name') ?? name,
        surname: listed?.surname ?? textClaim(payload, 'family_name') ?? name,
        organizationId: organizationIds[0] ?? null,
      },
      application: { id: applicationId, name: known?.name ?? applicationId, tier },
      administeredOrganizationIds: administered(organizationIds, listed?.organizationAdministrator, payload, issuer),
    };
  }
}

/**
 * Organizations that a caller administers, by the users file where it says something, else by the claim: `true` means those
 * that the user belongs to, a list names them.
 */
function administered(organizationIds: readonly string[], listed: boolean | readonly string[] | undefined, payload: JWTPayload, issuer: TrustedIssuer): readonly string[] {
  const administrator = listed ?? payload[issuer.administratorClaim];
  if (administrator === true) return organizationIds;
  return listed === undefined ? textsClaim(payload, issuer.administratorClaim) : listed === false ? [] : (listed as readonly string[]);
}

/** More organizations than anybody belongs to; the rest of a longer list is left out. */
const maxOrganizations = 1000;

/** A claim that holds one text or a list of them; empty when absent. */
function textsClaim(payload: JWTPayload, name: string): string[] {
  const value = payload[name];
  const values: unknown[] = Array.isArray(value) ? value.slice(0, maxOrganizations) : [value];
  return values.filter((each) => typeof each === 'string' && each !== '').map(cleaned);
}

/** A text claim without the characters that no database text can hold, at most 255 of them; undefined when absent. */
function textClaim(payload: JWTPayload, name: string): string | undefined {
  const value = payload[name];
  return typeof value === 'string' && value !== '' ? cleaned(value) : undefined;
}

function cleaned(text: unknown): string {
  return (text as string).replaceAll('\0', '').slice(0, 255).toWellFormed();
}

function embeddedIssuer(embedded: EmbeddedIssuer): TrustedIssuer {
  return {
    verify: async (token) =>
      (
        await jwtVerify(token, embedded.publicKey, {
          issuer: embedded.issuer,
          audience: embeddedAudience,
          algorithms: [embedded.algorithm],
          requiredClaims: ['exp', 'sub'],
          clockTolerance: clockToleranceSeconds,
        })
      ).payload,
    organizationClaim: 'org',
    administratorClaim: 'org_admin',
    usersFileOnly: true,
  };
}

/** Any OpenID Connect issuer: its keys come from its discovery document (or `jwksUri`), fetched when first needed. */
function oidcIssuer(config: IssuerConfig): TrustedIssuer {
  let keys: Promise<JWTVerifyGetKey> | undefined;
  const keysOf = (): Promise<JWTVerifyGetKey> => {
    keys ??= discover(config).catch((error: unknown) => {
      keys = undefined; // The next request tries again.
      throw error;
    });
    return keys;
  };
  return {
    verify: async (token) =>
      (
        await jwtVerify(token, await keysOf(), {
          issuer: config.issuer,
          audience: config.audience,
          algorithms: config.algorithms,
          requiredClaims: ['exp', 'sub'],
          clockTolerance: clockToleranceSeconds,
        })
      ).payload,
    organizationClaim: config.organizationClaim,
    administratorClaim: config.administratorClaim,
    usersFileOnly: false,
  };
}

async function discover(config: IssuerConfig): Promise<JWTVerifyGetKey> {
  if (config.jwksUri !== undefined) return createRemoteJWKSet(new URL(config.jwksUri));
  const address = `${config.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const response = await fetch(address, { signal: AbortSignal.timeout(5000), redirect: 'error' });
  if (!response.ok) throw new Error(`${address} answered ${response.status}`);
  const document = (await response.json()) as { issuer?: unknown; jwks_uri?: unknown };
  if (document.issuer !== config.issuer || typeof document.jwks_uri !== 'string') throw new Error(`${address} is not the discovery document of ${config.issuer}`);
  return createRemoteJWKSet(new URL(document.jwks_uri));
}
