import { setTimeout as pause } from 'node:timers/promises';
import type { Child } from '../../apps/server/src/bench/common.ts';
import { attempt, median, timed, type Budget } from '../common.ts';
import { Api, type Installation } from '../installation.ts';
import type { Load } from '../load/load.ts';
import type { Content } from './data.ts';
import { idOf } from './ids.ts';
import { searchIndexFilled } from './searchIndex.ts';

interface Operation {
  name: string;
  path: string;
  as: Api;
}

const repeats = 5;
/** After a start, the work that goes on in the background must not make requests wait. */
const watchAfterStartMs = 3000;
/** Filling the search index takes about a minute for 100,000 iModels. */
const searchIndexSeconds = 300;

/** Starts the server and measures its start and its requests. */
export async function measureRequests(
  installation: Installation<Content>,
  load: Load,
  budget: Budget,
  size: number,
  record: (name: string, ms: number) => void,
): Promise<void> {
  const began = performance.now();
  const server: Child = await installation.start();
  try {
    const { content, token } = installation;
    const manager = new Api(server.origin, token);
    const member = new Api(server.origin, content.tokens[0] ?? '');
    await manager.send('GET', `/imodels/${content.largeId}`);
    record('start to the first answer', performance.now() - began);
    record('longest wait of a GET in the 3 s after the start', await longestWait(manager, content.largeId));
    for (const { name, path, as } of operations(content, size, manager, member)) {
      if (!budget.allows(name, 1)) continue;
      const times: number[] = [];
      const read = () => as.send('GET', path).then((response) => response.arrayBuffer());
      await attempt(name, async () => {
        await read();
        for (let n = 0; n < repeats; n++) times.push(await timed(read));
        record(name, median(times));
      });
    }
    await attempt('next page', async () =>
      record('page of 1,000 iModels, at the end of their list', await lastPage(manager, content)),
    );
    await attempt('locks', async () =>
      record(
        'locks: walk through all pages of 1,000 (10 × the work)',
        await walk(manager, `/imodels/${content.largeId}/locks?$top=1000`),
      ),
    );
    await attempt('active users', async () =>
      record('GET iModel, each time by another active user', await perActiveUser(load, server.origin, content)),
    );
    // Last, as it may need much of the time.
    await attempt('search', () => searchWithoutHit(installation, manager, budget, record));
  } finally {
    await server.stop();
  }
}

function operations(
  { manyId, largeId, crowdId, ownerId }: Content,
  size: number,
  manager: Api,
  member: Api,
): Operation[] {
  const middle = Math.floor(size / 2);
  return [
    { name: 'iModels of a member, all hidden', path: `/imodels?iTwinId=${manyId}&$top=100`, as: member },
    {
      name: 'favorites of a member, all of them hidden (10 × the favorites)',
      path: `/imodels/favorites?iTwinId=${manyId}`,
      as: member,
    },
    { name: 'recents of a member, all 25 hidden', path: `/imodels/recents?iTwinId=${manyId}`, as: member },
    { name: 'page of 100 iModels', path: `/imodels?iTwinId=${manyId}&$top=100`, as: manager },
    {
      name: 'page of 100 iModels after $skip to the end (10 × the work)',
      path: `/imodels?iTwinId=${manyId}&$skip=${size - 100}&$top=100`,
      as: manager,
    },
    { name: 'iTwins of a member of two', path: '/itwins?$top=100', as: member },
    { name: 'user of an iModel with statistics', path: `/imodels/${largeId}/users/${ownerId}`, as: manager },
    { name: 'page of 100 users of an iModel', path: `/imodels/${largeId}/users?$top=100`, as: manager },
    { name: 'page of 100 changesets', path: `/imodels/${largeId}/changesets?$top=100`, as: manager },
    {
      name: 'page of 100 changesets after $skip to the end',
      path: `/imodels/${largeId}/changesets?$skip=${10 * size - 100}&$top=100`,
      as: manager,
    },
    { name: 'changeset by index', path: `/imodels/${largeId}/changesets/${5 * size}`, as: manager },
    { name: 'page of 100 locks', path: `/imodels/${largeId}/locks?$top=100`, as: manager },
    { name: 'page of 100 members', path: `/accesscontrol/itwins/${crowdId}/members/users?$top=100`, as: manager },
    {
      name: 'one member',
      path: `/accesscontrol/itwins/${crowdId}/members/users/${idOf('user', middle)}`,
      as: manager,
    },
    {
      name: 'groups (10 × the work, as the answer has no pages)',
      path: `/accesscontrol/itwins/${crowdId}/groups`,
      as: manager,
    },
    { name: 'one group', path: `/accesscontrol/itwins/${crowdId}/groups/${idOf('group', middle)}`, as: manager },
    {
      name: 'one group with roles',
      path: `/accesscontrol/itwins/${crowdId}/members/groups/${idOf('group', middle)}`,
      as: manager,
    },
  ];
}

async function longestWait(api: Api, iModelId: string): Promise<number> {
  let longest = 0;
  for (const until = performance.now() + watchAfterStartMs; performance.now() < until; await pause(5))
    longest = Math.max(longest, await timed(() => api.json('GET', `/imodels/${iModelId}`)));
  return longest;
}

interface Page {
  _links: { next?: { href: string } | null };
}

/** Reads all pages, and then the last full one, by its link, several times. */
async function lastPage(api: Api, { manyId }: Content): Promise<number> {
  const first = `/imodels?iTwinId=${manyId}&$top=1000`;
  let last = first;
  for (let next: string | undefined = first; next !== undefined;) {
    const page: Page & { iModels: unknown[] } = await api.json('GET', next);
    if (page.iModels.length === 1000) last = next;
    next = page._links.next?.href;
  }
  const times: number[] = [];
  for (let n = 0; n < repeats; n++) times.push(await timed(() => api.json('GET', last)));
  return median(times);
}

async function searchWithoutHit(
  installation: Installation<Content>,
  api: Api,
  budget: Budget,
  record: (name: string, ms: number) => void,
): Promise<void> {
  const { manyId } = installation.content;
  const search = () => api.json('GET', `/imodels?iTwinId=${manyId}&$search=nowhere`);
  const filling = await timed(async () => {
    await search();
    await searchIndexFilled(installation, manyId, Math.min(searchIndexSeconds, budget.secondsLeft / 2));
  });
  record('search index, filled after the first search (10 × the work)', filling);
  const times: number[] = [];
  for (let n = 0; n < repeats; n++) times.push(await timed(search));
  record('iModels, $search without a hit', median(times));
}

async function walk(api: Api, first: string): Promise<number> {
  return timed(async () => {
    for (let next: string | undefined = first; next !== undefined;)
      next = (await api.json<Page>('GET', next))._links.next?.href;
  });
}

/** The second time around, when a server has seen all of them. */
async function perActiveUser(load: Load, origin: string, { tokens, crowdIModelId }: Content): Promise<number> {
  const requests = tokens.map((token) => ({
    origin,
    method: 'GET',
    path: `/imodels/${crowdIModelId}`,
    headers: { authorization: `Bearer ${token}` },
    status: 200,
  }));
  const round = () => load.requests({ requests, connections: 4, count: requests.length });
  await round();
  const { seconds } = await round();
  return (seconds * 1000) / requests.length;
}
