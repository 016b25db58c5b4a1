/** Tests imported and mirrored iModels with real iTwin.js; a part of `scenario.ts`. */
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { BriefcaseDb, BriefcaseManager, type IModelDb } from '@itwin/core-backend';
import { DbResult, Id64 } from '@itwin/core-bentley';
import { Code, type PhysicalElementProps } from '@itwin/core-common';
import type { Setting } from './scenario.ts';

const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));
/** Size to which iTwin.js pads files that it downloads from a checkpoint. */
const paddedTo = 4 * 1024 * 1024;

export function elementsOf(db: IModelDb): string[] {
  return db.withPreparedStatement('select ECInstanceId from bis.PhysicalElement order by ECInstanceId', (statement) => {
    const ids: string[] = [];
    while (statement.step() === DbResult.BE_SQLITE_ROW) ids.push(statement.getValue(0).getId());
    return ids;
  });
}

/** Opens a briefcase at a changeset, without locks: a briefcase behind the head would get none. */
async function openBehind(iTwinId: string, iModelId: string, afterChangeSetId: string): Promise<BriefcaseDb> {
  const local = await BriefcaseManager.downloadBriefcase({ iTwinId, iModelId, asOf: { afterChangeSetId } });
  const file = new DatabaseSync(local.fileName);
  file.exec("insert into be_Local (Name, Val) values ('NoLocking', 'true')");
  file.close();
  return BriefcaseDb.open(local);
}

/** An iModel as files, without information about briefcases. */
async function exportTo(folder: string, { client, authorization }: Setting, iModelId: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const { _links } = await client.baselineFiles.getSingle({ authorization, iModelId });
  const baseline = Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer());
  // Padded, as iTwin.js pads its downloads.
  writeFileSync(
    path.join(folder, 'plant.bim'),
    Buffer.concat([baseline, Buffer.alloc(paddedTo - (baseline.length % paddedTo))]),
  );
  const files = await client.changesets.downloadList({ authorization, iModelId, targetDirectoryPath: folder });
  const listed = files.map(({ id, parentId, index, description, containingChanges, filePath }) => ({
    id,
    parentId,
    index,
    description,
    containingChanges,
    fileName: path.basename(filePath),
  }));
  writeFileSync(path.join(folder, 'changesets.json'), JSON.stringify(listed));
}

/** Elements that are inserted after imported changesets get unique ids, survive the pull, and are pushed. */
export async function imports(setting: Setting): Promise<void> {
  const { models, client, authorization, input } = setting;
  const { iTwinId, otherITwinId, origin, token, folder } = input;
  const sourceId = await models.create(iTwinId, `source ${randomUUID()}`);
  const briefcases: BriefcaseDb[] = [];
  for (let n = 0; n < 3; n++) briefcases.push(await models.openBriefcase(iTwinId, sourceId));
  const ever = new Set<string>();
  let first = '';
  for (const [row, db] of briefcases.entries()) {
    await db.pullChanges();
    await models.pushSpheres(db, 2, row + 1);
    if (row === 0) first = db.changeset.id;
    for (const id of elementsOf(db)) ever.add(id);
  }
  // All elements of the third briefcase are deleted: their ids must not be used again.
  const third = briefcases[2] as BriefcaseDb;
  const deleted = elementsOf(third).filter((id) => Id64.getBriefcaseId(id) === third.briefcaseId);
  assert.equal(deleted.length, 2);
  await third.locks.acquireLocks({ exclusive: [models.plantOf(third).model, ...deleted] });
  third.elements.deleteElement(deleted);
  third.saveChanges();
  await third.pushChanges({ description: 'delete' });
  const kept = elementsOf(third);
  const highest = third.briefcaseId;
  for (const db of briefcases) db.close();

  const exported = path.join(folder, 'exported');
  await exportTo(exported, setting, sourceId);
  const run = async (...args: string[]): Promise<string> => {
    const { stdout } = await promisify(execFile)(process.execPath, [
      cli,
      ...args,
      '--url',
      origin,
      '--token',
      token,
      '--itwin',
      otherITwinId,
      '--name',
      randomUUID(),
      '--json',
    ]);
    return (JSON.parse(stdout) as { id: string }).id;
  };
  for (const [kind, iModelId] of [
    ['imported', await run('import', exported)],
    ['mirrored', await run('mirror', `${origin}/imodels/${sourceId}`, '--private-source', '--source-token', token)],
  ] as const) {
    const recorded: number[] = [];
    for await (const { briefcaseId } of client.changesets.getMinimalList({ authorization, iModelId }))
      recorded.push(briefcaseId);
    // The last changeset only deletes, so a folder does not contain the id of its briefcase.
    assert.deepEqual(recorded.slice(0, 3), [2, 3, 4], kind);
    if (kind === 'mirrored') assert.equal(recorded[3], 4);
    for (const briefcaseId of [2, 3, 4])
      await assert.rejects(client.briefcases.getSingle({ authorization, iModelId, briefcaseId }), {
        code: 'BriefcaseNotFound',
      });
    const db = await openBehind(otherITwinId, iModelId, first);
    assert.equal(db.changeset.index, 1);
    assert.ok(db.briefcaseId > highest, `${kind}: briefcase ${db.briefcaseId}`);
    const props: PhysicalElementProps = {
      classFullName: 'Generic:PhysicalObject',
      ...models.plantOf(db),
      code: Code.createEmpty(),
      userLabel: kind,
    };
    const inserted = db.elements.insertElement(props);
    assert.ok(!ever.has(inserted), `${kind}: ${inserted} was used before`);
    db.saveChanges();
    await db.pullChanges();
    await db.pushChanges({ description: kind });
    assert.deepEqual(
      elementsOf(db),
      [...kept, inserted].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1)),
      kind,
    );
    db.close();
    const again = await models.openBriefcase(otherITwinId, iModelId);
    assert.equal(again.elements.getElementProps(inserted).userLabel, kind);
    again.close();
  }
}
