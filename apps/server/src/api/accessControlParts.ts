import { Type, type Static } from '../jsonSchema.ts';
import type { ITwinAccess } from '../access/permissions.ts';
import type { UserAccountTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { detail, type ApiError, type ErrorDetail } from '../errors.ts';
import { UnknownUsersError } from '../iTwins/groups.ts';
import type { Services } from '../services.ts';
import { Nullable } from './schemas.ts';

/** A role as members have it. */
export const RoleOfMember = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  description: Nullable(Type.String()),
});

/** Rule of the API: one call assigns at most 50 roles. */
export const roleIds = Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { minItems: 1, maxItems: 50 });

/** Rule of the API: the roles of all entries of one call count together. */
export const maxAssignments = 50;

/** A user as access control shows them: the organization by its name. */
export const UserSchema = Type.Object(
  {
    id: Type.String(),
    email: Type.String(),
    givenName: Type.String(),
    surname: Type.String(),
    organization: Nullable(Type.String()),
  },
  {
    description:
      'For a user of another organization who has not opened an iModel of the iTwin yet, the names are empty and the organization is null, because the creator of an iTwin can add anybody to it.',
  },
);

/** The parts of a call on an iTwin that the access control routes share. */
export interface CallOnITwin {
  caller: Caller;
  access: ITwinAccess;
  services: Services;
}

type ShowUser = (row: UserAccountTable) => Static<typeof UserSchema>;

/** How users are shown to a caller as those of an iTwin, once it is known of which of them this caller may know the names. */
export async function showingUsers(
  { caller, access, services: { users, directory } }: CallOnITwin,
  rows: readonly UserAccountTable[],
): Promise<ShowUser> {
  const known = await users.knownTo(caller, access.itwin.id, rows);
  return ({ id, email, given_name, surname, organization_id }) => {
    if (!known.has(id)) return { id, email, givenName: '', surname: '', organization: null };
    const organization = organization_id === null ? null : directory.organizationName(organization_id);
    return { id, email, givenName: given_name, surname, organization };
  };
}

/** Rule of this server: the message for an unknown user. */
export const unknownUser = (user: string): string =>
  `'${user}' is not a known user. This server sends no invitations: users are known once they signed in or stand in the users file.`;

/** Rule of the API: the response lists invitations beside the added members; this server sends none. */
export const NoInvitations = Type.Array(Type.Object({}), {
  maxItems: 0,
  description: 'Always empty: this server sends no invitations.',
});

export const seenByMembers = { on: 'itwin', permission: 'member', from: 'path' } as const;
export const managesRoles = { on: 'itwin', permission: 'administration_manage_roles', from: 'path' } as const;
export const managesMembers = { on: 'itwin', permission: 'administration_invite_member', from: 'path' } as const;

/** An id from a path without NUL, the one character that database text cannot contain. */
export function idOf(text: string | undefined): string {
  return (text ?? '').replaceAll('\0', '');
}

/** Reports unknown users as details of `target`. Rule of the API: for groups the refusal is a 404. */
export async function refusingUnknownUsers<T>(
  target: string,
  refusal: (details: ErrorDetail[]) => ApiError,
  work: Promise<T>,
): Promise<T> {
  return work.catch((error: unknown) => {
    if (error instanceof UnknownUsersError)
      throw refusal(error.users.map((user) => detail.invalidValue(target, unknownUser(user))));
    throw error;
  });
}

/** Ascending order by a text column. */
export const byText = (column: string) => ({ column, type: 'text', descending: false }) as const;
