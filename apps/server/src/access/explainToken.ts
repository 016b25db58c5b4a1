import type { Config } from '../config.ts';
import { rolesOf, scopesOf } from './claims.ts';
import type { EmbeddedIssuer } from './embeddedIssuer.ts';
import { Issuers, type VerifiedToken } from './issuers.ts';
import { IssuerUnavailableError } from './issuerKeys.ts';
import { claimFaults, quoted, RefusedToken } from './refusedToken.ts';
import { tokenUserOf, type UsersFile } from './tokenUser.ts';

/** Why a token is accepted or refused. */
export interface TokenExplanation {
  /** `unknown`: the keys of the issuer cannot be fetched, and nothing else is wrong. */
  verdict: 'accepted' | 'refused' | 'unknown';
  faults: { reason: string; text: string; remedy: string }[];
  /** What the token says, quoted, escaped and bounded; absent if it cannot be read. */
  claims?: Record<string, string>;
  /** The caller that it stands for; absent if it is refused. */
  user?: Record<string, string>;
}

/**
 * Checks a token as a server with this configuration does. A server stops at the first fault; this lists all that it finds, also in
 * tokens whose signature is not verified.
 */
export async function explainToken(
  token: string,
  config: Pick<Config, 'requiredScope' | 'issuers' | 'defaultTier' | 'tiers' | 'publicUrl' | 'signIn'>,
  directory: UsersFile,
  embedded: EmbeddedIssuer | undefined,
): Promise<TokenExplanation> {
  // Registered clients are in the database, which is not opened for this.
  const clients = { find: async () => ({}) };
  const issuers = new Issuers(config, embedded === undefined ? undefined : { issuer: embedded, clients });
  const faults: RefusedToken[] = [];
  let claimed: VerifiedToken | undefined;
  let unavailable: string | undefined;
  try {
    claimed = issuers.issuerOf(token);
    await issuers.verify(token);
  } catch (error) {
    if (error instanceof RefusedToken) faults.push(error);
    else if (error instanceof IssuerUnavailableError) unavailable = messageOf(error.cause);
    else throw error;
  }
  if (claimed === undefined) return { verdict: 'refused', faults: faults.map(shown) };
  faults.push(...claimFaults(claimed.payload, claimed.issuer.expected));
  const scope = issuers.scopeFault(claimed);
  if (scope !== undefined) faults.push(scope);
  let user: Record<string, string> | undefined;
  try {
    user = userText(claimed, directory, config);
  } catch (error) {
    if (!(error instanceof RefusedToken)) throw error;
    faults.push(error);
  }
  const distinct = [...new Map(faults.map((fault) => [fault.code, fault])).values()];
  return {
    verdict: distinct.length > 0 ? 'refused' : unavailable === undefined ? 'accepted' : 'unknown',
    faults: [
      ...distinct.map(shown),
      ...(unavailable === undefined
        ? []
        : [
            {
              reason: 'keys',
              text: `the keys of the issuer cannot be fetched, so the signature was not verified: ${unavailable}`,
              remedy: 'Check that this machine can reach the issuer; `offshoot doctor` asks all issuers.',
            },
          ]),
    ],
    claims: claimText(claimed),
    ...(distinct.length === 0 && user !== undefined && { user }),
  };
}

function shown({ code, message, remedy }: RefusedToken): TokenExplanation['faults'][number] {
  return { reason: code, text: message, remedy };
}

function messageOf(error: unknown): string {
  const { message, cause } = error as Error;
  return cause === undefined ? message : `${message}: ${messageOf(cause)}`;
}

function claimText(token: VerifiedToken): Record<string, string> {
  const { payload, issuer } = token;
  const time = (seconds: unknown): string =>
    typeof seconds === 'number' && Math.abs(seconds) < 8.64e12 ? new Date(seconds * 1000).toISOString() : 'none';
  const roles = [...rolesOf(payload, issuer.claims)];
  return {
    issuer: quoted(payload.iss),
    audience: quoted(payload.aud),
    subject: quoted(payload.sub),
    scope: quoted(scopesOf(payload, issuer.claims)),
    ...(issuer.claims.roles.length > 0 && { roles: quoted(roles) }),
    expires: time(payload.exp),
  };
}

/** @throws RefusedToken */
function userText(token: VerifiedToken, directory: UsersFile, config: Pick<Config, 'defaultTier' | 'tiers'>) {
  const { subject, listed, email, organizationIds, administeredOrganizationIds, application } = tokenUserOf(
    token,
    directory,
    config,
  );
  return {
    user: quoted(subject),
    'e-mail': listed?.email ?? email ?? 'none that is verified',
    'users file': listed === undefined ? 'no entry' : `entry ${quoted(listed.id)}`,
    organizations: quoted(organizationIds),
    administers: quoted(administeredOrganizationIds),
    application: `${quoted(application.id)}, tier ${application.tier}`,
  };
}
