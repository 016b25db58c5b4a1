/**
 * Runs in a browser: core-frontend, unmodified, opens iModels through the back end of the viewer and reads their tiles. What it found is
 * posted to the page's own origin. Bundled by a test.
 */
import {
  BatchType,
  BentleyCloudRpcManager,
  IModelReadRpcInterface,
  IModelTileRpcInterface,
  IModelVersion,
  iModelTileTreeIdToString,
} from '@itwin/core-common';
import { CheckpointConnection, IModelApp, type IModelConnection } from '@itwin/core-frontend';
import { FrontendIModelsAccess } from '@itwin/imodels-access-frontend';

export interface ViewInput {
  server: string;
  token: string;
  /** What to open, all at once. */
  iModels: { iTwinId: string; iModelId: string; changesetId?: string }[];
}

/** What one connection found, or why it found nothing. */
export interface ViewResult {
  fault?: string;
  elements?: number;
  tileBytes?: number;
}

async function view(connection: IModelConnection): Promise<ViewResult> {
  let elements = 0;
  let model = '';
  for await (const row of connection.createQueryReader('SELECT COUNT(*), MIN(Model.Id) FROM bis.GeometricElement3d')) {
    elements = row[0] as number;
    model = row[1] as string;
  }
  const treeId = iModelTileTreeIdToString(model, { type: BatchType.Primary, edges: false }, IModelApp.tileAdmin);
  const { rootTile } = await IModelApp.tileAdmin.requestTileTreeProps(connection, treeId);
  const rpc = IModelTileRpcInterface.getClient();
  const token = connection.getRpcProps();
  await rpc.generateTileContent(token, treeId, rootTile.contentId, undefined);
  const content = await rpc.retrieveTileContent(token, { treeId, contentId: rootTile.contentId, guid: undefined });
  return { elements, tileBytes: content.length };
}

async function run({ server, token, iModels }: ViewInput): Promise<ViewResult[]> {
  await IModelApp.startup({
    hubAccess: new FrontendIModelsAccess({ api: { baseUrl: `${server}/imodels` } }),
    authorizationClient: { getAccessToken: async () => `Bearer ${token}` },
  });
  BentleyCloudRpcManager.initializeClient(
    { info: { title: 'offshoot', version: '1' }, uriPrefix: `${server}/viewer/rpc` },
    [IModelReadRpcInterface, IModelTileRpcInterface],
  );
  return Promise.all(
    iModels.map(async ({ iTwinId, iModelId, changesetId }) => {
      try {
        const version = changesetId === undefined ? IModelVersion.latest() : IModelVersion.asOfChangeSet(changesetId);
        return await view(await CheckpointConnection.openRemote(iTwinId, iModelId, version));
      } catch (error) {
        return { fault: error instanceof Error ? error.message : String(error) };
      }
    }),
  );
}

async function main(): Promise<void> {
  const input = (await (await fetch('/input')).json()) as ViewInput;
  let result: ViewResult[] | { fault: string };
  try {
    result = await run(input);
  } catch (error) {
    result = { fault: error instanceof Error ? `${error.message} ${error.stack ?? ''}` : String(error) };
  }
  await fetch('/result', { method: 'POST', body: JSON.stringify(result) });
}

await main();
