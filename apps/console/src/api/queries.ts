import {
  infiniteQueryOptions,
  keepPreviousData,
  queryOptions,
  type InfiniteData,
  type QueryClient,
} from '@tanstack/react-query';
import { api, apiBlob, page, queryText, type Paged } from './client.ts';
import type {
  Briefcase,
  Changeset,
  Checkpoint,
  CreateOperation,
  IModel,
  IModelUser,
  ITwin,
  LockSet,
  Member,
  NamedVersion,
  Owner,
  Role,
  Usage,
} from './types.ts';

/** Entries on a page of cards or of a table: the first one fills the window soon. */
const pageSize = 60;
/** Entries on the further pages of lists that show only the rows in view. */
const largePage = 300;
/** Pages of a list that are read again when somebody comes back to the window. */
const pagesAgain = 3;
/** Changesets that the timeline reads at once. */
export const timelinePage = 100;

export type ListKind = 'all' | 'favorites' | 'recents';

/** A list that is read page by page while somebody scrolls. */
export function listOf<T>(
  key: readonly unknown[],
  path: string,
  query: Record<string, string | number | undefined>,
  property: string,
  furtherSize = pageSize,
) {
  return infiniteQueryOptions({
    queryKey: [...key, query],
    initialPageParam: queryText({ ...query, $top: pageSize }),
    queryFn: ({ pageParam, signal }) => page<T>(path, pageParam, property, signal),
    getNextPageParam: ({ next }: Paged<T>) => {
      if (next === undefined) return undefined;
      return queryText({ ...Object.fromEntries(new URLSearchParams(next)), $top: furtherSize });
    },
    refetchOnWindowFocus: ({ state: { data } }) => (data?.pages.length ?? 0) <= pagesAgain,
    placeholderData: keepPreviousData,
  });
}

export const itemsOf = <T>(data: InfiniteData<Paged<T>> | undefined): T[] =>
  data?.pages.flatMap(({ items }) => items) ?? [];

const kindPath = { all: '', favorites: '/favorites', recents: '/recents' } as const;

export const iTwinsQuery = (kind: ListKind, search: string) =>
  listOf<ITwin>(
    ['iTwins', kind],
    `/itwins${kindPath[kind]}`,
    { $search: search, ...(kind === 'all' && { $orderBy: 'displayName' }) },
    'iTwins',
    largePage,
  );

export const iTwinQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId],
    queryFn: async ({ signal }) => (await api<{ iTwin: ITwin }>(`/itwins/${iTwinId}`, { signal })).iTwin,
  });

/** The caller's permissions on an iTwin. */
export const iTwinPermissionsQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId, 'permissions'],
    queryFn: async ({ signal }) =>
      (await api<{ permissions: string[] }>(`/accesscontrol/itwins/${iTwinId}/permissions`, { signal })).permissions,
  });

export const iModelsQuery = (
  iTwinId: string,
  { kind, search, order }: { kind: ListKind; search: string; order: string },
) =>
  listOf<IModel>(
    ['iModels', iTwinId, kind],
    `/imodels${kindPath[kind]}`,
    { iTwinId, ...(kind === 'all' && { $search: search, $orderBy: order }) },
    'iModels',
    largePage,
  );

/** Ids of the caller's favorites among the iTwins, or among the iModels of an iTwin. At most the first 1,000. */
export const favoritesQuery = (iTwinId?: string) =>
  queryOptions({
    queryKey: iTwinId === undefined ? ['iTwins', 'favorite-ids'] : ['iModels', iTwinId, 'favorite-ids'],
    queryFn: async ({ signal }) =>
      new Set(
        (iTwinId === undefined
          ? await page<{ id: string }>('/itwins/favorites', { $top: 1000 }, 'iTwins', signal)
          : await page<{ id: string }>('/imodels/favorites', { iTwinId, $top: 1000 }, 'iModels', signal)
        ).items.map(({ id }) => id),
      ),
  });

export const iModelQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId],
    queryFn: async ({ signal }) => (await api<{ iModel: IModel }>(`/imodels/${iModelId}`, { signal })).iModel,
  });

export const iModelPermissionsQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'permissions'],
    queryFn: async ({ signal }) =>
      (await api<{ permissions: string[] }>(`/imodels/${iModelId}/permissions`, { signal })).permissions,
  });

/** How often an operation that is under way is asked for, milliseconds. */
const operationMs = 1000;

export const createOperationQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'creation'],
    queryFn: async ({ signal }) =>
      (await api<{ createOperation: CreateOperation }>(`/imodels/${iModelId}/operations/create`, { signal }))
        .createOperation,
    refetchInterval: ({ state: { data } }) =>
      data === undefined || data.state === 'scheduled' || data.state === 'waitingForFile' ? operationMs : false,
  });

export const thumbnailQuery = (iModelId: string, size: 'small' | 'large') =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'thumbnail', size],
    queryFn: ({ signal }) => apiBlob(`/imodels/${iModelId}/thumbnail?size=${size}`, signal),
    staleTime: 60_000,
    // Whoever scrolls through a long list leaves many behind.
    gcTime: 60_000,
  });

/** How often a page that is in view looks for new changesets, milliseconds. */
const headMs = 5000;

/** The last changeset; null for an iModel that has only its baseline. */
export const headQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'changesets', 'head'],
    queryFn: async ({ signal }) =>
      (
        await page<Changeset>(
          `/imodels/${iModelId}/changesets`,
          { $top: 1, $orderBy: 'index desc' },
          'changesets',
          signal,
        )
      ).items[0] ?? null,
    refetchInterval: headMs,
  });

/** The changesets with the indexes from `first`, at most `timelinePage` of them, by index. */
export const changesetsQuery = (iModelId: string, first: number) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'changesets', 'from', first],
    queryFn: async ({ signal }) => {
      const { items } = await page<Changeset>(
        `/imodels/${iModelId}/changesets`,
        { afterIndex: first - 1, lastIndex: first + timelinePage - 1, $top: timelinePage },
        'changesets',
        signal,
      );
      return new Map(items.map((changeset) => [changeset.index, changeset]));
    },
    // Changesets never change, except what is linked to them.
    staleTime: 60_000,
  });

/** Most named versions that the timeline shows. */
const mostVersions = 10_000;

/** All named versions, the newest changeset first. */
export const versionsQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'versions'],
    queryFn: async ({ signal }) => {
      const found: NamedVersion[] = [];
      let query: string | undefined = queryText({ $top: 1000, $orderBy: 'changesetIndex desc' });
      while (query !== undefined && found.length < mostVersions) {
        const next: Paged<NamedVersion> = await page(
          `/imodels/${iModelId}/namedversions`,
          query,
          'namedVersions',
          signal,
        );
        found.push(...next.items);
        query = next.next;
      }
      return found;
    },
  });

export const checkpointQuery = (iModelId: string, index: number) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'checkpoint', index],
    queryFn: async ({ signal }) =>
      (await api<{ checkpoint: Checkpoint }>(`/imodels/${iModelId}/changesets/${index}/checkpoint`, { signal }))
        .checkpoint,
    refetchInterval: ({ state: { data } }) => (data?.state === 'scheduled' ? 2000 : false),
  });

export const usersQuery = (iModelId: string) =>
  listOf<IModelUser>(['iModel', iModelId, 'users'], `/imodels/${iModelId}/users`, {}, 'users');

export const briefcasesQuery = (iModelId: string) =>
  listOf<Briefcase>(['iModel', iModelId, 'briefcases'], `/imodels/${iModelId}/briefcases`, {}, 'briefcases');

export const briefcaseQuery = (iModelId: string, briefcaseId: number) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'briefcases', briefcaseId],
    queryFn: async ({ signal }) =>
      (await api<{ briefcase: Briefcase }>(`/imodels/${iModelId}/briefcases/${briefcaseId}`, { signal })).briefcase,
  });

export const locksQuery = (iModelId: string) =>
  listOf<LockSet>(['iModel', iModelId, 'locks'], `/imodels/${iModelId}/locks`, {}, 'locks');

export const rolesQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId, 'roles'],
    queryFn: async ({ signal }) =>
      (await api<{ roles: Role[] }>(`/accesscontrol/itwins/${iTwinId}/roles`, { signal })).roles,
  });

export const membersQuery = (iTwinId: string) =>
  listOf<Member>(['iTwin', iTwinId, 'members'], `/accesscontrol/itwins/${iTwinId}/members/users`, {}, 'members');

export const ownersQuery = (iTwinId: string) =>
  listOf<Owner>(['iTwin', iTwinId, 'owners'], `/accesscontrol/itwins/${iTwinId}/members/owners`, {}, 'members');

export const usageQuery = (iTwinId: string) =>
  queryOptions({
    queryKey: ['iTwin', iTwinId, 'usage'],
    queryFn: async ({ signal }) => (await api<{ usage: Usage }>(`/itwins/${iTwinId}/usage`, { signal })).usage,
  });

export interface Person {
  id: string;
  email: string;
  givenName: string;
  surname: string;
}

/** The users of the caller's organization among these. */
export const peopleQuery = (ids: readonly string[]) => {
  const wanted = [...new Set(ids)].sort();
  return queryOptions({
    queryKey: ['people', wanted],
    queryFn: async ({ signal }) => {
      if (wanted.length === 0) return new Map<string, Person>();
      const { users } = await api<{ users: Person[] }>('/users/getbyidlist', { method: 'POST', body: wanted, signal });
      return new Map(users.map((user) => [user.id, user]));
    },
    staleTime: 300_000,
    placeholderData: keepPreviousData,
  });
};

export const nameOf = ({ givenName, surname, email, id }: Person): string =>
  `${givenName} ${surname}`.trim() || email || id;

/** Reads again what a change may have altered. */
export async function refresh(client: QueryClient, ...keys: readonly (readonly unknown[])[]): Promise<void> {
  await Promise.all(keys.map((queryKey) => client.invalidateQueries({ queryKey })));
}
