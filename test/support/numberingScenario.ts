/** Tests with real iTwin.js the ids that derived iModels continue; a part of `scenario.ts`. */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { BriefcaseDb, BriefcaseManager, IModelHost, SnapshotDb, type IModelDb } from '@itwin/core-backend';
import { DbResult, Id64 } from '@itwin/core-bentley';
import { Code, type IModelVersionProps, type PhysicalElementProps } from '@itwin/core-common';
import type { Setting } from './scenario.ts';

interface Source {
  id: string;
  /** First changeset: the same briefcases insert others after it. */
  first: string;
  head: string;
  /** Every element id ever created in it, including deleted elements. */
  ever: Set<string>;
  /** Elements that exist at the head. */
  kept: string[];
  highestBriefcaseId: number;
}

/** A derived iModel, and the changeset at which a briefcase of it is opened to insert an element. */
interface Derived {
  kind: string;
  id: string;
  iTwinId: string;
  asOf: IModelVersionProps;
  /** Elements that must exist in the end. */
  holds: readonly string[];
}

function elementsOf(db: IModelDb): string[] {
  return db.withPreparedStatement('select ECInstanceId from bis.PhysicalElement order by ECInstanceId', (statement) => {
    const ids: string[] = [];
    while (statement.step() === DbResult.BE_SQLITE_ROW) ids.push(statement.getValue(0).getId());
    return ids;
  });
}

/** Opens a new briefcase at a changeset. @param locks false: without locks, as iTwin.js allows */
async function openAt(
  iTwinId: string,
  iModelId: string,
  asOf: IModelVersionProps,
  locks: boolean,
): Promise<BriefcaseDb> {
  const local = await BriefcaseManager.downloadBriefcase({ iTwinId, iModelId, asOf });
  if (!locks) {
    const file = new DatabaseSync(local.fileName);
    file.exec("insert into be_Local (Name, Val) values ('NoLocking', 'true')");
    file.close();
  }
  return BriefcaseDb.open(local);
}

function insertVessel({ models }: Setting, db: BriefcaseDb, userLabel: string): string {
  const props: PhysicalElementProps = {
    classFullName: 'Generic:PhysicalObject',
    ...models.plantOf(db),
    code: Code.createEmpty(),
    userLabel,
  };
  const id = db.elements.insertElement(props);
  db.saveChanges(userLabel);
  return id;
}

/** Three briefcases insert alternately; the newest elements of one of them, and all of another, are deleted again. */
async function makeSource(setting: Setting): Promise<Source> {
  const { models, input } = setting;
  const id = await models.create(input.iTwinId, `numbers ${randomUUID()}`);
  const briefcases: BriefcaseDb[] = [];
  for (let n = 0; n < 3; n++) briefcases.push(await models.openBriefcase(input.iTwinId, id));
  const [two, three, four] = briefcases as [BriefcaseDb, BriefcaseDb, BriefcaseDb];
  const ever = new Set<string>();
  const note = (db: BriefcaseDb): void => elementsOf(db).forEach((element) => ever.add(element));
  await models.pushSpheres(two, 2, 1);
  const first = two.changeset.id;
  for (const [db, row] of [
    [three, 2],
    [four, 3],
    [two, 4],
  ] as const) {
    await db.pullChanges();
    await models.pushSpheres(db, 3, row);
    note(db);
  }
  const ofBriefcase = (briefcaseId: number): string[] =>
    [...ever].filter((element) => Id64.getBriefcaseId(element) === briefcaseId);
  const deleted = [
    ...ofBriefcase(two.briefcaseId).slice(-1),
    ...ofBriefcase(three.briefcaseId).slice(-2),
    ...ofBriefcase(four.briefcaseId),
  ];
  await two.locks.acquireLocks({ exclusive: [models.plantOf(two).model, ...deleted] });
  two.elements.deleteElement(deleted);
  two.saveChanges('delete');
  await two.pushChanges({ description: 'delete' });
  const source = {
    id,
    first,
    head: two.changeset.id,
    ever,
    kept: elementsOf(two),
    highestBriefcaseId: four.briefcaseId,
  };
  for (const db of briefcases) db.close();
  assert.equal(source.kept.length, ever.size - deleted.length);
  return source;
}

async function deriveAll({ client, authorization, input }: Setting, source: Source): Promise<Derived[]> {
  const { iTwinId, otherITwinId } = input;
  const { id: iModelId, head } = source;
  const named = (target: string) => ({ iTwinId: target, name: randomUUID() });
  const early: Omit<Derived, 'kind' | 'id' | 'iTwinId'> = {
    asOf: { afterChangeSetId: source.first },
    holds: source.kept,
  };
  const squashed: typeof early = { asOf: { first: true }, holds: source.kept };
  const wanted: [string, string, typeof early, Promise<{ id: string }>][] = [];
  for (const [where, target] of [
    ['', iTwinId],
    [' in another data center', otherITwinId],
  ] as const)
    wanted.push(
      [
        `clone${where}`,
        target,
        early,
        client.iModels.clone({ authorization, iModelId, iModelProperties: named(target) }),
      ],
      [
        `fork with history${where}`,
        target,
        early,
        client.iModels.fork({ authorization, iModelId, iModelProperties: { ...named(target), preserveHistory: true } }),
      ],
      [
        `fork${where}`,
        target,
        squashed,
        client.iModels.fork({ authorization, iModelId, iModelProperties: named(target) }),
      ],
    );
  wanted.push(
    [
      'iModel from a template',
      iTwinId,
      squashed,
      client.iModels.createFromTemplate({
        authorization,
        iModelProperties: { ...named(iTwinId), template: { iModelId, changesetId: head } },
      }),
    ],
    [
      'iModel from the baseline of a template',
      iTwinId,
      { asOf: { first: true }, holds: [] },
      client.iModels.createFromTemplate({
        authorization,
        iModelProperties: { ...named(iTwinId), template: { iModelId } },
      }),
    ],
  );
  const made = await Promise.all(
    wanted.map(async ([kind, target, how, iModel]) => ({ kind, iTwinId: target, ...how, id: (await iModel).id })),
  );
  for (const target of [iTwinId, otherITwinId]) {
    const { id } = await client.iModels.clone({
      authorization,
      iModelId: made[0]?.id ?? assert.fail(),
      iModelProperties: named(target),
    });
    made.push({ kind: 'clone of a clone', iTwinId: target, ...early, id });
  }
  return made;
}

/** An element that is inserted after inherited changesets survives, and its id was never used before. */
async function insertBehind(
  setting: Setting,
  source: Source,
  { kind, id, iTwinId, asOf, holds }: Derived,
): Promise<void> {
  const db = await openAt(iTwinId, id, asOf, false);
  try {
    assert.ok(db.briefcaseId > source.highestBriefcaseId, `${kind}: briefcase ${db.briefcaseId}`);
    const inserted = insertVessel(setting, db, kind);
    assert.ok(!source.ever.has(inserted), `${kind}: ${inserted} was used before`);
    await db.pullChanges();
    await db.pushChanges({ description: kind });
    assert.deepEqual(elementsOf(db).sort(), [...holds, inserted].sort(), kind);
    assert.equal(db.elements.getElementProps(inserted).userLabel, kind);
  } finally {
    db.close();
  }
}

/** A briefcase behind the inherited changesets of a clone is refused a lock; after a pull it gets it. */
async function lockBehind(setting: Setting, source: Source, { id, iTwinId }: Derived): Promise<void> {
  const { models } = setting;
  const db = await openAt(iTwinId, id, { afterChangeSetId: source.first }, true);
  try {
    const lock = (): Promise<void> => db.locks.acquireLocks({ exclusive: models.plantOf(db).model });
    await assert.rejects(lock(), /newer|pull/i);
    await db.pullChanges();
    await lock();
    assert.ok(!source.ever.has(insertVessel(setting, db, 'locked')));
    await db.pushChanges({ description: 'locked' });
  } finally {
    db.close();
  }
}

/** A file that briefcases wrote becomes the baseline of a new iModel, whose briefcase ids continue above them. */
async function uploadBaseline({ models, input }: Setting, source: Source): Promise<void> {
  const db = await models.openBriefcase(input.iTwinId, source.id);
  const file = path.join(input.folder, 'baseline.bim');
  SnapshotDb.createFrom(db, file).close();
  db.close();
  const iModelId = await IModelHost.createNewIModel({
    iTwinId: input.iTwinId,
    iModelName: randomUUID(),
    version0: file,
  });
  const uploaded = await models.openBriefcase(input.iTwinId, iModelId);
  const highest = Math.max(...elementsOf(uploaded).map((element) => Id64.getBriefcaseId(element)));
  assert.ok(highest >= 3);
  assert.equal(uploaded.briefcaseId, highest + 1);
  uploaded.close();
}

export async function numbering(setting: Setting): Promise<void> {
  const source = await makeSource(setting);
  const derived = await deriveAll(setting, source);
  for (const each of derived) await insertBehind(setting, source, each);
  await lockBehind(setting, source, derived[0] ?? assert.fail());
  await uploadBaseline(setting, source);
}
