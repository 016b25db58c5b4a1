import {
  decodeJwt,
  decodeProtectedHeader,
  errors,
  jwtVerify,
  type CryptoKey,
  type JWTPayload,
  type JWTVerifyResult,
} from 'jose';
import type { Config, IssuerConfig } from '../config.ts';
import { claimAt, claimsOf, exactText, rolesOf, scopesOf, standardClaims, type ClaimNames } from './claims.ts';
import { embeddedAudience, type EmbeddedIssuer } from './embeddedIssuer.ts';
import { issuerKeys } from './issuerKeys.ts';
import {
  clockToleranceSeconds,
  malformedRefusal,
  quoted,
  refusalOf,
  RefusedToken,
  scopeRefusal,
  userIdRefusal,
  type Expected,
} from './refusedToken.ts';
import { isSignInIssuer } from './signInIssuer.ts';

/** An issuer whose tokens the server accepts. */
export interface TrustedIssuer {
  name: string;
  /** The claims of an access token. @throws what the library throws, RefusedToken and IssuerUnavailableError */
  verify(token: string): Promise<JWTPayload>;
  expected: Expected;
  claims: ClaimNames;
  /** Roles whose holders administer their own organizations. */
  administratorRoles: readonly string[];
  /** Tiers of applications by role, in order of precedence. */
  tierRoles: readonly (readonly [role: string, tier: string])[];
  /** The organization of users whose token names none. */
  organization: string | undefined;
  /** Whether this is the embedded issuer. Its users exist in the users file only: removing an entry removes the user's access. */
  isEmbedded: boolean;
  /** Whether entries of the users file without an issuer are subjects of this issuer. */
  isDefault: boolean;
  emailsVerified: boolean;
  /** Whether users recorded by an earlier version, which stored only the subject, belong to this issuer. */
  claimsEarlierUsers: boolean;
  /** Whether it issues tokens to applications for themselves, with the client id as the subject. */
  hasClients?: boolean;
}

/** The embedded issuer, and the applications that it issues tokens to. */
export interface Embedded {
  issuer: EmbeddedIssuer;
  clients: { find(id: string): Promise<object | undefined> };
}

/** A verified token. */
export interface VerifiedToken {
  payload: JWTPayload;
  issuer: TrustedIssuer;
}

/** The issuers of an installation. */
export class Issuers {
  readonly #requiredScope: string | null;
  readonly #issuers = new Map<string, TrustedIssuer>();
  readonly #config: Pick<Config, 'publicUrl' | 'signIn'>;
  readonly #embedded: Embedded | undefined;

  constructor(
    config: Pick<Config, 'requiredScope' | 'issuers' | 'publicUrl' | 'signIn'>,
    embedded: Embedded | undefined,
  ) {
    this.#requiredScope = config.requiredScope;
    this.#config = config;
    this.#embedded = embedded;
    const isOnly = {
      ofAll: config.issuers.length === 1 && embedded === undefined,
      ofItsKind: config.issuers.length === 1,
    };
    for (const issuer of config.issuers) this.#issuers.set(issuer.issuer, oidcIssuer(issuer, isOnly));
    if (embedded !== undefined) this.#issuers.set(embedded.issuer.issuer, embeddedIssuer(embedded.issuer));
  }

  /** @throws RefusedToken; what fetching the keys of the issuer throws */
  async verify(token: string): Promise<VerifiedToken> {
    const { payload: claimed, issuer } = this.issuerOf(token);
    try {
      return { payload: await issuer.verify(token), issuer };
    } catch (error) {
      throw refusalOf(error, claimed, decodeProtectedHeader(token), issuer.expected) ?? error;
    }
  }

  /** The configured issuer that a token names, and what the token claims; nothing is verified. @throws RefusedToken */
  issuerOf(token: string): VerifiedToken {
    let payload: JWTPayload;
    try {
      decodeProtectedHeader(token);
      payload = decodeJwt(token);
    } catch (error) {
      throw malformedRefusal(error);
    }
    // Nothing is verified yet: the claim may have any type.
    const named: unknown = payload.iss;
    const issuer = typeof named === 'string' ? (this.#issuers.get(named) ?? this.#signIn(named)) : undefined;
    if (issuer === undefined)
      throw new RefusedToken(
        'issuerUnknown',
        `its issuer is ${quoted(payload.iss)}; configured are ${quoted([...this.#issuers.keys()])}`,
        { remedy: 'Add the issuer to `issuers`, spelled exactly as in the `iss` claim of its tokens.' },
      );
    return { payload, issuer };
  }

  /** The embedded OpenID Provider, if this is its address. */
  #signIn(issuer: string): TrustedIssuer | undefined {
    return this.#embedded !== undefined && isSignInIssuer(this.#config, issuer)
      ? signInIssuer(this.#embedded, issuer)
      : undefined;
  }

  /** The refusal of a token without the required scope; undefined if it has it, or none is required. */
  scopeFault({ payload, issuer }: VerifiedToken): RefusedToken | undefined {
    const required = this.#requiredScope;
    const found = scopesOf(payload, issuer.claims);
    return required === null || found.includes(required) ? undefined : scopeRefusal(found, required, issuer.name);
  }
}

/** What identifies the user of a token. @throws RefusedToken if the claim is absent */
export function userIdOf(payload: JWTPayload, { claims, name }: TrustedIssuer): string {
  const id = exactText(claimAt(payload, claims.userId));
  if (id === undefined) throw userIdRefusal(claims.userId, name);
  return id;
}

/** The tier that the roles of a token give its application, if they give one. */
export function tierByRole(payload: JWTPayload, { claims, tierRoles }: TrustedIssuer): string | undefined {
  if (tierRoles.length === 0) return undefined;
  const roles = rolesOf(payload, claims);
  return tierRoles.find(([role]) => roles.has(role))?.[1];
}

function embeddedIssuer(embedded: EmbeddedIssuer): TrustedIssuer {
  return {
    name: embedded.issuer,
    expected: { issuer: embedded.issuer, audiences: [embeddedAudience], algorithms: [embedded.algorithm] },
    claims: standardClaims,
    administratorRoles: [],
    tierRoles: [],
    organization: undefined,
    isEmbedded: true,
    isDefault: true,
    emailsVerified: false,
    claimsEarlierUsers: false,
    verify: async (token) => verifyEmbedded(embedded, token, { issuer: embedded.issuer, typ: 'JWT' }),
  };
}

/** The embedded OpenID Provider at one address. Its users are those of the users file, its keys those of minted tokens. */
function signInIssuer({ issuer: embedded, clients }: Embedded, address: string): TrustedIssuer {
  const trusted: TrustedIssuer = {
    ...embeddedIssuer(embedded),
    // An application has the same user id at each address of the installation.
    name: `${embedded.issuer}:clients`,
    expected: { issuer: address, audiences: [embeddedAudience], algorithms: [embedded.algorithm] },
    hasClients: true,
    verify: async (token) => {
      const payload = await verifyEmbedded(embedded, token, { issuer: address, typ: 'at+jwt' });
      if (isOfClient(payload, trusted) && (await clients.find(payload.sub as string)) === undefined)
        throw new RefusedToken('userUnknown', `its client ${quoted(payload.sub)} is not registered`, {
          issuer: address,
          remedy: 'Add it to `clients`, or register it with `offshoot clients add`.',
        });
      return payload;
    },
  };
  return trusted;
}

/** Whether an application got this token for itself, and not for a user. */
export function isOfClient({ sub, client_id: clientId }: JWTPayload, { hasClients }: TrustedIssuer): boolean {
  return hasClients === true && sub === clientId;
}

async function verifyEmbedded(
  embedded: EmbeddedIssuer,
  token: string,
  { issuer, typ }: { issuer: string; typ: string },
): Promise<JWTPayload> {
  const [latest, ...earlier] = await embedded.acceptedKeys();
  const verifyWith = (key: CryptoKey) =>
    jwtVerify(token, key, {
      issuer,
      audience: embeddedAudience,
      algorithms: [embedded.algorithm],
      typ,
      requiredClaims: ['exp', 'sub'],
      clockTolerance: clockToleranceSeconds,
    });
  let verified = verifyWith(latest as CryptoKey);
  for (const key of earlier)
    verified = verified.catch((error: unknown) => {
      if (error instanceof errors.JWSSignatureVerificationFailed) return verifyWith(key);
      throw error;
    });
  return accessToken(await verified, issuer);
}

/** Any OpenID Connect issuer. @param isOnly whether no other issuer is configured, and whether it is the only OpenID Connect issuer */
function oidcIssuer(config: IssuerConfig, isOnly: { ofAll: boolean; ofItsKind: boolean }): TrustedIssuer {
  const keys = issuerKeys(config);
  return {
    name: config.issuer,
    expected: { issuer: config.issuer, audiences: [config.audience].flat(), algorithms: config.algorithms },
    claims: claimsOf(config),
    administratorRoles: config.administratorRoles ?? [],
    tierRoles: Object.entries(config.tierRoles ?? {}),
    organization: config.organization,
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
        config.issuer,
      ),
  };
}

/** Types of access tokens in the header (RFC 9068; earlier there was no such type), and in the claims of Keycloak and similar issuers. */
const headerTypes: readonly unknown[] = [undefined, 'at+jwt', 'jwt'];
const claimTypes: readonly unknown[] = [undefined, 'at+jwt', 'jwt', 'bearer'];
/** Claims that only ID tokens have (OpenID Connect Core, 3.1.3.6 and 3.3.2.11). */
const idTokenClaims = ['at_hash', 'c_hash'];

/**
 * The claims of a token with a valid signature, if it is an access token and names a user.
 * @throws RefusedToken for ID, refresh and logout tokens, and for a subject that is not a text of 1 to 255 characters
 */
function accessToken({ payload, protectedHeader }: JWTVerifyResult, issuer: string): JWTPayload {
  const typeIn = (value: unknown): unknown =>
    typeof value === 'string' ? value.toLowerCase().replace(/^application\//, '') : value;
  const type = [protectedHeader.typ, payload['typ']] as const;
  const idTokenClaim = idTokenClaims.find((claim) => claim in payload);
  if (idTokenClaim !== undefined || !headerTypes.includes(typeIn(type[0])) || !claimTypes.includes(typeIn(type[1])))
    throw new RefusedToken(
      'notAnAccessToken',
      idTokenClaim === undefined
        ? `its type is ${quoted(type.filter((each) => each !== undefined))}, which is not that of an access token`
        : `it is an ID token (it has the claim ${idTokenClaim})`,
      { issuer, remedy: 'Send the access token of the application, not its ID token or refresh token.' },
    );
  if (exactText(payload.sub) === undefined) throw userIdRefusal('sub', issuer);
  return payload;
}
