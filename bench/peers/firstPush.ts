import { prepareSource } from '../../apps/server/src/bench/clone.ts';
import { alone, withFolder, type Figure } from '../common.ts';
import { Api, databaseBytes, makeInstallation } from '../installation.ts';

const depths = [1, 1000, 5000];
/** The database grows by whole pages: several pushes share the error. */
const pushes = 10;
const pushBytes = 1000;

/** Bytes that the first push to a clone adds to the database, by depth of the source's history. */
export async function measureFirstPush(): Promise<Figure[]> {
  return withFolder(async (dataDir) => {
    const installation = await makeInstallation(dataDir, undefined, async (services, caller, iTwinId) => {
      const sources: string[] = [];
      for (const depth of depths)
        sources.push(await prepareSource(services, caller, iTwinId, { changesets: depth, depth }));
      return sources;
    });
    const server = await installation.start();
    try {
      const api = new Api(server.origin, installation.token);
      const figures: Figure[] = [];
      for (const [n, source] of installation.content.entries()) {
        const { changesets } = await api.json<{ changesets: { id: string }[] }>(
          'GET',
          `/imodels/${source}/changesets?$orderBy=index%20desc&$top=1`,
        );
        const clones: string[] = [];
        while (clones.length < pushes) clones.push(await api.clone(source, installation.iTwinId));
        const before = databaseBytes(dataDir);
        for (const clone of clones) await api.push(clone, changesets[0]?.id ?? '', pushBytes);
        const added = (databaseBytes(dataDir) - before) / 1024 / pushes;
        figures.push(
          alone(`rows of the first push to a clone, depth ${depths[n]?.toLocaleString('en-US') ?? ''}`, 'KiB', added),
        );
      }
      return figures;
    } finally {
      await server.stop();
    }
  });
}
