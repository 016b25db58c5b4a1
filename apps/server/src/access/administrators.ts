import type { Config } from '../config.ts';
import { firstUserEmail, type DirectoryData } from './directory.ts';
import { quoted } from './refusedToken.ts';

/**
 * What makes somebody an Organization Administrator if all tokens are of outside issuers; empty if nobody is, unless a token has the
 * claim of administrators. The entry that the first start writes to the users file does not count: no outside issuer knows that user.
 */
export function waysToAdminister(
  { issuers }: Pick<Config, 'issuers'>,
  { users }: Pick<DirectoryData, 'users'>,
): string[] {
  const roles = issuers.flatMap(({ administratorRoles = [] }) => administratorRoles);
  const listed = users.filter(
    ({ email, issuer, organizationAdministrator }) =>
      email !== firstUserEmail &&
      organizationAdministrator !== undefined &&
      organizationAdministrator !== false &&
      (issuer === undefined || issuers.some((each) => each.issuer === issuer)),
  );
  return [
    ...(roles.length === 0 ? [] : [`whoever has the role ${quoted(roles)}`]),
    ...(listed.length === 0 ? [] : [`${listed.length} of users.json`]),
  ];
}

/** The claims that make administrators, by issuer, for a hint. */
export function administratorClaims({ issuers }: Pick<Config, 'issuers'>): string {
  return quoted([...new Set(issuers.map(({ administratorClaim }) => administratorClaim))]);
}
