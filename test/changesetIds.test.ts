import assert from 'node:assert/strict';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { after, before, describe, test } from 'node:test';
import { setTimeout as nextTurn } from 'node:timers/promises';
import { ChangesetFileError, ChangesetIdComputer } from '../apps/server/src/changesets/changesetId.ts';
import { InsertedElements } from '../apps/server/src/changesets/insertedElements.ts';
import { ChangesetVerifier } from '../apps/server/src/changesets/verifier.ts';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { sampleChangesets } from '../scripts/sample.ts';
import type * as RealModel from '../scripts/realModel.ts';
import { changesetFile, insertedElements, makeChangeset, pushFile, realIdOf } from './support/changesetFile.ts';
import type { WireError } from './support/api.ts';
import { all, changesetIdOf, makeIModel, official, workFolder } from './support/clients.ts';
import { bootServer, endServer } from './support/server.ts';
import { onEachStore } from './support/suite.ts';

/** iTwin.js is optional: where it is installed, it computes the same ids for comparison. */
const iTwinJs: typeof RealModel | undefined = isITwinJsInstalled()
  ? await import('../scripts/realModel.ts')
  : undefined;

/** The id of a file that arrives in chunks of this size. */
function idOf(parentId: string, bytes: Buffer, pieceBytes: number): string {
  const computer = new ChangesetIdComputer(parentId);
  for (let start = 0; start < bytes.length; start += pieceBytes)
    computer.update(Buffer.from(bytes.subarray(start, start + pieceBytes)));
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

  test('is computed from a file in chunks of any size', () => {
    for (const { id, parentId, file } of sampleChangesets())
      for (const pieceBytes of [1, 7, 100, 1 << 20]) assert.equal(idOf(parentId, readFileSync(file), pieceBytes), id);
  });

  test(
    'is the one that iTwin.js computes, with and without schema changes, for files of any length',
    { skip: iTwinJs === undefined ? 'iTwin.js is not installed' : false },
    () => {
      const parentId = randomBytes(20).toString('hex');
      const prefix = Buffer.from('{"ContainsSchemaChanges":true,"DDL":"create table x (a)"}\0');
      for (const length of [0, 1, 65_531, 65_532, 65_533, 400_000])
        for (const before of [undefined, prefix]) {
          const bytes = changesetFile(randomBytes(length), before);
          const file = path.join(work.path, 'changeset.cs');
          writeFileSync(file, bytes);
          for (const parent of ['', parentId])
            assert.equal(idOf(parent, bytes, 50_000), iTwinJs?.computeChangesetId(parent, file), `${length} bytes`);
        }
    },
  );

  test('changes with every bit of a compressed file, or cannot be computed', () => {
    const [first] = sampleChangesets();
    const bytes = readFileSync(first?.file ?? '');
    for (let at = 0; at < bytes.length; at++) {
      const flipped = Buffer.from(bytes);
      flipped.writeUInt8(flipped.readUInt8(at) ^ (1 << (at % 8)), at);
      let id: string | undefined;
      try {
        id = idOf('', flipped, 64);
      } catch (error) {
        assert.ok(error instanceof ChangesetFileError, `byte ${at}: ${(error as Error).stack}`);
      }
      // The size of the dictionary (byte 22) may be larger than needed.
      if (at !== 22) assert.notEqual(id, first?.id, `byte ${at}`);
    }
    for (let length = 0; length < bytes.length; length++)
      assert.throws(() => idOf('', bytes.subarray(0, length), 64), ChangesetFileError);
  });

  test('needs no more memory than twice the dictionary, however large the decompressed file is', () => {
    // 64 stored chunks of 64 KiB over a dictionary of 4 KiB.
    const changes = randomBytes(64 * 65_536);
    const bytes = changesetFile(changes);
    bytes.writeUInt8(0, 22);
    assert.equal(idOf('', bytes, 65_536), realIdOf('', changes));
  });

  test('is computed together with the briefcases of inserted elements, however the changes are chunked', () => {
    const changes = Buffer.concat([insertedElements(5, 7), insertedElements(5)]);
    for (const pieceBytes of [1, 3, 1000]) {
      const found = new InsertedElements();
      for (let start = 0; start < changes.length; start += pieceBytes)
        found.push(changes.subarray(start, start + pieceBytes));
      assert.deepEqual([found.readable, [...found.briefcases].sort()], [true, [5, 7]]);
    }
    const nonsense = new InsertedElements();
    nonsense.push(makeChangeset('').bytes);
    assert.equal(nonsense.readable, false);
  });
});

const random = (parentId: string) => {
  const bytes = randomBytes(200);
  return { id: changesetIdOf(parentId, bytes), parentId, bytes };
};
function flipped({ id, parentId, bytes }: ReturnType<typeof makeChangeset>, at: number) {
  const other = Buffer.from(bytes);
  other.writeUInt8(other.readUInt8(at) ^ 1, at);
  return { id, parentId, bytes: other };
}

onEachStore('Verification of pushes', {}, (context) => {
  test('refuses bytes that do not give the id, blocks no other push, and accepts the right bytes afterwards', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const acquire = async () =>
      (
        await context.olivia.client.briefcases.acquire({
          authorization: context.olivia.authorization,
          iModelId: made.id,
        })
      ).briefcaseId;
    const [own, other] = [await acquire(), await acquire()];
    const right = makeChangeset('', randomBytes(200_000));
    const wrong: [ReturnType<typeof makeChangeset>, RegExp][] = [
      [flipped(right, 100), /gives the id [0-9a-f]{40}/],
      // The shorter chunk is followed by a random byte, of which one value in 256 ends the file properly.
      [flipped(right, 24), /is damaged|ends early|gives the id/],
      [{ ...right, bytes: right.bytes.subarray(0, 150_000) }, /ends early/],
      [{ ...makeChangeset('1'.repeat(40)), parentId: '' }, /gives the id/],
    ];
    for (const [changeset, message] of wrong) {
      const { status, body } = await pushFile(context.api, made.id, own, changeset);
      const { error } = body as WireError;
      assert.deepEqual([status, error.code, message.test(error.message)], [409, 'DataConflict', true], error.message);
      assert.deepEqual(
        await all(
          context.olivia.client.changesets.getMinimalList({
            authorization: context.olivia.authorization,
            iModelId: made.id,
          }),
        ),
        [],
      );
    }
    // The push lease is free, for another briefcase too.
    assert.equal((await pushFile(context.api, made.id, other, right)).status, 200);
    assert.equal((await pushFile(context.api, made.id, own, flipped(makeChangeset(right.id), 60))).status, 409);
    const next = makeChangeset(right.id);
    assert.equal((await pushFile(context.api, made.id, own, next)).status, 200);
    // A file of another format is stored unchanged.
    assert.equal((await pushFile(context.api, made.id, own, random(next.id))).status, 200);
    const { db } = context.server.services.database;
    const refused = await db
      .selectFrom('audit')
      .select('detail')
      .where('imodel_id', '=', made.id)
      .where('action', '=', 'changeset.refuse')
      .execute();
    assert.equal(refused.length, wrong.length + 1);
  });

  test('accepts a file that arrives in many chunks when its bytes give the id', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { briefcaseId } = await context.olivia.client.briefcases.acquire({
      authorization: context.olivia.authorization,
      iModelId: made.id,
    });
    assert.equal(
      (await pushFile(context.api, made.id, briefcaseId, makeChangeset('', randomBytes(8_000_000)))).status,
      200,
    );
  });
});

test('refuses files of any other format in full mode, and checks nothing when switched off', async () => {
  for (const [verifyChangesets, expected] of [
    ['all', [409, 409, 200]],
    ['recognized', [200, 409, 200]],
    ['off', [200, 200, 200]],
  ] as const) {
    const server = await bootServer('sqlite', { verifyChangesets });
    try {
      const [olivia, api, iTwinId] = [await official(server), await server.as('olivia'), await server.iTwin()];
      const statuses: number[] = [];
      for (const changeset of [random(''), flipped(makeChangeset(''), 60), makeChangeset('')]) {
        const { id } = await makeIModel(olivia, iTwinId);
        const { briefcaseId } = await olivia.client.briefcases.acquire({
          authorization: olivia.authorization,
          iModelId: id,
        });
        statuses.push((await pushFile(api, id, briefcaseId, changeset)).status);
      }
      assert.deepEqual(statuses, expected, verifyChangesets);
    } finally {
      await endServer(server);
    }
  }
});

test('reads a small file once, when it arrives, unless other bytes are stored or its push has another parent', async () => {
  const verifier = new ChangesetVerifier({ verifyChangesets: 'all' }, { warn: () => undefined });
  const { id, parentId, bytes } = makeChangeset('', randomBytes(100_000));
  const sha256 = createHash('sha256').update(bytes).digest('hex');
  let reads = 0;
  const open = async (): Promise<Readable> => {
    reads++;
    return Readable.from([bytes]);
  };
  const arrive = (blobId: string, of: string): void => {
    const take = verifier.onArrival(blobId, of, bytes.length);
    for (let start = 0; start < bytes.length; start += 60_000) take?.(bytes.subarray(start, start + 60_000));
  };
  try {
    arrive('a', parentId);
    assert.equal(await verifier.faultOf({ id, parentId }, open, { id: 'a', sha256 }), undefined);
    assert.equal(reads, 0);
    arrive('b', parentId);
    assert.match(
      (await verifier.faultOf({ id: '0'.repeat(40), parentId }, open, { id: 'b', sha256 })) ?? '',
      new RegExp(`gives the id ${id}`),
    );
    assert.equal(reads, 0);
    const others: [string, { id: string; sha256: string }][] = [
      [parentId, { id: 'c', sha256: '0'.repeat(64) }],
      ['1'.repeat(40), { id: 'd', sha256 }],
      [parentId, { id: 'never arrived', sha256 }],
    ];
    for (const [of, stored] of others) {
      arrive(stored.id === 'never arrived' ? 'e' : stored.id, of);
      const before: number = reads;
      assert.equal(await verifier.faultOf({ id, parentId }, open, stored), undefined);
      assert.equal(reads - before, 1);
    }
  } finally {
    await verifier.close();
  }
});

test('accepts and logs a file unverified when it takes too long to decompress', async () => {
  const warnings: string[] = [];
  const verifier = new ChangesetVerifier(
    { verifyChangesets: 'all' },
    { warn: (_details, message) => void warnings.push(message) },
    { ms: 0 },
  );
  const { parentId, bytes } = makeChangeset('', randomBytes(300_000));
  async function* slowly(): AsyncGenerator<Buffer> {
    for (let start = 0; start < bytes.length; start += 65_536) {
      await nextTurn();
      yield bytes.subarray(start, start + 65_536);
    }
  }
  assert.equal(
    await verifier.faultOf({ id: '0'.repeat(40), parentId }, async () => Readable.from(slowly())),
    undefined,
  );
  assert.deepEqual(warnings, ['the id of a pushed changeset was not verified']);
  await verifier.close();
});
