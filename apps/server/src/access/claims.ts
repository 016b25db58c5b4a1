import type { JWTPayload } from 'jose';
import type { IssuerConfig } from '../config.ts';

/** Where an issuer puts what the server reads about a user: names of claims, or dotted paths such as `realm_access.roles`. */
export interface ClaimNames {
  userId: string;
  email: string;
  givenName: string;
  surname: string;
  /** Names that are shown if the token has no e-mail address; the first present one counts. */
  names: readonly string[];
  /** Of which the token must contain the required scope. */
  scopes: readonly string[];
  organization: string;
  administrator: string;
  roles: readonly string[];
}

/** The standard claims of OpenID Connect, and those of `offshoot token`. */
export const standardClaims: ClaimNames = {
  userId: 'sub',
  email: 'email',
  givenName: 'given_name',
  surname: 'family_name',
  names: ['name', 'preferred_username'],
  scopes: ['scope', 'scp'],
  organization: 'org',
  administrator: 'org_admin',
  roles: [],
};

/** The claims of a configured issuer. */
export function claimsOf(config: IssuerConfig): ClaimNames {
  return {
    userId: config.userIdClaim ?? standardClaims.userId,
    email: config.emailClaim ?? standardClaims.email,
    givenName: config.givenNameClaim ?? standardClaims.givenName,
    surname: config.surnameClaim ?? standardClaims.surname,
    names: config.nameClaim === undefined ? standardClaims.names : [config.nameClaim],
    scopes: config.scopeClaims ?? standardClaims.scopes,
    organization: config.organizationClaim,
    administrator: config.administratorClaim,
    roles: config.rolesClaims ?? standardClaims.roles,
  };
}

/**
 * The value at a dotted path. A claim whose own name contains dots, such as `https://example.com/roles`, is found as well, at any
 * depth.
 */
export function claimAt(claims: object, path: string): unknown {
  if (Object.hasOwn(claims, path)) return (claims as Record<string, unknown>)[path];
  for (let dot = path.indexOf('.'); dot !== -1; dot = path.indexOf('.', dot + 1)) {
    const name = path.slice(0, dot);
    const inner = Object.hasOwn(claims, name) ? (claims as Record<string, unknown>)[name] : undefined;
    if (typeof inner !== 'object' || inner === null) continue;
    const found = claimAt(inner, path.slice(dot + 1));
    if (found !== undefined) return found;
  }
  return undefined;
}

/** Maximum number of values read from a claim; the remaining ones are ignored. */
const maxValues = 1000;

/** The values of a claim that holds one text or a list; empty if the claim is absent. */
export function textsClaim(payload: JWTPayload, path: string): string[] {
  const value = claimAt(payload, path);
  const values: unknown[] = Array.isArray(value) ? value.slice(0, maxValues) : [value];
  return values.map(exactText).filter((text) => text !== undefined);
}

const maxTextLength = 255;

/** A claim used as a key: unchanged or not at all, because a truncated or cleaned value could identify somebody else. */
export function exactText(value: unknown): string | undefined {
  return typeof value === 'string' &&
    value !== '' &&
    value.length <= maxTextLength &&
    !/\p{Cc}/u.test(value) &&
    value.isWellFormed()
    ? value
    : undefined;
}

/** A claim used for display only, without control characters and truncated to 255 characters; undefined if it is absent. */
export function shownText(value: unknown): string | undefined {
  const text =
    typeof value === 'string'
      ? value
          .replace(/\p{Cc}/gu, '')
          .slice(0, maxTextLength)
          .toWellFormed()
      : '';
  return text === '' ? undefined : text;
}

/** The scopes of a token: one text with spaces, or a list. The first present claim counts, unless the issuer names several. */
export function scopesOf(payload: JWTPayload, { scopes }: ClaimNames): string[] {
  const present = scopes.map((path) => claimAt(payload, path)).filter((value) => value !== undefined && value !== null);
  const counting = scopes === standardClaims.scopes ? present.slice(0, 1) : present;
  return counting.flatMap((value) =>
    Array.isArray(value)
      ? value.slice(0, maxValues).filter((each): each is string => typeof each === 'string')
      : typeof value === 'string'
        ? value.split(' ')
        : [],
  );
}

/** The application that a token was issued to: `appid` in Entra's tokens of version 1. */
export function applicationOf(payload: JWTPayload): string | undefined {
  return exactText(payload['client_id']) ?? exactText(payload['azp']) ?? exactText(payload['appid']);
}

/** The roles and groups of a token. */
export function rolesOf(payload: JWTPayload, { roles }: ClaimNames): ReadonlySet<string> {
  return new Set(roles.flatMap((path) => textsClaim(payload, path)));
}
