/** Finds iTwins, iModels, named versions and changesets by name or id. */
import type { Command } from 'commander';
import pMap from 'p-map';
import { changesetRef, pastTime } from './arguments.ts';
import type { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';

/** The properties that candidates are shown with. */
interface Named {
  id: string;
  displayName: string;
}

interface ListedChangeset {
  id: string;
  index: number;
  pushDateTime: string;
}

/** Most candidates or similar names in a message. */
const mostShown = 10;
/** Requests at a time while an iModel is searched in all iTwins. */
const searches = 8;
/** Most iTwins that are searched for an iModel. */
const mostITwins = 10_000;

/** Whether a text is an id rather than a name. */
export const isId = (text: string): boolean => /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(text);

/** @throws ExitError refused if no iTwin has the name, usage if several have it */
export async function iTwinIdOf(connection: Connection, text: string): Promise<string> {
  if (isId(text)) return text.toLowerCase();
  const query = new URLSearchParams({ displayName: text, includeInactive: 'true' });
  const found = await connection.all<Named>(`/itwins?${query.toString()}`, 'iTwins', { prefer: 'minimal' });
  if (found.length === 0) {
    const search = new URLSearchParams({ $search: text, includeInactive: 'true', $top: String(mostShown) });
    throw nothing(
      'iTwin',
      text,
      text === '' ? [] : await page<Named>(connection, `/itwins?${search.toString()}`, 'iTwins'),
    );
  }
  return theOne(
    'iTwin',
    text,
    found.map(({ id }) => ({ id, about: '' })),
  );
}

/**
 * The iTwin for a new iModel.
 * @param text name or id; without it, the only iTwin of the caller is meant
 * @throws ExitError as `iTwinIdOf` does, and if no iTwin is named and the caller has none or several
 */
export async function targetITwinOf(connection: Connection, text: string | undefined): Promise<string> {
  if (text !== undefined) return iTwinIdOf(connection, text);
  const found = await page<Named>(connection, `/itwins?$top=${mostShown}`, 'iTwins');
  const [only] = found;
  if (only === undefined)
    throw new ExitError(exitCodes.refused, 'you have no iTwin yet: create one with `offshoot itwins create NAME`');
  if (found.length === 1) return only.id;
  const names = found.map(({ displayName, id }) => `  ${displayName} (${id})`).join('\n');
  throw new ExitError(exitCodes.usage, `which iTwin is meant? Name one with --itwin:\n${names}`);
}

/**
 * @param iTwin name or id of its iTwin; without it, all iTwins of the caller are searched for a name
 * @throws ExitError refused if no iModel has the name, usage if several have it
 */
export async function iModelIdOf(connection: Connection, text: string, iTwin?: string): Promise<string> {
  if (isId(text)) return text.toLowerCase();
  const iTwins =
    iTwin === undefined
      ? await connection.all<Named>('/itwins?includeInactive=true&$top=1000', 'iTwins', {
          prefer: 'minimal',
          most: mostITwins,
        })
      : [{ id: await iTwinIdOf(connection, iTwin), displayName: iTwin }];
  const search = async (query: Record<string, string>) =>
    (
      await pMap(
        iTwins,
        async ({ id: iTwinId, displayName }) => {
          const parameters = new URLSearchParams({ iTwinId, ...query });
          const found = await page<Named>(connection, `/imodels?${parameters.toString()}`, 'iModels').catch(
            ifNotAllowed,
          );
          return found.map((iModel) => ({ ...iModel, about: `in iTwin '${displayName}' (${iTwinId})` }));
        },
        { concurrency: searches },
      )
    ).flat();
  const found = await search({ name: text });
  if (found.length === 0)
    throw nothing('iModel', text, text === '' ? [] : await search({ $search: text, $top: String(mostShown) }));
  return theOne('iModel', text, found);
}

/** A member of an iTwin need not see its iModels. */
function ifNotAllowed(error: unknown): [] {
  if (error instanceof ExitError && error.exitCode === exitCodes.refused) return [];
  throw error;
}

/** @throws ExitError refused if no named version has the name */
async function namedVersionOf(
  connection: Connection,
  iModelId: string,
  text: string,
): Promise<Named & { changesetIndex: number }> {
  if (isId(text)) {
    const { body } = await connection.request('GET', `/imodels/${iModelId}/namedversions/${text}`);
    return (body as { namedVersion: Named & { changesetIndex: number } }).namedVersion;
  }
  const address = `/imodels/${iModelId}/namedversions`;
  const query = new URLSearchParams({ name: text });
  const [found] = await page<Named & { changesetIndex: number }>(
    connection,
    `${address}?${query.toString()}`,
    'namedVersions',
  );
  if (found !== undefined) return found;
  const search = new URLSearchParams({ $search: text, $top: String(mostShown) });
  throw nothing(
    'named version',
    text,
    text === '' ? [] : await page<Named>(connection, `${address}?${search.toString()}`, 'namedVersions'),
  );
}

/** Adds the argument for an iModel, and the option that narrows its name down. */
export function withIModel(command: Command): Command {
  return command
    .argument('<iModel>', 'name or id')
    .option('--itwin <name or id>', 'iTwin of the iModel, if several iModels have its name');
}

/** Options that select a changeset of an iModel. At most one may be given. */
export interface ChangesetOptions {
  changeset?: string;
  toVersion?: string;
  at?: number;
}

/**
 * Adds the options that select a changeset.
 * @param purpose what it is for and what is selected by default, such as `to name; the newest by default`
 */
export function withChangeset(command: Command, purpose: string): Command {
  return command
    .option('--changeset <id or index>', `changeset ${purpose}. 0 is the baseline`, changesetRef)
    .option('--to-version <name or id>', 'or that of a named version')
    .option(
      '--at <time>',
      'or the last one that was pushed at or before a time: 2026-01-31, 2026-01-31T12:00:00Z, or 30d for 30 days ago',
      pastTime,
    );
}

/** Checks the options before the server is called. @throws ExitError usage if several are given */
export function requireOneChangeset({ changeset, toVersion, at }: ChangesetOptions): void {
  if ([changeset, toVersion, at].filter((option) => option !== undefined).length > 1)
    throw new ExitError(exitCodes.usage, 'give only one of --changeset, --to-version and --at');
}

/**
 * The index or id of the selected changeset; undefined if none is selected.
 * @throws ExitError refused if there is no such version, or no changeset that early
 */
export async function selectedChangeset(
  connection: Connection,
  iModelId: string,
  { changeset, toVersion, at }: ChangesetOptions,
): Promise<string | undefined> {
  if (toVersion !== undefined) return String((await namedVersionOf(connection, iModelId, toVersion)).changesetIndex);
  if (at !== undefined) return String((await lastPushedBy(connection, iModelId, at)).index);
  return changeset;
}

/** The id of a changeset from its index or id; null for the baseline. */
export async function changesetIdOf(
  connection: Connection,
  iModelId: string,
  changeset: string,
): Promise<string | null> {
  if (changeset === '0') return null;
  if (changeset.length === 40) return changeset;
  return (
    (await connection.request('GET', `/imodels/${iModelId}/changesets/${changeset}`)).body as {
      changeset: ListedChangeset;
    }
  ).changeset.id;
}

/** The newest changeset; undefined if the iModel has none. */
export async function newestChangeset(connection: Connection, iModelId: string): Promise<ListedChangeset | undefined> {
  const [newest] = await page<ListedChangeset>(
    connection,
    `/imodels/${iModelId}/changesets?$top=1&$orderBy=index%20desc`,
    'changesets',
  );
  return newest;
}

/** Finds it in steps that halve the range, because push times increase with the index. */
async function lastPushedBy(connection: Connection, iModelId: string, time: number): Promise<ListedChangeset> {
  const get = async (index: number) =>
    (
      (await connection.request('GET', `/imodels/${iModelId}/changesets/${index}`, undefined, 'minimal')).body as {
        changeset: ListedChangeset;
      }
    ).changeset;
  const newest = await newestChangeset(connection, iModelId);
  const limit = new Date(time).toISOString();
  if (newest === undefined)
    throw new ExitError(exitCodes.refused, `the iModel has no changesets; --changeset 0 selects its baseline`);
  if (Date.parse(newest.pushDateTime) <= time) return newest;
  let found = await get(1);
  if (Date.parse(found.pushDateTime) > time)
    throw new ExitError(
      exitCodes.refused,
      `no changeset was pushed at or before ${limit}; the first one was pushed at ${found.pushDateTime}. Imported changesets count as pushed when they were imported. --changeset 0 selects the baseline`,
    );
  for (let after = newest.index; after - found.index > 1;) {
    const middle = await get(Math.floor((found.index + after) / 2));
    if (Date.parse(middle.pushDateTime) <= time) found = middle;
    else after = middle.index;
  }
  return found;
}

/** One of a list of named objects, by id or by name. @throws ExitError refused if there is none, usage if several */
export function namedIn<T extends { id: string }>(
  kind: string,
  items: readonly T[],
  nameOf: (item: T) => string,
  text: string,
): T {
  const byId = items.find(({ id }) => id.toLowerCase() === text.toLowerCase());
  if (byId !== undefined) return byId;
  const found = items.filter((item) => nameOf(item) === text);
  if (found.length === 0)
    throw nothing(
      kind,
      text,
      items.slice(0, mostShown).map((item) => ({ id: item.id, displayName: nameOf(item) })),
    );
  const id = theOne(
    kind,
    text,
    found.map((item) => ({ id: item.id, about: '' })),
  );
  return found.find((item) => item.id === id) as T;
}

async function page<T>(connection: Connection, address: string, key: string): Promise<T[]> {
  const { body } = await connection.request('GET', address, undefined, 'minimal');
  const items = (body as Record<string, T[] | undefined>)[key];
  if (!Array.isArray(items))
    throw new ExitError(exitCodes.failed, `the response of ${address} contains no list of ${key}`);
  return items;
}

/** @throws ExitError usage if several have the name */
function theOne(kind: string, text: string, found: readonly { id: string; about: string }[]): string {
  const [first, ...others] = found;
  if (first !== undefined && others.length === 0) return first.id;
  const shown = found.slice(0, mostShown).map(({ id, about }) => `\n  ${id}${about === '' ? '' : `  ${about}`}`);
  throw new ExitError(
    exitCodes.usage,
    `${found.length} ${kind}s are named '${text}'. Give the id of one${kind === 'iModel' ? ', or --itwin' : ''}:${shown.join('')}${found.length > mostShown ? '\n  …' : ''}`,
  );
}

function nothing(kind: string, text: string, similar: readonly Named[]): ExitError {
  const shown = similar.slice(0, mostShown).map(({ id, displayName }) => `\n  ${id}  ${displayName}`);
  return new ExitError(
    exitCodes.refused,
    `no ${kind} that you can access is named '${text}'.${shown.length === 0 ? '' : ` There are:${shown.join('')}`}`,
  );
}
