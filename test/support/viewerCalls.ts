/** Calls of viewers as the front end of iTwin.js sends them, for tests without a browser. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { BackendProcess } from '../../apps/server/src/viewer/backendProcess.ts';
import type { Api, Answer } from './api.ts';
import { workFolder } from './clients.ts';
import type { Context } from './suite.ts';
import { until } from './until.ts';

/** Checkpoints are made at once, and the server answers viewers. */
export const viewerConfig = {
  checkpoints: { generate: 'auto' as const, delaySeconds: 0, firstRetrySeconds: 0 },
  viewer: { enabled: true },
} satisfies ConfigInput;

const run = promisify(execFile);
const plantProcess = fileURLToPath(new URL('./plantProcess.ts', import.meta.url));

/** Creates an iModel with geometry from a file. */
export async function makePlant(
  { olivia, iTwinId }: Pick<Context, 'olivia' | 'iTwinId'>,
  elements: number,
): Promise<string> {
  const work = workFolder();
  try {
    const filePath = path.join(work.path, 'plant.bim');
    await run(process.execPath, [plantProcess, filePath, String(elements), '3d']);
    const { client, authorization } = olivia;
    const iModelProperties = { iTwinId, name: randomUUID(), filePath };
    return (await client.iModels.createFromBaseline({ authorization, iModelProperties })).id;
  } finally {
    work.remove();
  }
}

export interface Place {
  iTwinId: string;
  iModelId: string;
  changesetId?: string;
}

export const addressOf = ({ iTwinId, iModelId, changesetId = '' }: Place, operation: string): string =>
  `/viewer/rpc/suite/1/mode/1/context/${iTwinId}/imodel/${iModelId}/changeset/${changesetId || '0'}/${operation}`;

export const tokenOf = ({ iTwinId, iModelId, changesetId = '' }: Place) => ({
  key: `${iModelId}:${changesetId}`,
  iTwinId,
  iModelId,
  changeset: { id: changesetId, index: 0 },
});

export const read = 'IModelReadRpcInterface-3.7.0-';
export const tile = 'IModelTileRpcInterface-3.2.0-';

/** Sends a call once, as the front end of iTwin.js does. */
export function send(
  api: Api,
  place: Place,
  operation: string,
  rest: readonly unknown[] = [],
  headers: Record<string, string> = {},
): Promise<Answer> {
  return api.post(addressOf(place, operation), JSON.stringify([tokenOf(place), ...rest]), {
    'content-type': 'text/plain',
    'x-correlation-id': randomUUID(),
    'x-protocol-version': '4',
    ...headers,
  });
}

/** Sends a call until it is answered with something other than 202, as the front end does while a checkpoint is made. */
export async function call(api: Api, place: Place, operation: string, ...rest: unknown[]): Promise<Answer> {
  return until(
    `the answer to ${operation}`,
    async () => {
      const answer = await send(api, place, operation, rest);
      return answer.status === 202 ? undefined : answer;
    },
    60_000,
  );
}

export async function cloneOf(
  { olivia, iTwinId }: Pick<Context, 'olivia' | 'iTwinId'>,
  iModelId: string,
): Promise<Place> {
  const { client, authorization } = olivia;
  const iModelProperties = { iTwinId, name: randomUUID() };
  return { iTwinId, iModelId: (await client.iModels.clone({ authorization, iModelId, iModelProperties })).id };
}

export const processOf = ({ server }: Context): BackendProcess => {
  const [backend] = server.services.viewer.backends;
  assert.ok(backend instanceof BackendProcess);
  return backend;
};

/** The tree of the first model with geometry, as a front end asks for it. */
async function treeOf(api: Api, place: Place): Promise<{ id: string; contentId: string }> {
  const rows = await call(api, place, `${read}queryRows`, {
    query: 'SELECT m.ECInstanceId FROM bis.PhysicalModel m ORDER BY m.ECInstanceId LIMIT 1',
  });
  const [[model] = []] = (rows.body as { data: string[][] }).data;
  const id = `25_11-${model}`;
  const tree = await call(api, place, `${tile}requestTileTreeProps`, id);
  assert.equal(tree.status, 200, JSON.stringify(tree.body));
  return { id, contentId: (tree.body as { rootTile: { contentId: string } }).rootTile.contentId };
}

/** Everything that a viewer is shown of one tile. */
export async function tileOf(context: Pick<Context, 'api' | 'server'>, place: Place): Promise<Buffer> {
  const { api } = context;
  const { id, contentId } = await treeOf(api, place);
  const made = await call(api, place, `${tile}generateTileContent`, id, contentId, 'first');
  assert.deepEqual([made.status, made.body], [200, 0]);
  const token = await context.server.token('olivia');
  const response = await fetch(`${context.server.origin}${addressOf(place, `${tile}retrieveTileContent`)}`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'text/plain' },
    body: JSON.stringify([tokenOf(place), { tokenProps: tokenOf(place), treeId: id, contentId, guid: 'first' }]),
  });
  assert.equal(response.status, 200);
  assert.equal(response.headers.get('content-type'), 'application/octet-stream');
  return Buffer.from(await response.arrayBuffer());
}
