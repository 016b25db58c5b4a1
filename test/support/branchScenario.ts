/**
 * Branches of an iModel, with the iTwin.js calls of its official transformer: provenance in the branch, changes of the main
 * iModel forward into it, and its own changes back; a part of `scenario.ts`. The registry does not offer the transformer's own
 * package for this version of iTwin.js.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { appendFileSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import {
  BriefcaseManager,
  ElementOwnsExternalSourceAspects,
  ExternalSource,
  ExternalSourceAspect,
  IModelElementCloneContext,
  IModelHost,
  RepositoryLink,
  SnapshotDb,
  SqliteChangesetReader,
  type BriefcaseDb,
} from '@itwin/core-backend';
import { DbResult, Id64, type Id64String } from '@itwin/core-bentley';
import {
  Code,
  IModel,
  type ElementProps,
  type ExternalSourceAspectProps,
  type ExternalSourceProps,
  type PhysicalElementProps,
  type RepositoryLinkProps,
} from '@itwin/core-common';
import { elementsOf } from './importScenario.ts';
import type { Setting } from './scenario.ts';

/** Size to which iTwin.js pads files that it downloads from a checkpoint. */
const paddedTo = 4 * 1024 * 1024;

/** A branch, and the mapping between its elements and those of the main iModel. */
interface Branch {
  kind: string;
  id: string;
  iTwinId: string;
  db: BriefcaseDb;
  /** The element that contains the provenance of the main iModel. */
  scope: Id64String;
  /** Changesets up to which changes were transferred forward into the branch, and back from it. */
  mainIndex: number;
  branchIndex: number;
}

/** Physical elements that changesets inserted, updated and deleted. */
interface ChangedElements {
  inserted: Set<Id64String>;
  updated: Set<Id64String>;
  deleted: Set<Id64String>;
}

/** Creates a branch of each kind: clone, both forks, and a padded copy of a file, as the transformer's own tests do. */
async function branchesOf(
  setting: Setting,
  main: BriefcaseDb,
): Promise<{ kind: string; id: string; iTwinId: string }[]> {
  const { client, authorization, input } = setting;
  const { otherITwinId: iTwinId } = input;
  const { iModelId } = main;
  const named = () => ({ iTwinId, name: randomUUID() });
  const clone = await client.iModels.clone({ authorization, iModelId, iModelProperties: named() });
  const fork = await client.iModels.fork({
    authorization,
    iModelId,
    iModelProperties: { ...named(), preserveHistory: true },
  });
  const squashed = await client.iModels.fork({ authorization, iModelId, iModelProperties: named() });
  const file = path.join(input.folder, 'version0.bim');
  SnapshotDb.createFrom(main, file).close();
  const excess = statSync(file).size % paddedTo;
  appendFileSync(file, Buffer.alloc(paddedTo - excess));
  const copied = await IModelHost.createNewIModel({ iTwinId, iModelName: randomUUID(), version0: file });
  rmSync(file);
  return [
    { kind: 'clone', id: clone.id, iTwinId },
    { kind: 'fork with history', id: fork.id, iTwinId },
    { kind: 'fork', id: squashed.id, iTwinId },
    { kind: 'copied file', id: copied, iTwinId },
  ];
}

function provenanceProps(
  scope: Id64String,
  element: Id64String,
  identifier: Id64String,
  version: string,
): ExternalSourceAspectProps {
  return {
    classFullName: ExternalSourceAspect.classFullName,
    element: new ElementOwnsExternalSourceAspects(element),
    scope: { id: scope },
    identifier,
    kind: ExternalSourceAspect.Kind.Element,
    version,
  };
}

/** Maps each element of the main iModel to the branch's element, by the provenance in the branch. */
function provenanceOf(db: BriefcaseDb, scope: Id64String): Map<Id64String, Id64String> {
  return db.withPreparedStatement(
    "select Identifier, Element.Id from bis.ExternalSourceAspect where Scope.Id = ? and Kind = 'Element'",
    (statement) => {
      statement.bindId(1, scope);
      const found = new Map<Id64String, Id64String>();
      while (statement.step() === DbResult.BE_SQLITE_ROW)
        found.set(statement.getValue(0).getString(), statement.getValue(1).getId());
      return found;
    },
  );
}

/** Writes into the branch which iModel it branches from, and the source element of each of its elements. */
async function beginBranch(
  { models, input }: Setting,
  main: BriefcaseDb,
  { kind, id, iTwinId }: { kind: string; id: string; iTwinId: string },
): Promise<Branch> {
  const db = await models.openBriefcase(iTwinId, id);
  const elements = elementsOf(main);
  assert.deepEqual(elementsOf(db), elements, kind);
  await db.locks.acquireLocks({ shared: IModel.repositoryModelId, exclusive: [models.plantOf(db).model, ...elements] });
  const link: RepositoryLinkProps = {
    classFullName: RepositoryLink.classFullName,
    code: RepositoryLink.createCode(db, IModel.repositoryModelId, main.iModelId),
    model: IModel.repositoryModelId,
    repositoryGuid: main.iModelId,
    url: `${input.origin}/imodels/${main.iModelId}`,
    format: 'iModel',
    federationGuid: main.iModelId,
  };
  const scope = db.elements.insertElement(link);
  const source: ExternalSourceProps = {
    classFullName: ExternalSource.classFullName,
    model: IModel.repositoryModelId,
    code: Code.createEmpty(),
    repository: { id: scope, relClassName: 'BisCore:ExternalSourceIsInRepository' },
    connectorName: 'branch',
    connectorVersion: '1',
  };
  db.elements.insertElement(source);
  for (const element of elements) db.elements.insertAspect(provenanceProps(scope, element, element, main.changeset.id));
  db.saveChanges('provenance');
  await db.pushChanges({ description: 'begin the branch' });
  return { kind, id, iTwinId, db, scope, mainIndex: main.changeset.index ?? 0, branchIndex: db.changeset.index ?? 0 };
}

/** Reads from their files what the changesets after an index changed. */
async function changesAfter(db: BriefcaseDb, index: number, folder: string): Promise<ChangedElements> {
  const changed: ChangedElements = { inserted: new Set(), updated: new Set(), deleted: new Set() };
  const last = db.changeset.index ?? 0;
  if (last === index) return changed;
  const files = await BriefcaseManager.downloadChangesets({
    iModelId: db.iModelId,
    targetDir: path.join(folder, db.iModelId),
    range: { first: index + 1, end: last },
  });
  assert.equal(files.length, last - index);
  for (const { pathname } of files) {
    const reader = SqliteChangesetReader.openFile({ fileName: pathname, db, disableSchemaCheck: true });
    try {
      while (reader.step()) {
        // The geometry of physical elements is in a separate table.
        if (reader.tableName !== 'bis_Element' && reader.tableName !== 'bis_GeometricElement3d') continue;
        const id = reader.getChangeValueId(0, reader.op === 'Inserted' ? 'New' : 'Old') ?? Id64.invalid;
        if (reader.op === 'Inserted') changed.inserted.add(id);
        else if (reader.op === 'Deleted') changed.deleted.add(id);
        else changed.updated.add(id);
      }
    } finally {
      reader.close();
    }
  }
  const physical = new Set(elementsOf(db));
  for (const set of [changed.inserted, changed.updated]) for (const id of set) if (!physical.has(id)) set.delete(id);
  for (const id of changed.inserted) changed.updated.delete(id);
  return changed;
}

/**
 * Transfers changes of one iModel into the other.
 * @param targetOf the element there for an element here
 * @param onInserted records the source of an element
 */
async function transform(
  { models }: Setting,
  from: BriefcaseDb,
  to: BriefcaseDb,
  changes: ChangedElements,
  targetOf: ReadonlyMap<Id64String, Id64String>,
  onInserted: (source: Id64String, target: Id64String) => void,
): Promise<void> {
  const { model } = models.plantOf(to);
  const updated = [...changes.updated].flatMap((id) => targetOf.get(id) ?? []);
  const deleted = [...changes.deleted].flatMap((id) => targetOf.get(id) ?? []);
  await to.locks.acquireLocks({ exclusive: [model, ...updated, ...deleted] });
  const context = await IModelElementCloneContext.create(from, to);
  try {
    for (const [source, target] of targetOf) context.remapElement(source, target);
    const [here, there] = [models.plantOf(from), models.plantOf(to)];
    context.remapElement(here.model, there.model);
    context.remapElement(here.category, there.category);
    const cloned = (id: Id64String): ElementProps =>
      context.cloneElement(from.elements.getElement({ id, wantGeometry: true }));
    for (const id of changes.inserted) {
      const target = to.elements.insertElement(cloned(id));
      context.remapElement(id, target);
      onInserted(id, target);
    }
    for (const id of changes.updated) {
      const target = targetOf.get(id);
      if (target !== undefined) to.elements.updateElement({ ...cloned(id), id: target });
    }
    if (deleted.length > 0) to.elements.deleteElement(deleted);
  } finally {
    context[Symbol.dispose]();
  }
  to.saveChanges();
}

async function forward(setting: Setting, main: BriefcaseDb, branch: Branch): Promise<void> {
  const { db, scope } = branch;
  await db.pullChanges();
  const changes = await changesAfter(main, branch.mainIndex, setting.input.folder);
  await transform(setting, main, db, changes, provenanceOf(db, scope), (source, target) => {
    db.elements.insertAspect(provenanceProps(scope, target, source, main.changeset.id));
  });
  db.saveChanges();
  await db.pushChanges({ description: 'from the main iModel' });
  branch.mainIndex = main.changeset.index ?? 0;
  // Changes that came from the main iModel are not changes of the branch.
  branch.branchIndex = db.changeset.index ?? 0;
}

async function backward(setting: Setting, main: BriefcaseDb, branch: Branch): Promise<void> {
  const { db, scope } = branch;
  await main.pullChanges();
  const changes = await changesAfter(db, branch.branchIndex, setting.input.folder);
  const mainOf = new Map([...provenanceOf(db, scope)].map(([source, own]) => [own, source]));
  const inserted: [Id64String, Id64String][] = [];
  await transform(setting, db, main, changes, mainOf, (own, target) => void inserted.push([target, own]));
  await main.pushChanges({ description: `from the ${branch.kind}` });
  await db.locks.acquireLocks({ exclusive: inserted.map(([, own]) => own) });
  for (const [source, own] of inserted)
    db.elements.insertAspect(provenanceProps(scope, own, source, main.changeset.id));
  db.saveChanges();
  await db.pushChanges({ description: 'provenance of what went back' });
  branch.mainIndex = main.changeset.index ?? 0;
  branch.branchIndex = db.changeset.index ?? 0;
}

/** Labels and placements of all physical elements, which must be equal on both sides. */
function placesOf(db: BriefcaseDb): string[] {
  return elementsOf(db)
    .map((id) => db.elements.getElementProps<PhysicalElementProps>({ id, wantGeometry: true }))
    .map(({ userLabel, placement, geom }) => JSON.stringify([userLabel, placement?.origin, geom]))
    .sort();
}

async function move({ models }: Setting, db: BriefcaseDb, id: Id64String, z: number): Promise<void> {
  await db.locks.acquireLocks({ exclusive: [models.plantOf(db).model, id] });
  const props = db.elements.getElementProps<PhysicalElementProps>({ id, wantGeometry: true });
  db.elements.updateElement<PhysicalElementProps>({ ...props, placement: { origin: { x: 0, y: 0, z }, angles: {} } });
  db.saveChanges();
}

/** Main iModel and branch exchange their changes, in both directions and twice, for each kind of branch. */
export async function branches(setting: Setting): Promise<void> {
  const { models, input } = setting;
  const mainId = await models.create(input.iTwinId, `main ${randomUUID()}`);
  const main = await models.openBriefcase(input.iTwinId, mainId);
  for (let row = 1; row <= 2; row++) await models.pushSpheres(main, 2, row);
  const made = [];
  for (const branch of await branchesOf(setting, main)) made.push(await beginBranch(setting, main, branch));

  // In the main iModel one element is inserted, one moved and one deleted.
  await models.pushSpheres(main, 1, 3);
  const [moved, gone] = elementsOf(main) as [Id64String, Id64String];
  await move(setting, main, moved, 7);
  await main.locks.acquireLocks({ exclusive: gone });
  main.elements.deleteElement(gone);
  main.saveChanges();
  await main.pushChanges({ description: 'changes of the main iModel' });

  for (const [n, branch] of made.entries()) {
    const { kind, db } = branch;
    const before = placesOf(db);
    await forward(setting, main, branch);
    assert.notDeepEqual(placesOf(db), before, kind);
    assert.deepEqual(placesOf(db), placesOf(main), `${kind}: forward`);
    assert.equal(
      provenanceOf(db, branch.scope).size,
      elementsOf(db).length,
      `${kind}: each element tells where it came from`,
    );

    // The branch does the same under its own locks: another briefcase of the branch has to wait, one of the main iModel does not.
    const other = await models.openBriefcase(branch.iTwinId, branch.id);
    const own = elementsOf(db)[0] as Id64String;
    await db.locks.acquireLocks({ exclusive: own });
    await assert.rejects(other.locks.acquireLocks({ exclusive: own }), /lock/i, kind);
    await main.locks.acquireLocks({ exclusive: elementsOf(main)[0] as Id64String });
    await main.locks.releaseAllLocks();
    await move(setting, db, own, 20 + n);
    await models.pushSpheres(db, 1, 40 + n);
    // Released with the push, at a changeset that the other briefcase has not pulled yet.
    await assert.rejects(other.locks.acquireLocks({ exclusive: own }), /pull|newer/i, kind);
    await other.pullChanges();
    await other.locks.acquireLocks({ exclusive: own });
    await other.locks.releaseAllLocks();
    other.close();

    await backward(setting, main, branch);
    assert.deepEqual(placesOf(main), placesOf(db), `${kind}: back`);
  }
  // Changes that the other branches sent back are transferred forward, also into branches that had sent theirs.
  for (const branch of made) {
    await forward(setting, main, branch);
    assert.deepEqual(placesOf(branch.db), placesOf(main), `${branch.kind}: forward again`);
    branch.db.close();
    const fresh = await models.openBriefcase(branch.iTwinId, branch.id);
    assert.deepEqual(placesOf(fresh), placesOf(main), `${branch.kind}: opened anew`);
    fresh.close();
  }
  main.close();
}
