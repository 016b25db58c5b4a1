import { randomUUID } from 'node:crypto';
import { createWriteStream, mkdtempSync, rmSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { clientsOf } from '../../scripts/clients.ts';
import { timed } from '../common.ts';
import type { OtherWay, Setting } from './peers.ts';

export const clientCopy = 'copy with the official client';

/**
 * What an application did before there was a clone operation: downloads the baseline and all changesets with the
 * official client, creates an iModel from the baseline, and pushes the changesets to it.
 */
export async function prepareClientCopy({ api, installation, folder }: Setting): Promise<OtherWay> {
  const { client, authorization } = clientsOf(api.origin, api.token);
  const { modelId: iModelId } = installation.content;
  const copy = async (): Promise<void> => {
    const work = mkdtempSync(path.join(folder, 'client-'));
    try {
      const { baselineFile } = await api.json<{ baselineFile: { _links: { download: { href: string } } } }>(
        'GET',
        `/imodels/${iModelId}/baselinefile`,
      );
      const baseline = path.join(work, 'baseline.bim');
      const { body } = await fetch(baselineFile._links.download.href);
      await pipeline(Readable.fromWeb(body as never), createWriteStream(baseline));
      const downloaded = await client.changesets.downloadList({
        authorization,
        iModelId,
        targetDirectoryPath: path.join(work, 'changesets'),
      });
      const { id } = await client.iModels.createFromBaseline({
        authorization,
        iModelProperties: { iTwinId: installation.iTwinId, name: randomUUID(), filePath: baseline },
      });
      const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId: id });
      for (const changeset of downloaded.sort((a, b) => a.index - b.index))
        await client.changesets.create({
          authorization,
          iModelId: id,
          changesetProperties: {
            id: changeset.id,
            ...(changeset.parentId !== '' && { parentId: changeset.parentId }),
            briefcaseId,
            filePath: changeset.filePath,
          },
        });
    } finally {
      rmSync(work, { recursive: true, force: true });
    }
  };
  return { name: clientCopy, run: () => timed(copy) };
}
