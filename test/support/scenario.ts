/**
 * Runs iTwin.js against a server, in a separate process because its calls block: started by `runScenario`, one part at a time.
 * A failed assertion ends the process with a message and an exit code.
 */
import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { execFile } from 'node:child_process';
import { BriefcaseDb, BriefcaseManager, type IModelDb } from '@itwin/core-backend';
import { DbResult } from '@itwin/core-bentley';
import { CheckpointState } from '@itwin/imodels-client-management';
import { clientsOf } from '../../scripts/clients.ts';
import { RealModels } from '../../scripts/realModel.ts';
import { branches } from './branchScenario.ts';
import { imports } from './importScenario.ts';
import { numbering } from './numberingScenario.ts';

/** Input of a part, and what it leaves for the next one. */
export interface ScenarioInput {
  part: keyof typeof parts;
  folder: string;
  origin: string;
  token: string;
  iTwinId: string;
  otherITwinId: string;
  /** File in which the parts store their results. */
  notes: string;
}

interface Notes {
  sourceId: string;
  /** All content of the model, by changeset index. */
  contents: Record<number, string>;
  /** The iModel, its iTwin, and the changeset up to which it was cloned. */
  clones: { id: string; iTwinId: string; index: number }[];
}

/** How long one part may take, ms. It takes 20 s at most on a quiet machine, and took 100 s beside five others. */
const timeoutMs = 250_000;

/** Runs one part in a new process; a failure includes its output. */
export function runScenario(input: ScenarioInput): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = execFile(
      process.execPath,
      [fileURLToPath(import.meta.url), JSON.stringify(input)],
      { timeout: timeoutMs },
      (error, stdout, stderr) => {
        if (error === null) resolve();
        else reject(new Error(`${input.part} ended with ${child.exitCode ?? child.signalCode}:\n${stdout}\n${stderr}`));
      },
    );
  });
}

const rows = 4;
const versionAt = 2;

/** All content of a model in comparable form: elements with geometry and aspects, and models. */
function contentsOf(db: IModelDb): string {
  const ids = (ecsql: string): string[] =>
    db.withPreparedStatement(ecsql, (statement) => {
      const found: string[] = [];
      while (statement.step() === DbResult.BE_SQLITE_ROW) found.push(statement.getValue(0).getId());
      return found;
    });
  const elements = ids('select ECInstanceId from bis.Element order by ECInstanceId').map((id) => ({
    element: db.elements.getElementProps({ id, wantGeometry: true }),
    aspects: db.elements.getAspects(id).map((aspect) => aspect.toJSON()),
  }));
  const models = ids('select ECInstanceId from bis.Model order by ECInstanceId').map((id) =>
    db.models.getModelProps(id),
  );
  // The root subject describes the iModel itself, whose project extents belong to the file.
  return JSON.stringify({ elements, models });
}

export interface Setting {
  models: RealModels;
  input: ScenarioInput;
  client: ReturnType<typeof clientsOf>['client'];
  authorization: ReturnType<typeof clientsOf>['authorization'];
}

async function waitForCheckpoint({ client, authorization }: Setting, iModelId: string, index: number): Promise<void> {
  const until = Date.now() + 60_000;
  for (;;) {
    const checkpoint = await client.checkpoints.getSingle({ authorization, iModelId, changesetIndex: index });
    if (checkpoint.state === CheckpointState.Successful) return;
    assert.equal(checkpoint.state, CheckpointState.Scheduled, JSON.stringify(checkpoint));
    assert.equal(checkpoint.directoryAccessInfo, null);
    assert.ok(Date.now() < until, `the checkpoint at ${index} takes too long`);
    await pause(50);
  }
}

async function readAt(setting: Setting, iTwinId: string, iModelId: string, index: number): Promise<string> {
  const { id } = await setting.client.changesets.getSingle({
    authorization: setting.authorization,
    iModelId,
    changesetIndex: index,
  });
  const db = await setting.models.openCheckpoint(iTwinId, iModelId, { id, index });
  try {
    assert.deepEqual([db.iModelId, db.iTwinId, db.changeset.id], [iModelId, iTwinId, id]);
    return contentsOf(db);
  } finally {
    db.close();
  }
}

async function readBriefcase(setting: Setting, iTwinId: string, iModelId: string): Promise<string> {
  const db = await setting.models.openBriefcase(iTwinId, iModelId);
  try {
    assert.deepEqual([db.iModelId, db.iTwinId], [iModelId, iTwinId]);
    return contentsOf(db);
  } finally {
    db.close();
  }
}

const parts = {
  /** Creates a real iModel with inserted and changed elements, two versions, and clones of all kinds, each compared with its source. */
  async clone(setting: Setting): Promise<void> {
    const { models, client, authorization, input } = setting;
    const { iTwinId, otherITwinId } = input;
    const notes: Notes = { sourceId: await models.create(iTwinId, 'Plant'), contents: {}, clones: [] };
    const source = await models.openBriefcase(iTwinId, notes.sourceId);
    for (let row = 1; row <= rows; row++) {
      await models.pushSpheres(source, 5, row);
      notes.contents[row] = contentsOf(source);
    }
    for (const index of [versionAt, rows]) {
      const { id } = await client.changesets.getSingle({
        authorization,
        iModelId: notes.sourceId,
        changesetIndex: index,
      });
      await client.namedVersions.create({
        authorization,
        iModelId: notes.sourceId,
        namedVersionProperties: { name: `at ${index}`, changesetId: id },
      });
      await waitForCheckpoint(setting, notes.sourceId, index);
      assert.equal(await readAt(setting, iTwinId, notes.sourceId, index), notes.contents[index]);
    }

    const wanted = [
      { of: -1, iTwin: iTwinId, index: rows },
      { of: -1, iTwin: otherITwinId, index: rows },
      { of: -1, iTwin: otherITwinId, index: versionAt },
      { of: 1, iTwin: iTwinId, index: versionAt },
    ];
    for (const [n, { of, iTwin, index }] of wanted.entries()) {
      const iModelId = notes.clones[of]?.id ?? notes.sourceId;
      const clone = await client.iModels.clone({
        authorization,
        iModelId,
        iModelProperties: { iTwinId: iTwin, name: `clone ${n}`, changesetIndex: index },
      });
      notes.clones.push({ id: clone.id, iTwinId: iTwin, index });
      assert.equal(
        await readAt(setting, iTwin, clone.id, index),
        notes.contents[index],
        `clone ${n} from its checkpoint`,
      );
      assert.equal(await readBriefcase(setting, iTwin, clone.id), notes.contents[index], `clone ${n} as a briefcase`);
    }
    // One without a checkpoint at its head: it opens from the nearest one and the changesets after it.
    const between = await client.iModels.clone({
      authorization,
      iModelId: notes.sourceId,
      iModelProperties: { iTwinId: otherITwinId, name: 'between', changesetIndex: 3 },
    });
    assert.equal(await readBriefcase(setting, otherITwinId, between.id), notes.contents[3]);

    // Both continue independently.
    const clone = notes.clones[1] as Notes['clones'][number];
    const cloned = await models.openBriefcase(clone.iTwinId, clone.id);
    await models.pushSpheres(cloned, 2, 50);
    await models.pushSpheres(source, 3, 60);
    await source.pullChanges();
    await cloned.pullChanges();
    const [ofSource, ofClone] = [models.labels(source), models.labels(cloned)];
    assert.ok(ofSource.includes('vessel 60.1') && !ofSource.includes('vessel 50.1'));
    assert.ok(ofClone.includes('vessel 50.1') && !ofClone.includes('vessel 60.1'));
    source.close();
    cloned.close();
    await client.iModels.delete({ authorization, iModelId: notes.sourceId });
    writeFileSync(input.notes, JSON.stringify(notes));
  },

  /** The source is deleted and collected: the clones open with an empty cache. */
  async openAgain(setting: Setting): Promise<void> {
    const notes = JSON.parse(readFileSync(setting.input.notes, 'utf8')) as Notes;
    for (const { id, iTwinId, index } of notes.clones) {
      assert.equal(await readAt(setting, iTwinId, id, index), notes.contents[index]);
      if (id !== notes.clones[1]?.id) assert.equal(await readBriefcase(setting, iTwinId, id), notes.contents[index]);
    }
  },

  /** Creates a real iModel with a checkpoint of its last changeset, to be copied into another data center. */
  async source(setting: Setting): Promise<void> {
    const { models, client, authorization, input } = setting;
    const notes: Notes = { sourceId: await models.create(input.iTwinId, 'Plant'), contents: {}, clones: [] };
    const source = await models.openBriefcase(input.iTwinId, notes.sourceId);
    for (let row = 1; row <= 2; row++) await models.pushSpheres(source, 3, row);
    notes.contents[2] = contentsOf(source);
    const changesetId = source.changeset.id;
    source.close();
    await client.namedVersions.create({
      authorization,
      iModelId: notes.sourceId,
      namedVersionProperties: { name: 'last', changesetId },
    });
    await waitForCheckpoint(setting, notes.sourceId, 2);
    writeFileSync(input.notes, JSON.stringify(notes));
  },

  /** Opens the copy as soon as it is initialized: it has all content, and accepts a push. */
  async openCopy(setting: Setting): Promise<void> {
    const { models, client, authorization, input } = setting;
    const notes = JSON.parse(readFileSync(input.notes, 'utf8')) as Notes;
    const [copy] = notes.clones as [Notes['clones'][number]];
    const states = [];
    for (const changesetIndex of [0, 2])
      states.push((await client.checkpoints.getSingle({ authorization, iModelId: copy.id, changesetIndex })).state);
    assert.deepEqual(states, [CheckpointState.Successful, CheckpointState.Scheduled]);
    assert.equal(await readBriefcase(setting, copy.iTwinId, copy.id), notes.contents[2]);
    const db = await models.openBriefcase(copy.iTwinId, copy.id);
    await models.pushSpheres(db, 1, 9);
    db.close();
  },

  /** A new empty iModel opens at once, and accepts a briefcase and a first push; forks and templated iModels open with the content of their source. */
  async derive(setting: Setting): Promise<void> {
    const { models, client, authorization, input } = setting;
    const empty = await client.iModels.createEmpty({
      authorization,
      iModelProperties: { iTwinId: input.iTwinId, name: 'empty' },
    });
    const first = await BriefcaseManager.downloadBriefcase({ iTwinId: input.iTwinId, iModelId: empty.id });
    (await BriefcaseDb.open(first)).close();

    const sourceId = await models.create(input.iTwinId, 'to fork');
    const source = await models.openBriefcase(input.iTwinId, sourceId);
    for (let row = 1; row <= 3; row++) await models.pushSpheres(source, 2, row);
    const contents = contentsOf(source);
    const labels = models.labels(source);
    const fork = await client.iModels.fork({
      authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: input.otherITwinId, name: 'squashed' },
    });
    const kept = await client.iModels.fork({
      authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: input.otherITwinId, name: 'kept', preserveHistory: true },
    });
    const second = source.changeset.id;
    const templated = await client.iModels.createFromTemplate({
      authorization,
      iModelProperties: {
        iTwinId: input.otherITwinId,
        name: 'templated',
        template: { iModelId: sourceId, changesetId: second },
      },
    });
    const plain = await client.iModels.createFromTemplate({
      authorization,
      iModelProperties: { iTwinId: input.otherITwinId, name: 'of the baseline', template: { iModelId: sourceId } },
    });
    for (const { id } of [fork, kept, templated])
      assert.equal(await readBriefcase(setting, input.otherITwinId, id), contents);
    const bare = await models.openBriefcase(input.otherITwinId, plain.id);
    assert.deepEqual(models.labels(bare), []);
    bare.close();
    // A squashed iModel accepts pushes from index 1.
    const squashed = await models.openBriefcase(input.otherITwinId, fork.id);
    assert.deepEqual([squashed.changeset.id, squashed.changeset.index], ['', 0]);
    await models.pushSpheres(squashed, 1, 9);
    assert.deepEqual(models.labels(squashed), [...labels, 'vessel 9.1']);
    squashed.close();

    // An element without a FederationGuid.
    const { model, category } = models.plantOf(source);
    await source.locks.acquireLocks({ exclusive: model });
    models.insertWithoutGuid(source, model, category);
    source.saveChanges();
    await source.pushChanges({ description: 'no guid' });
    source.close();
    for (const preserveHistory of [true, false])
      await assert.rejects(
        client.iModels.fork({
          authorization,
          iModelId: sourceId,
          iModelProperties: { iTwinId: input.otherITwinId, name: `no guids ${preserveHistory}`, preserveHistory },
        }),
        (error: { code?: string }) => error.code === 'MainIModelIsMissingFederationGuids',
      );
  },

  /** Elements inserted after imported or mirrored changesets survive; no id is used twice. */
  imports,

  /** The main iModel and branches of all kinds exchange their changes. */
  branches,

  /** Elements inserted after inherited changesets of a derived iModel survive; no id is used twice. */
  numbering,
};

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const input = JSON.parse(process.argv[2] ?? '{}') as ScenarioInput;
  const models = await RealModels.start(input.folder, input.origin, input.token);
  await parts[input.part]({ models, input, ...clientsOf(input.origin, input.token) });
  await models.stop();
}
