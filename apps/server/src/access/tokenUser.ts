import type { JWTPayload } from 'jose';
import type { Config } from '../config.ts';
import { applicationOf, claimAt, exactText, rolesOf, shownText, standardClaims, textsClaim } from './claims.ts';
import type { Directory, DirectoryUser } from './directory.ts';
import { isOfClient, tierByRole, userIdOf, type TrustedIssuer, type VerifiedToken } from './issuers.ts';
import { quoted, RefusedToken } from './refusedToken.ts';

/** What is looked up in the users file. */
export type UsersFile = Pick<Directory, 'file' | 'findUserById' | 'findUserByEmail' | 'findApplication'>;

/** What a verified token and the users file say about a caller. */
export interface TokenUser {
  /** What identifies the user at the issuer. */
  subject: string;
  /** The user's entry in the users file. */
  listed: DirectoryUser | undefined;
  /** The verified e-mail address. */
  email: string | undefined;
  /** Unverified; for display only. */
  givenName: string | undefined;
  surname: string | undefined;
  name: string | undefined;
  organizationIds: readonly string[];
  administeredOrganizationIds: readonly string[];
  application: { id: string; name: string; tier: string };
}

/**
 * @throws RefusedToken if the token names no user, or a user of the embedded issuer who is not in the users file, or if the tier of
 * the application does not exist
 */
export function tokenUserOf(
  { payload, issuer }: VerifiedToken,
  directory: UsersFile,
  config: Pick<Config, 'defaultTier' | 'tiers'>,
): TokenUser {
  const subject = userIdOf(payload, issuer);
  const { claims } = issuer;
  const email = isEmailVerified(payload, issuer) ? exactText(claimAt(payload, claims.email)) : undefined;
  const listed = listedUser(directory, issuer, subject, email);
  if (listed === undefined && issuer.isEmbedded && !isOfClient(payload, issuer))
    throw new RefusedToken('userUnknown', `its user ${quoted(subject)} is not in the users file`, {
      issuer: issuer.name,
      remedy: `Add the user to ${directory.file}.`,
    });
  const organizationIds =
    listed?.organizationId === undefined ? organizationsOf(payload, issuer) : [listed.organizationId];
  return {
    subject,
    listed,
    email,
    givenName: shownText(claimAt(payload, claims.givenName)),
    surname: shownText(claimAt(payload, claims.surname)),
    name: claims.names.map((path) => shownText(claimAt(payload, path))).find((name) => name !== undefined),
    organizationIds,
    administeredOrganizationIds: administered(organizationIds, listed?.organizationAdministrator, payload, issuer),
    application: applicationFor(payload, issuer, directory, config),
  };
}

/** An unverified e-mail address could belong to anybody, including an administrator in the users file. */
function isEmailVerified(payload: JWTPayload, { emailsVerified, claims }: TrustedIssuer): boolean {
  if (emailsVerified) return true;
  // `email_verified` is about the claim `email` alone.
  return (
    claims.email === standardClaims.email &&
    (payload['email_verified'] === true || payload['email_verified'] === 'true')
  );
}

/** The entry of the users file for the user of a token. An entry that names an issuer applies to tokens of that issuer and to minted ones. */
function listedUser(
  directory: UsersFile,
  issuer: TrustedIssuer,
  subject: string,
  verifiedEmail: string | undefined,
): DirectoryUser | undefined {
  const named = directory.findUserById(subject);
  if (
    named !== undefined &&
    (issuer.isEmbedded || (named.issuer === undefined ? issuer.isDefault : named.issuer === issuer.name))
  )
    return named;
  const byEmail = verifiedEmail === undefined ? undefined : directory.findUserByEmail(verifiedEmail);
  return byEmail?.issuer === undefined || byEmail.issuer === issuer.name ? byEmail : undefined;
}

function organizationsOf(payload: JWTPayload, { claims, organization }: TrustedIssuer): string[] {
  const named = textsClaim(payload, claims.organization);
  return named.length === 0 && organization !== undefined ? [organization] : named;
}

/** The application of a token with its tier: that of the users file, else that of a role of the token, else the default. */
function applicationFor(
  payload: JWTPayload,
  issuer: TrustedIssuer,
  directory: UsersFile,
  { defaultTier, tiers }: Pick<Config, 'defaultTier' | 'tiers'>,
): TokenUser['application'] {
  const id = applicationOf(payload) ?? 'unknown';
  const known = directory.findApplication(id);
  const tier = known?.tier ?? tierByRole(payload, issuer) ?? defaultTier;
  if (!Object.hasOwn(tiers, tier))
    throw new RefusedToken('tierUnknown', `the tier ${quoted(tier)} of its application ${quoted(id)} does not exist`, {
      issuer: issuer.name,
      remedy: `Correct the tier of the application in ${directory.file}, or add the tier to \`tiers\`.`,
    });
  return { id, name: known?.name ?? id, tier };
}

/**
 * The organizations that a caller administers: those in the users file if it defines them. Otherwise the user's own organizations for
 * a role of administrators, and those of the claim, where `true` means the user's own organizations and a list names them.
 */
function administered(
  organizationIds: readonly string[],
  listed: boolean | readonly string[] | undefined,
  payload: JWTPayload,
  { claims, administratorRoles }: TrustedIssuer,
): readonly string[] {
  if (listed !== undefined) return listed === true ? organizationIds : listed === false ? [] : listed;
  const claimed =
    claimAt(payload, claims.administrator) === true ? organizationIds : textsClaim(payload, claims.administrator);
  if (administratorRoles.length === 0) return claimed;
  const roles = rolesOf(payload, claims);
  return administratorRoles.some((role) => roles.has(role)) ? [...new Set([...organizationIds, ...claimed])] : claimed;
}
