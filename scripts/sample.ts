import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliDecompressSync } from 'node:zlib';
import type { Official } from './clients.ts';

const folder = fileURLToPath(new URL('../test/fixtures/sample/', import.meta.url));

/** A changeset of the sample, created with iTwin.js by `scripts/make-sample.ts`. */
export interface SampleChangeset {
  id: string;
  parentId: string;
  description: string;
  containingChanges: number;
  file: string;
}

export function sampleChangesets(): SampleChangeset[] {
  const listed = JSON.parse(readFileSync(path.join(folder, 'changesets.json'), 'utf8')) as SampleChangeset[];
  return listed.map((changeset) => ({ ...changeset, file: path.join(folder, changeset.file) }));
}

/** The sample's baseline, unpacked. */
export function sampleBaseline(): Buffer {
  return brotliDecompressSync(readFileSync(path.join(folder, 'baseline.bim.br')));
}

/** Creates the sample on a server with the official client: the iModel from its baseline, then every changeset. */
export async function pushSample({ client, authorization }: Official, iTwinId: string, name: string): Promise<string> {
  const work = mkdtempSync(path.join(tmpdir(), 'offshoot-sample-'));
  try {
    const filePath = path.join(work, 'baseline.bim');
    writeFileSync(filePath, sampleBaseline());
    const { id: iModelId } = await client.iModels.createFromBaseline({
      authorization,
      iModelProperties: { iTwinId, name, filePath },
    });
    const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
    for (const { id, parentId, description, containingChanges, file } of sampleChangesets())
      await client.changesets.create({
        authorization,
        iModelId,
        changesetProperties: { id, parentId, description, containingChanges, briefcaseId, filePath: file },
      });
    return iModelId;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}
