import { serverAddress } from './base.ts';

/** What the page shows: an iModel at a changeset. */
export interface Point {
  iModelId: string;
  iTwinId: string;
  name: string;
  index: number;
  /** Empty for the baseline. */
  changesetId: string;
}

interface Changeset {
  id: string;
  index: number;
}

const answerMs = 30_000;
const id = /^[0-9a-f-]{36}$/i;

/** The point that the address names: `?iModel=…&at=INDEX`, by default the newest changeset. */
export async function pointOf(search: URLSearchParams, token: string): Promise<Point> {
  const iModelId = search.get('iModel') ?? '';
  if (!id.test(iModelId)) throw new Error('The address names no iModel. Open the viewer from the console.');
  const { iModel } = await get<{ iModel: { displayName: string; iTwinId: string } }>(`/imodels/${iModelId}`, token);
  const changeset = await changesetOf(iModelId, search.get('at'), token);
  await requestCheckpoint(iModelId, changeset?.index ?? 0, token);
  return {
    iModelId,
    iTwinId: iModel.iTwinId,
    name: iModel.displayName,
    index: changeset?.index ?? 0,
    changesetId: changeset?.id ?? '',
  };
}

async function changesetOf(iModelId: string, at: string | null, token: string): Promise<Changeset | undefined> {
  if (at === '0') return undefined;
  if (at !== null && /^\d{1,9}$/.test(at))
    return (await get<{ changeset: Changeset }>(`/imodels/${iModelId}/changesets/${at}`, token)).changeset;
  const { changesets } = await get<{ changesets: Changeset[] }>(
    `/imodels/${iModelId}/changesets?$top=1&$orderBy=index%20desc`,
    token,
  );
  return changesets[0];
}

/** The viewer opens checkpoints, and waits for one that is being made. Servers do not make one for every changeset by themselves. */
async function requestCheckpoint(iModelId: string, index: number, token: string): Promise<void> {
  const address = `/imodels/${iModelId}/changesets/${index}/checkpoint`;
  const { checkpoint } = await get<{ checkpoint: { state: string; failureReason?: string | null } }>(address, token);
  if (checkpoint.state === 'successful' || checkpoint.state === 'scheduled') return;
  const response = await send('PUT', address, token);
  if (response.status === 403)
    throw new Error('There is no checkpoint at this changeset, and you may not have one made.');
  if (!response.ok) throw new Error(checkpoint.failureReason ?? statusText(response));
}

async function get<T>(path: string, token: string): Promise<T> {
  const response = await send('GET', path, token);
  if (response.ok) return (await response.json()) as T;
  throw new Error(
    [401, 403, 404].includes(response.status)
      ? 'This iModel does not exist, or you may not see it.'
      : statusText(response),
  );
}

const statusText = ({ status }: Response): string => `The server answered with status ${status}.`;

function send(method: 'GET' | 'PUT', path: string, authorization: string): Promise<Response> {
  return fetch(`${serverAddress}${path}`, {
    method,
    headers: { authorization, accept: 'application/vnd.bentley.itwin-platform.v2+json' },
    signal: AbortSignal.timeout(answerMs),
  });
}
