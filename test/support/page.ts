/** Runs in a browser: the published clients against a server of another origin. The results are posted to the page's own origin. */
import { IModelVersion } from '@itwin/core-common';
import { FrontendIModelsAccess } from '@itwin/imodels-access-frontend';
import { IModelsClient, ThumbnailSize, toArray } from '@itwin/imodels-client-management';

export interface PageInput {
  baseUrl: string;
  token: string;
  iTwinId: string;
  iModelId: string;
  versionName: string;
  newName: string;
}

export interface PageResult {
  fault?: string;
  cloned?: { state: string; changesets: number };
  location?: string | null;
  operation?: string | null;
  lengthIsReadable?: boolean;
  latest?: { index?: number; id?: string };
  named?: { index?: number; id?: string };
  first?: { index?: number };
  thumbnailBytes?: number;
  downloadedBytes?: number;
  refused?: string;
}

async function run(input: PageInput): Promise<PageResult> {
  const { baseUrl, token, iTwinId, iModelId } = input;
  const client = new IModelsClient({ api: { baseUrl } });
  const authorization = async () => ({ scheme: 'Bearer', token });
  const clone = await client.iModels.clone({
    authorization,
    iModelId,
    iModelProperties: { iTwinId, name: input.newName, changesetIndex: 2 },
  });
  const changesets = await toArray(client.changesets.getRepresentationList({ authorization, iModelId }));
  const ofClone = await toArray(client.changesets.getMinimalList({ authorization, iModelId: clone.id }));
  const download = await fetch(changesets[0]?._links.download?.href ?? '');
  const thumbnail = await client.thumbnails.download({
    authorization,
    iModelId,
    urlParams: { size: ThumbnailSize.Small },
  });
  // A page can read the headers that CORS exposes.
  const raw = await fetch(`${baseUrl}/${iModelId}/clone`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ iTwinId, name: `${input.newName} 2` }),
  });
  const exposed = (await fetch(`${baseUrl}/${iModelId}`, { headers: { authorization: `Bearer ${token}` } })).headers;
  const refused = await client.iModels
    .createEmpty({ authorization, iModelProperties: { iTwinId: crypto.randomUUID(), name: 'x' } })
    .then(
      () => 'nothing',
      (error: unknown) => (error as { code?: string }).code ?? 'an error without a code',
    );

  const accessToken = `Bearer ${token}`;
  const access = new FrontendIModelsAccess({ api: { baseUrl } });
  return {
    cloned: { state: clone.state, changesets: ofClone.length },
    location: raw.headers.get('location'),
    operation: raw.headers.get('create-imodel-operation'),
    lengthIsReadable: exposed.get('content-length') !== null,
    latest: await access.getLatestChangeset({ iModelId, accessToken }),
    named: await access.getChangesetFromNamedVersion({ iModelId, accessToken, versionName: input.versionName }),
    first: await access.getChangesetFromVersion({ iModelId, accessToken, version: IModelVersion.first() }),
    thumbnailBytes: thumbnail.image.byteLength,
    downloadedBytes: (await download.arrayBuffer()).byteLength,
    refused,
  };
}

const { input } = globalThis as unknown as { input: PageInput };
void run(input)
  .catch((error: unknown): PageResult => ({
    fault: error instanceof Error ? `${error.message}\n${error.stack}` : String(error),
  }))
  .then((result) => fetch('/', { method: 'POST', body: JSON.stringify(result) }));
