import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ChangesetFileError, ChangesetIdComputer } from '../apps/server/src/changesetFiles/changesetId.ts';
import { InsertedElements } from '../apps/server/src/changesetFiles/insertedElements.ts';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/workerProcess.ts';
import { sampleChangesets } from '../scripts/sample.ts';
import type * as RealModel from '../scripts/realModel.ts';
import { changesetFile, insertedElements, makeChangeset, realIdOf } from './support/changesetFile.ts';
import { workFolder } from './support/clients.ts';

/** iTwin.js is optional: where it is installed, it is asked for the same ids. */
const iTwinJs: typeof RealModel | undefined = isITwinJsInstalled() ? await import('../scripts/realModel.ts') : undefined;

/** The id of a file that comes in pieces of so many bytes. */
function idOf(parentId: string, bytes: Buffer, pieceBytes: number): string {
  const computer = new ChangesetIdComputer(parentId);
  for (let start = 0; start < bytes.length; start += pieceBytes) computer.update(Buffer.from(bytes.subarray(start, start + pieceBytes)));
  return computer.digest();
}

describe('The id of a changeset', () => {
  const work = workFolder();
  let models: RealModel.RealModels | undefined;
  before(async () => {
    models = await iTwinJs?.RealModels.start(work.path, 'http://127.0.0.1:9', 'no token is needed to compute ids');
  });
  after(async () => {
    await models?.stop();
    work.remove();
  });

  test('is computed from a file in pieces of any size', () => {
    for (const { id, parentId, file } of sampleChangesets()) for (const pieceBytes of [1, 7, 100, 1 << 20]) assert.equal(idOf(parentId, readFileSync(file), pieceBytes), id);
  });

  test('is the one that iTwin.js computes, with and without schema changes, of files of any length', { skip: iTwinJs === undefined ? 'iTwin.js is not installed' : false }, () => {
    const parentId = randomBytes(20).toString('hex');
    const prefix = Buffer.from('{"ContainsSchemaChanges":true,"DDL":"create table x (a)"}\0');
    for (const length of [0, 1, 65_531, 65_532, 65_533, 400_000])
      for (const before of [undefined, prefix]) {
        const bytes = changesetFile(randomBytes(length), before);
        const file = path.join(work.path, 'changeset.cs');
        writeFileSync(file, bytes);
        for (const parent of ['', parentId]) assert.equal(idOf(parent, bytes, 50_000), iTwinJs?.computeChangesetId(parent, file), `${length} bytes`);
      }
  });

  test('changes with every bit of a packed file, or cannot be computed', () => {
    const [first] = sampleChangesets();
    const bytes = readFileSync(first?.file ?? '');
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << at % 8), at);
      let id: string | undefined;
      try {
        id = idOf('', flipped, 64);
      } catch (error) {
        assert.ok(error instanceof ChangesetFileError, `byte ${at}: ${(error as Error).stack}`);
      }
      // The size of the dictionary (byte 22) may be larger than needed.
      if (at !== 22) assert.notEqual(id, first?.id, `byte ${at}`);
    }
    for (let length = 0; length < bytes.length; length++) assert.throws(() => idOf('', bytes.subarray(0, length), 64), ChangesetFileError);
  });

  test('needs no more memory than twice the dictionary, however much a file unpacks to', () => {
    // 64 stored chunks of 64 KiB over a dictionary of 4 KiB.
    const changes = randomBytes(64 * 65_536);
    const bytes = changesetFile(changes);
    bytes.writeUInt8(0, 22);
    assert.equal(idOf('', bytes, 65_536), realIdOf('', changes));
  });

  test('tells the briefcases of inserted elements, however the changes are cut', () => {
    const changes = Buffer.concat([insertedElements(5, 7), insertedElements(5)]);
    for (const pieceBytes of [1, 3, 1000]) {
      const found = new InsertedElements();
      for (let start = 0; start < changes.length; start += pieceBytes) found.push(changes.subarray(start, start + pieceBytes));
      assert.deepEqual([found.readable, [...found.briefcases].sort()], [true, [5, 7]]);
    }
    const nonsense = new InsertedElements();
    nonsense.push(makeChangeset('').bytes);
    assert.equal(nonsense.readable, false);
  });
});
