import assert from 'node:assert/strict';
import { createHash, randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { CheckpointState, type Checkpoint } from '@itwin/imodels-client-management';
import type { Answer, Api } from './api.ts';
import { workFolder, type MadeIModel, type Official } from './clients.ts';
import { until } from './until.ts';

/** Header of a changeset file, and the size of the dictionary (16 MiB). */
const header = Buffer.concat([
  Buffer.from([22, 0]),
  Buffer.from('ChangeSetLzma\0\0\0', 'latin1'),
  Buffer.from([0x10, 0, 2, 0, 24]),
]);

/** A changeset file in the format of iTwin.js, with these changes stored uncompressed. @param prefix describes schema changes */
export function changesetFile(changes: Buffer, prefix = Buffer.alloc(0)): Buffer {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(prefix.length);
  const content = Buffer.concat([length, prefix, changes]);
  const chunks: Buffer[] = [];
  for (let start = 0; start < content.length; start += 65_536) {
    const data = content.subarray(start, start + 65_536);
    chunks.push(Buffer.from([start === 0 ? 1 : 2, (data.length - 1) >> 8, (data.length - 1) & 0xff]), data);
  }
  return Buffer.concat([header, ...chunks, Buffer.from([0])]);
}

/** Changes in SQLite's format that insert elements with ids of these briefcases. */
export function insertedElements(...briefcases: number[]): Buffer<ArrayBuffer> {
  const table = Buffer.concat([Buffer.from([0x54, 2, 1, 0]), Buffer.from('bis_Element\0')]);
  const rows = briefcases.map((briefcase) => {
    const id = Buffer.alloc(8);
    id.writeBigInt64BE((BigInt(briefcase) << 40n) | 1n);
    // Insert a row with an integer and a text.
    return Buffer.concat([Buffer.from([18, 0, 1]), id, Buffer.from([3, 4]), Buffer.from('name')]);
  });
  return Buffer.concat([table, ...rows]);
}

/** The id of a changeset with these changes: SHA-1 over the parent's id, 20 bytes, and the changes. */
export function realIdOf(parentId: string, changes: Buffer, prefix = Buffer.alloc(0)): string {
  return createHash('sha1')
    .update(parentId === '' ? Buffer.alloc(20) : Buffer.from(parentId, 'hex'))
    .update(prefix)
    .update(changes)
    .digest('hex');
}

/** A changeset whose bytes give its id, with changes that cannot be applied. */
export function makeChangeset(
  parentId: string,
  changes: Buffer = randomBytes(300),
): { id: string; parentId: string; bytes: Buffer } {
  return { id: realIdOf(parentId, changes), parentId, bytes: changesetFile(changes) };
}

/** Pushes changesets whose bytes give their ids, each from a new briefcase. */
export async function pushVerifiable(
  { client, authorization }: Official,
  made: MadeIModel,
  count: number,
): Promise<number[]> {
  const work = workFolder();
  const briefcases: number[] = [];
  try {
    for (let n = 0; n < count; n++) {
      const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId: made.id });
      const changeset = makeChangeset(made.changesets.at(-1)?.id ?? '');
      const filePath = path.join(work.path, `${changeset.id}.cs`);
      writeFileSync(filePath, changeset.bytes);
      const { index } = await client.changesets.create({
        authorization,
        iModelId: made.id,
        changesetProperties: { id: changeset.id, parentId: changeset.parentId, briefcaseId, filePath },
      });
      made.changesets.push({ ...changeset, index });
      briefcases.push(briefcaseId);
    }
    return briefcases;
  } finally {
    work.remove();
  }
}

/** Pushes a file through plain HTTP. @returns the answer to the completion */
export async function pushFile(
  api: Api,
  iModelId: string,
  briefcaseId: number,
  changeset: { id: string; parentId: string; bytes: Buffer },
): Promise<Answer> {
  const { id, parentId, bytes } = changeset;
  const begun = await api.post(`/imodels/${iModelId}/changesets`, {
    id,
    parentId,
    briefcaseId,
    fileSize: bytes.length,
  });
  assert.equal(begun.status, 201, JSON.stringify(begun.body));
  const { _links } = (begun.body as { changeset: { _links: { upload: { href: string }; complete: { href: string } } } })
    .changeset;
  assert.equal(
    (
      await api.put(_links.upload.href, bytes, {
        'x-ms-blob-type': 'BlockBlob',
        'content-type': 'application/octet-stream',
      })
    ).status,
    201,
  );
  return api.patch(_links.complete.href, { state: 'fileUploaded', briefcaseId });
}

/**
 * Pushes a changeset with a prefix and no changes to a new iModel, and names a version there, which schedules its checkpoint.
 * @param work folder for its file
 * @returns the id of the iModel
 */
export async function pushPrefix(
  { client, authorization }: Official,
  iTwinId: string,
  work: string,
  prefix: object,
): Promise<string> {
  const { id: iModelId } = await client.iModels.createEmpty({
    authorization,
    iModelProperties: { iTwinId, name: randomUUID() },
  });
  const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId });
  const [changes, start] = [Buffer.alloc(0), Buffer.from(`${JSON.stringify(prefix)}\0`)];
  const id = realIdOf('', changes, start);
  const filePath = path.join(work, `${id}.cs`);
  writeFileSync(filePath, changesetFile(changes, start));
  // Declared as having no schema changes: the content of the file decides.
  await client.changesets.create({
    authorization,
    iModelId,
    changesetProperties: { id, briefcaseId, filePath, containingChanges: 0 },
  });
  await client.namedVersions.create({
    authorization,
    iModelId,
    namedVersionProperties: { name: 'version', changesetId: id },
  });
  return iModelId;
}

/** The checkpoint of the first changeset, once it has succeeded or failed. */
export function finishedCheckpoint({ client, authorization }: Official, iModelId: string): Promise<Checkpoint> {
  return until(
    'the checkpoint is decided',
    async () => {
      const checkpoint = await client.checkpoints.getSingle({ authorization, iModelId, changesetIndex: 1 });
      return checkpoint.state === CheckpointState.Scheduled ? undefined : checkpoint;
    },
    60_000,
  );
}
