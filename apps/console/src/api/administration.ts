import { queryOptions } from '@tanstack/react-query';
import { api, page, queryText, type Paged } from './client.ts';
import { ApiFault } from './fault.ts';
import { listOf } from './queries.ts';

/** A group of users of an iTwin. */
export interface Group {
  id: string;
  name: string;
  description: string | null;
  members: { id: string; email: string; givenName: string; surname: string }[];
}

/** A group that has roles on the iTwin. */
interface GroupMember {
  id: string;
  roles: { id: string; displayName: string }[];
}

export interface Webhook {
  id: string;
  callbackUrl: string;
  eventTypes: string[];
  isActive: boolean;
  createdDateTime: string;
}

/** A message that was not delivered in any of its attempts. */
export interface DeadLetter {
  messageId: string;
  eventType: string;
  enqueuedDateTime: string;
  attempts: number;
  lastError: string;
}

export interface Share {
  id: string;
  displayName: string;
  expiresAt: string;
  permission: 'imodels_webview' | 'imodels_read';
  creatorId: string;
}

/** What a holder may do on one iModel: a role of its iTwin, or a user. */
export interface Grant {
  holder: string;
  permissions: string[];
}

export const groupsQuery = (iTwinId: string) =>
  listOf<Group>(['iTwin', iTwinId, 'groups'], `/accesscontrol/itwins/${iTwinId}/groups`, {}, 'groups');

/** The roles of the groups of an iTwin, by the id of the group. Groups without roles are left out. */
export const rolesOfGroupsQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId, 'groups', 'roles'],
    queryFn: async ({ signal }) => {
      const roles = new Map<string, GroupMember['roles']>();
      for (let query: string | undefined = queryText({ $top: 1000 }); query !== undefined && roles.size < 10_000;) {
        const found: Paged<GroupMember> = await page(
          `/accesscontrol/itwins/${iTwinId}/members/groups`,
          query,
          'members',
          signal,
        );
        for (const group of found.items) roles.set(group.id, group.roles);
        query = found.next;
      }
      return roles;
    },
  });

export const webhooksQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId, 'webhooks'],
    queryFn: async ({ signal }) =>
      (await api<{ webhooks: Webhook[] }>(`/itwins/${iTwinId}/webhooks`, { signal })).webhooks,
  });

export const deadLettersQuery = (iTwinId: string, webhookId: string) =>
  listOf<DeadLetter>(
    ['iTwin', iTwinId, 'webhooks', webhookId, 'dead-letters'],
    `/itwins/${iTwinId}/webhooks/${webhookId}/deadletters`,
    {},
    'deadLetters',
  );

export const sharesQuery = (iModelId: string) =>
  listOf<Share>(['iModel', iModelId, 'shares'], `/imodels/${iModelId}/shares`, {}, 'shares');

/** The permissions that an iModel has of its own, for roles or for users; none while those of the iTwin apply. */
export const grantsQuery = (iModelId: string, kind: 'roles' | 'users') =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'grants', kind],
    queryFn: async ({ signal }): Promise<Grant[]> => {
      if (kind === 'roles')
        return (
          await api<{ rolePermissions: { roleId: string; permissions: string[] }[] }>(
            `/imodels/${iModelId}/rolepermissions`,
            { signal },
          )
        ).rolePermissions.map(({ roleId, permissions }) => ({ holder: roleId, permissions }));
      return (
        await api<{ userPermissions: { userId: string; permissions: string[] }[] }>(
          `/imodels/${iModelId}/userpermissions`,
          { signal },
        )
      ).userPermissions.map(({ userId, permissions }) => ({ holder: userId, permissions }));
    },
  });

/** The JSON that an application attached to a changeset; null without any. */
export const extendedDataQuery = (iModelId: string, index: number) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'extended-data', index],
    queryFn: async ({ signal }): Promise<string | null> => {
      const found = await api<{ extendedData: { data: string } }>(
        `/imodels/${iModelId}/changesets/${index}/extendeddata`,
        { signal },
      ).catch((error: unknown) => {
        if (error instanceof ApiFault && error.code === 'ChangesetExtendedDataNotFound') return undefined;
        throw error;
      });
      if (found === undefined) return null;
      const { data } = found.extendedData;
      const bytes = Uint8Array.from(atob(data), (character) => character.codePointAt(0) ?? 0);
      return JSON.stringify(JSON.parse(new TextDecoder().decode(bytes)), undefined, 2);
    },
    staleTime: 60_000,
  });
