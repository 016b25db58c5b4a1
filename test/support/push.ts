import { randomBytes } from 'node:crypto';
import type { Answer, Api } from './api.ts';
import { makeIModel, type Official } from './clients.ts';

/** The first push to a new iModel, whose file is not uploaded yet. */
export interface BegunPush {
  iModelId: string;
  upload: string;
  complete: () => Promise<Answer>;
  /** Downloads the bytes of the changeset as a client does. */
  content: () => Promise<Buffer>;
}

/** Announces a push of this size. @param api plain HTTP of the same user */
export async function beginPush(olivia: Official, api: Api, iTwinId: string, fileSize: number): Promise<BegunPush> {
  const { id: iModelId } = await makeIModel(olivia, iTwinId);
  const { briefcaseId } = await olivia.client.briefcases.acquire({ authorization: olivia.authorization, iModelId });
  const begun = await api.post(`/imodels/${iModelId}/changesets`, {
    id: randomBytes(20).toString('hex'),
    briefcaseId,
    fileSize,
  });
  const { _links } = (begun.body as { changeset: { _links: { upload: { href: string }; complete: { href: string } } } })
    .changeset;
  return {
    iModelId,
    upload: _links.upload.href,
    complete: () => api.patch(_links.complete.href, { state: 'fileUploaded', briefcaseId }),
    content: async () => Buffer.from(await (await fetch(await downloadLink(api, iModelId))).arrayBuffer()),
  };
}

/** A new download link of a changeset. */
export async function downloadLink(api: Api, iModelId: string, index = 1): Promise<string> {
  const { changeset } = (await api.get(`/imodels/${iModelId}/changesets/${index}`)).body as {
    changeset: { _links: { download: { href: string } } };
  };
  return changeset._links.download.href;
}
