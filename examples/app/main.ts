/**
 * The life of an iModel through the official client, without iTwin.js: create it, push to it, name a version, clone it to that
 * version, and read the clone.
 *
 *   node main.ts [origin of the server]        the token in OFFSHOOT_TOKEN
 */
import { createHash, randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { IModelsClient } from '@itwin/imodels-client-authoring';
import { toArray } from '@itwin/imodels-client-management';
import { ITwinClass, ITwinsAccessClient, ITwinSubClass } from '@itwin/itwins-client';
import { AzureClientStorage, BlockBlobClientWrapperFactory } from '@itwin/object-storage-azure';

const origin = process.argv[2] ?? 'http://localhost:4700';
const token = process.env['OFFSHOOT_TOKEN'];
if (token === undefined) throw new Error('Set OFFSHOOT_TOKEN: OFFSHOOT_TOKEN="$(npx offshoot token)" node main.ts');

// What differs from the vendor's service: the two addresses.
const client = new IModelsClient({
  api: { baseUrl: `${origin}/imodels` },
  cloudStorage: new AzureClientStorage(new BlockBlobClientWrapperFactory()),
});
const iTwins = new ITwinsAccessClient(`${origin}/itwins`);
const authorization = async () => ({ scheme: 'Bearer', token });
const work = mkdtempSync(path.join(tmpdir(), 'offshoot-app-'));

try {
  const iTwinId = await anITwin();
  const name = `Plant ${randomUUID().slice(0, 8)}`;
  const { id: iModelId } = await client.iModels.createEmpty({ authorization, iModelProperties: { iTwinId, name } });
  console.log(`created ${name}: ${iModelId}`);

  const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
  let parentId = '';
  for (const description of ['tanks', 'pumps', 'pipes']) {
    const changeset = changesetFile(description);
    const pushed = await client.changesets.create({
      authorization,
      iModelId,
      changesetProperties: { ...changeset, briefcaseId, description, parentId },
    });
    console.log(`pushed changeset ${pushed.index}: ${description}`);
    parentId = pushed.id;
    if (description === 'pumps')
      await client.namedVersions.create({
        authorization,
        iModelId,
        namedVersionProperties: { name: 'Issued for review', changesetId: pushed.id },
      });
  }

  const versions = await toArray(client.namedVersions.getRepresentationList({ authorization, iModelId }));
  const version = versions.find((each) => each.name === 'Issued for review');
  if (version?.changesetId == null) throw new Error('the named version has no changeset');
  const clone = await client.iModels.clone({
    authorization,
    iModelId,
    iModelProperties: { iTwinId, name: `${name} as issued`, changesetId: version.changesetId },
  });
  console.log(`cloned to '${version.name}' (changeset ${version.changesetIndex}): ${clone.id}`);

  // The source may go; the clone keeps what it has.
  await client.iModels.delete({ authorization, iModelId });
  const files = await client.changesets.downloadList({
    authorization,
    iModelId: clone.id,
    targetDirectoryPath: path.join(work, 'read'),
  });
  for (const { index, description, fileSize } of files)
    console.log(`read changeset ${index} of the clone: ${description}, ${fileSize} bytes`);
  await client.iModels.delete({ authorization, iModelId: clone.id });
} finally {
  rmSync(work, { recursive: true });
}

/** @returns the id of any iTwin of the user, or of a new one */
async function anITwin(): Promise<string> {
  const accessToken = `Bearer ${token}`;
  const [first] = (await iTwins.queryAsync(accessToken, undefined, { top: 1 })).data ?? [];
  if (first?.id !== undefined) return first.id;
  const displayName = `Example ${randomUUID()}`;
  const made = await iTwins.createiTwin(accessToken, {
    displayName,
    class: ITwinClass.Endeavor,
    subClass: ITwinSubClass.Project,
  });
  if (made.data?.id === undefined) throw new Error(`cannot create an iTwin: ${made.error?.message}`);
  return made.data.id;
}

/**
 * Stands for a changeset. A real one is written by iTwin.js, which also computes its id from the content and the parent (see
 * packages/itwinjs/example). The server stores files of other formats as they are.
 */
function changesetFile(text: string): { id: string; filePath: string } {
  const filePath = path.join(work, `${text}.changeset`);
  writeFileSync(filePath, text);
  return { id: createHash('sha1').update(text).update(randomUUID()).digest('hex'), filePath };
}
