import { Type } from 'typebox';
import { Nullable } from './schemas.ts';

/** A role as members have it. */
export const RoleOfMember = Type.Object({ id: Type.String(), displayName: Type.String(), description: Nullable(Type.String()) });

/** Rule of the API: at most 50 roles are given in one call. */
export const roleIds = Type.Array(Type.String({ minLength: 1, maxLength: 255 }), { minItems: 1, maxItems: 50 });

export const seenByMembers = { on: 'itwin', permission: 'member', from: 'path' } as const;
export const managesRoles = { on: 'itwin', permission: 'administration_manage_roles', from: 'path' } as const;
export const managesMembers = { on: 'itwin', permission: 'administration_invite_member', from: 'path' } as const;

/** A path's id without the one character that no database text can hold. */
export function idOf(text: string | undefined): string {
  return (text ?? '').replaceAll('\0', '');
}
