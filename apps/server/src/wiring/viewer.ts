import path from 'node:path';
import type { FastifyBaseLogger } from 'fastify';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import { iTwinJsVersion } from '../checkpoints/itwinjs/itwinjsVersion.ts';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import type { SignedLinks } from '../storage/signedLinks.ts';
import type { Stores } from '../storage/stores.ts';
import { BackendProcess } from '../viewer/backendProcess.ts';
import { isViewerInstalled } from '../viewer/installed.ts';
import { RemoteBackend } from '../viewer/remoteBackend.ts';
import { StoredTiles } from '../viewer/storedTiles.ts';
import { TileCache } from '../viewer/tileCache.ts';
import { Viewer } from '../viewer/viewer.ts';

/** The first of the processes that answer viewers: on machines without namespaces each has a user of its own. */
const firstUser = 200;

interface ViewerParts {
  database: Database;
  stores: Stores;
  checkpoints: Checkpoints;
  signedLinks: SignedLinks;
  workDir: string;
  log: FastifyBaseLogger;
}

/** What answers viewers; it has no back ends if this server answers none. */
export function wireViewer(config: Config, { workDir, log, stores, ...parts }: ViewerParts): Viewer {
  const { viewer } = config;
  const { service } = viewer;
  const processes = Array.from(
    { length: viewer.enabled && service === undefined && isViewerInstalled() ? viewer.processes : 0 },
    (_, n) =>
      new BackendProcess({
        folder: path.join(workDir, `viewer-${n}`),
        slot: firstUser + n,
        viewer,
        isolation: config.checkpoints.isolation,
        log,
      }),
  );
  const backends =
    viewer.enabled && service !== undefined
      ? [new RemoteBackend({ url: service.url, key: service.key ?? '' })]
      : processes;
  const tiles = new TileCache(
    path.join(config.dataDir, 'tiles'),
    backends.length > 0 ? viewer.tilesMiB * 2 ** 20 : 0,
    log,
  );
  const iTwinJs = (): string | undefined => backends[0]?.iTwinJs ?? (iTwinJsVersion() || undefined);
  const limit = viewer.sharedTilesMiB * 2 ** 20;
  const storedTiles = new Map(
    stores.all.flatMap(({ id, tiles: objects }) =>
      objects === undefined ? [] : [[id, new StoredTiles({ store: id, objects, limit, iTwinJs, log })] as const],
    ),
  );
  return new Viewer({ ...parts, config, tiles, storedTiles, backends });
}
