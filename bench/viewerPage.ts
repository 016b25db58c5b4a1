/**
 * Runs in a browser: core-frontend, unmodified, opens the newest changeset of an iModel and draws all its models. How long
 * that took is posted to the page's own origin. Bundled by the benchmark `viewer`.
 */
import {
  BentleyCloudRpcManager,
  IModelReadRpcInterface,
  IModelTileRpcInterface,
  IModelVersion,
} from '@itwin/core-common';
import { CheckpointConnection, IModelApp, ScreenViewport, StandardViewId, ViewCreator3d } from '@itwin/core-frontend';
import { FrontendIModelsAccess } from '@itwin/imodels-access-frontend';

export interface ViewInput {
  server: string;
  token: string;
  iTwinId: string;
  iModelId: string;
}

export type ViewOutput = { fault: string } | { ms: number; tiles: number };

/** How long a view must be complete: the tiles of a finer level are wanted once those of a coarser one are there. */
const completeMs = 2000;
const lookMs = 20;

declare const document: { getElementById(id: string): never };

async function view({ server, token, iTwinId, iModelId }: ViewInput): Promise<ViewOutput> {
  const rpcInterfaces = [IModelReadRpcInterface, IModelTileRpcInterface];
  await IModelApp.startup({
    hubAccess: new FrontendIModelsAccess({ api: { baseUrl: `${server}/imodels` } }),
    authorizationClient: { getAccessToken: async () => `Bearer ${token}` },
    rpcInterfaces,
  });
  BentleyCloudRpcManager.initializeClient(
    { info: { title: 'offshoot', version: '1' }, uriPrefix: `${server}/viewer/rpc` },
    rpcInterfaces,
  );
  const began = performance.now();
  const connection = await CheckpointConnection.openRemote(iTwinId, iModelId, IModelVersion.latest());
  const state = await new ViewCreator3d(connection).createDefaultView({ standardViewId: StandardViewId.RightIso });
  // Background maps come from servers on the internet.
  state.viewFlags = state.viewFlags.with('backgroundMap', false);
  const viewport = ScreenViewport.create(document.getElementById('view'), state);
  IModelApp.viewManager.addViewport(viewport);
  let since: number | undefined;
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, lookMs));
    const now = performance.now();
    if (!viewport.areAllTileTreesLoaded || viewport.numRequestedTiles > 0 || viewport.numReadyTiles === 0)
      since = undefined;
    else if (now - (since ??= now) > completeMs) return { ms: since - began, tiles: viewport.numSelectedTiles };
  }
}

async function main(): Promise<void> {
  let output: ViewOutput;
  try {
    output = await view((await (await fetch('/input')).json()) as ViewInput);
  } catch (error) {
    output = { fault: error instanceof Error ? `${error.message} ${error.stack ?? ''}` : String(error) };
  }
  await fetch('/output', { method: 'POST', body: JSON.stringify(output) });
}

await main();
