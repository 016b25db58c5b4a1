import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { describe, test } from 'node:test';
import { CheckpointState, type Checkpoint } from '@itwin/imodels-client-management';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { NoSuchObjectError } from '../apps/server/src/storage/blobStore.ts';
import { pushSample, sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import type { WireError } from './support/api.ts';
import { makeIModel, official, pushMore, workFolder } from './support/clients.ts';
import { identityIn } from './support/identity.ts';
import { errorsLogged } from './support/logs.ts';
import { Installation, setups } from './support/server.ts';
import { onEachStore, type Context } from './support/suite.ts';
import { until } from './support/until.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const generate = 'auto' as const;

async function checkpointAt(
  { olivia: { client, authorization } }: Context,
  iModelId: string,
  changesetIndex: number,
): Promise<Checkpoint> {
  return client.checkpoints.getSingle({ authorization, iModelId, changesetIndex });
}

/** The checkpoint of a changeset once it is neither scheduled nor being made. */
async function finishedCheckpoint(context: Context, iModelId: string, index: number): Promise<Checkpoint> {
  return until(`checkpoint ${index}`, async () => {
    const checkpoint = await checkpointAt(context, iModelId, index);
    return checkpoint.state === CheckpointState.Scheduled ? undefined : checkpoint;
  });
}

async function nameVersion(
  { olivia: { client, authorization } }: Context,
  iModelId: string,
  changesetId?: string,
): Promise<string> {
  const version = await client.namedVersions.create({
    authorization,
    iModelId,
    namedVersionProperties: { name: randomUUID(), ...(changesetId !== undefined && { changesetId }) },
  });
  return version.id;
}

async function bytesAt(
  url: string,
  headers: Record<string, string> = {},
): Promise<{ status: number; bytes: Buffer; headers: Headers }> {
  const response = await fetch(url, { headers });
  return { status: response.status, bytes: Buffer.from(await response.arrayBuffer()), headers: response.headers };
}

/** Address of a blob in a checkpoint's container. */
function inContainer(checkpoint: Checkpoint, name: string, token?: string): string {
  const { baseUrl, baseDirectory, azure } = checkpoint.directoryAccessInfo as NonNullable<
    Checkpoint['directoryAccessInfo']
  >;
  return `${baseUrl}/${baseDirectory}/${name}?${token ?? azure?.sasToken}`;
}

/** Block names of the databases in a manifest, parsed as Cloud Backed SQLite does. */
function blocksIn(manifest: Buffer): Map<string, string[]> {
  const databases = new Map<string, string[]>();
  const nameBytes = manifest.readUInt32BE(16);
  for (let n = 0; n < manifest.readUInt32BE(8); n++) {
    const at = 24 + 152 * n;
    const [start, count] = [manifest.readUInt32BE(at + 12), manifest.readUInt32BE(at + 16)];
    const name = manifest.toString('utf8', at + 24, manifest.indexOf(0, at + 24));
    databases.set(
      name,
      Array.from({ length: count }, (_, k) =>
        manifest.toString('hex', start + k * nameBytes, start + (k + 1) * nameBytes).toUpperCase(),
      ),
    );
  }
  return databases;
}

onEachStore('Checkpoints over the API', { checkpoints: { generate, delaySeconds: 1 } }, (context) => {
  const last = sampleChangesets().length;

  test(
    'of a named version are scheduled without access, then successful in both forms, and stay so when requested again',
    { skip },
    async () => {
      const { client, authorization } = context.olivia;
      const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
      const namedVersionId = await nameVersion(context, iModelId, sampleChangesets()[1]?.id);
      const restarted = await client.checkpoints.updateNamedVersionCheckpoint({
        authorization,
        iModelId,
        namedVersionId,
      });
      assert.deepEqual(
        [restarted.state, restarted.directoryAccessInfo, restarted._links.download, restarted.changesetIndex],
        ['scheduled', null, null, 2],
      );
      const made = await finishedCheckpoint(context, iModelId, 2);
      assert.equal(made.state, 'successful');
      assert.deepEqual(
        [made.changesetId, made.dbName, made.directoryAccessInfo?.baseDirectory],
        [sampleChangesets()[1]?.id, `${made.changesetId}.bim`, `imodelblocks-${iModelId}`],
      );
      const expires = Date.parse(new URLSearchParams(made.directoryAccessInfo?.azure?.sasToken).get('se') ?? '');
      assert.ok(expires > Date.now() + 1.5 * 3_600_000, 'a token is good for longer than iTwin.js takes to renew it');
      const again = await client.checkpoints.updateNamedVersionCheckpoint({ authorization, iModelId, namedVersionId });
      assert.deepEqual([again.state, again.directoryAccessInfo === null], ['successful', false]);

      // The nearest one, for every changeset and for briefcases.
      for (const [index, nearest] of [
        [1, 0],
        [2, 2],
        [last, 2],
      ] as const) {
        const changeset = await client.changesets.getSingle({ authorization, iModelId, changesetIndex: index });
        assert.match(
          changeset._links.currentOrPrecedingCheckpoint?.href ?? '',
          new RegExp(`/changesets/${nearest}/checkpoint$`),
        );
      }
      const newest = (await context.api.get(`/imodels/${iModelId}/briefcases/checkpoint`)).body as {
        checkpoint: Checkpoint;
      };
      assert.equal(newest.checkpoint.changesetIndex, 2);
      const unknown = await context.api.put(`/imodels/${iModelId}/namedversions/${randomUUID()}/checkpoint`);
      assert.equal((unknown.body as WireError).error.code, 'NamedVersionNotFound');
    },
  );

  test(
    'reveal only databases of their own iModel, nothing without its token, and nothing after its deletion',
    { skip },
    async () => {
      const { client, authorization } = context.olivia;
      const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
      await nameVersion(context, iModelId, sampleChangesets().at(-1)?.id);
      const own = await finishedCheckpoint(context, iModelId, last);
      const clone = await client.iModels.clone({
        authorization,
        iModelId,
        iModelProperties: { iTwinId: context.iTwinId, name: randomUUID(), changesetIndex: last - 1 },
      });
      const cloned = await checkpointAt(context, clone.id, 0);
      const manifest = blocksIn((await bytesAt(inContainer(own, 'manifest.bcv'))).bytes);
      assert.deepEqual([...manifest.keys()].toSorted(), ['BASELINE.bim', own.dbName].toSorted());
      const ofClone = blocksIn((await bytesAt(inContainer(cloned, 'manifest.bcv'))).bytes);
      assert.deepEqual([...ofClone.keys()], ['BASELINE.bim']);
      // Cut before the last changeset, the clone contains no part of its checkpoint.
      const newest = (await context.api.get(`/imodels/${clone.id}/briefcases/checkpoint`)).body as {
        checkpoint: Checkpoint;
      };
      const end = await client.changesets.getSingle({ authorization, iModelId: clone.id, changesetIndex: last - 1 });
      assert.deepEqual(
        [
          newest.checkpoint.changesetIndex,
          (end._links.currentOrPrecedingCheckpoint?.href ?? '').endsWith('changesets/0/checkpoint'),
        ],
        [0, true],
      );
      const [block] = manifest.get(own.dbName) as [string];
      const read = await bytesAt(inContainer(own, `${block}.bcv`));
      assert.deepEqual(
        [read.status, read.bytes.length, read.headers.get('etag') !== null],
        [200, 4 * 1024 * 1024, true],
      );
      assert.deepEqual(identityIn(read.bytes), { iModelId, iTwinId: context.iTwinId });

      // From another container, with the own token; without a token; with a modified one; unknown names.
      assert.equal((await bytesAt(inContainer(cloned, `${block}.bcv`))).status, 404);
      assert.equal(
        (await bytesAt(inContainer(cloned, 'manifest.bcv', own.directoryAccessInfo?.azure?.sasToken))).status,
        403,
      );
      assert.equal((await bytesAt(inContainer(own, 'manifest.bcv', ''))).status, 403);
      assert.equal(
        (
          await bytesAt(
            inContainer(own, 'manifest.bcv', own.directoryAccessInfo?.azure?.sasToken.replace('se=2', 'se=3')),
          )
        ).status,
        403,
      );
      for (const name of ['nothing', `${'0'.repeat(32)}.bcv`, '..%2f..%2fusers.json'])
        assert.equal((await bytesAt(inContainer(own, name))).status, 404);
      await client.iModels.delete({ authorization, iModelId });
      for (const name of ['manifest.bcv', `${block}.bcv`])
        assert.equal((await bytesAt(inContainer(own, name))).status, 404);
      assert.equal((await bytesAt(own._links.download?.href ?? '')).status, 404);
      assert.equal((await bytesAt(inContainer(cloned, 'manifest.bcv'))).status, 200);
    },
  );

  test(
    'are downloaded as whole files with the ids of their iModel, also by range, and a clone adds no byte to the store',
    { skip },
    async () => {
      const { client, authorization } = context.olivia;
      const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
      await nameVersion(context, iModelId, sampleChangesets().at(-1)?.id);
      await finishedCheckpoint(context, iModelId, last);
      const { db } = context.server.services.database;
      const stored = () =>
        db
          .selectFrom('blob')
          .select((eb) => [eb.fn.countAll<number>().as('count'), eb.fn.sum<number>('size').as('bytes')])
          .executeTakeFirstOrThrow();
      const before = await stored();
      const target = await context.server.iTwin();
      const clone = await client.iModels.clone({ authorization, iModelId, iModelProperties: { iTwinId: target } });
      const checkpoint = await checkpointAt(context, clone.id, last);
      assert.equal(checkpoint.state, 'successful');
      assert.deepEqual(await stored(), before);

      const whole = await bytesAt(checkpoint._links.download?.href ?? '');
      assert.deepEqual(identityIn(whole.bytes), { iModelId: clone.id, iTwinId: target });
      const { checkpoint: wire } = (await context.api.get(`/imodels/${clone.id}/changesets/${last}/checkpoint`))
        .body as {
        checkpoint: { size: number };
      };
      assert.deepEqual([whole.bytes.length, Number(whole.headers.get('content-length'))], [wire.size, wire.size]);
      // Ranges through the middle of both ids, byte by byte around them, and at the ends.
      for (const range of ['0-0', '7555-7570', '7560-8180', '8180-8184', `${wire.size - 5}-${wire.size - 1}`, '-10']) {
        const part = await bytesAt((await checkpointAt(context, clone.id, last))._links.download?.href ?? '', {
          range: `bytes=${range}`,
        });
        const [from = '', to = ''] = range.split('-');
        const expected =
          from === ''
            ? whole.bytes.subarray(wire.size - Number(to))
            : whole.bytes.subarray(Number(from), Number(to) + 1);
        assert.equal(part.status, 206);
        assert.ok(part.bytes.equals(expected), range);
      }
      const folder = workFolder();
      const file = path.join(folder.path, 'whole.bim');
      writeFileSync(file, whole.bytes);
      const sqlite = new DatabaseSync(file);
      assert.deepEqual({ ...sqlite.prepare('pragma integrity_check').get() }, { integrity_check: 'ok' });
      sqlite.close();
      folder.remove();
    },
  );

  test(
    'fail with the reason when a changeset file is damaged or missing in the store, and the log reports it',
    { skip },
    async (t) => {
      const { blobs, database } = context.server.services;
      const logged = errorsLogged(t, context.server);
      const store = blobs.stores.home;
      const read = store.read.bind(store);
      let damage: 'damaged' | 'missing' = 'damaged';
      let key = '';
      t.mock.method(store, 'read', async (...parameters: Parameters<typeof read>) => {
        if (parameters[0] !== key) return read(...parameters);
        if (damage === 'missing') throw new NoSuchObjectError(key);
        const bytes = await buffer(await read(...parameters));
        bytes[3] = (bytes[3] as number) ^ 1;
        return Readable.from([bytes]);
      });
      for (damage of ['damaged', 'missing'] as const) {
        const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
        const row = await database.db
          .selectFrom('changeset as c')
          .innerJoin('blob as b', 'b.id', 'c.blob_id')
          .select('b.key')
          .where('c.id', '=', made.changesets[0]?.id ?? '')
          .executeTakeFirstOrThrow();
        key = row.key ?? '';
        await nameVersion(context, made.id, made.changesets[0]?.id);
        assert.equal((await finishedCheckpoint(context, made.id, 1)).state, 'failed');
        const { checkpoint } = (await context.api.get(`/imodels/${made.id}/changesets/1/checkpoint`)).body as {
          checkpoint: { failureReason: string };
        };
        assert.equal(checkpoint.failureReason, `The file of changeset 1 is ${damage} in its store.`);
      }
      assert.equal(logged.filter(({ msg }) => msg === 'a job failed and will not be retried').length, 2);
    },
  );

  test(
    'of a damaged changeset fail with the reason, affect no other checkpoint, and can be requested again',
    { skip },
    async () => {
      const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
      const namedVersionId = await nameVersion(context, made.id, made.changesets[1]?.id);
      const failed = await finishedCheckpoint(context, made.id, 2);
      assert.deepEqual([failed.state, failed.directoryAccessInfo, failed._links.download], ['failed', null, null]);
      const { checkpoint } = (await context.api.get(`/imodels/${made.id}/changesets/2/checkpoint`)).body as {
        checkpoint: { failureReason: string };
      };
      assert.match(
        checkpoint.failureReason,
        /^Changeset 1 \([0-9a-f]{40}\) cannot be applied: iTwin\.js [0-9.]+ refuses it \(\w+\)\.$/,
      );
      assert.equal((await checkpointAt(context, made.id, 0)).state, 'successful');
      const { client, authorization } = context.olivia;
      assert.equal(
        (await client.checkpoints.updateNamedVersionCheckpoint({ authorization, iModelId: made.id, namedVersionId }))
          .state,
        'scheduled',
      );
      assert.equal((await finishedCheckpoint(context, made.id, 2)).state, 'failed');
      assert.equal(
        (await client.changesets.getSingle({ authorization, iModelId: made.id, changesetIndex: 2 })).index,
        2,
      );
    },
  );
});

onEachStore('Baselines that are checked before they are accepted', { checkpoints: { generate } }, (context) => {
  async function upload(
    bytes: Buffer,
  ): Promise<{ state: string; operation: { state: string; failureReason: string | null }; id: string }> {
    const { body } = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: randomUUID(),
      creationMode: 'fromBaseline',
      baselineFile: { size: bytes.length },
    });
    const { iModel } = body as {
      iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } };
    };
    await context.api.put(iModel._links.upload.href, bytes, {
      'x-ms-blob-type': 'BlockBlob',
      'content-type': 'application/octet-stream',
    });
    assert.equal((await context.api.post(iModel._links.complete.href, {})).status, 200);
    return until('the end of the creation', async () => {
      const { createOperation } = (await context.api.get(`/imodels/${iModel.id}/operations/create`)).body as {
        createOperation: { state: string; failureReason: string | null };
      };
      if (createOperation.state === 'scheduled') return undefined;
      const { baselineFile } = (await context.api.get(`/imodels/${iModel.id}/baselinefile`)).body as {
        baselineFile: { state: string };
      };
      return { state: baselineFile.state, operation: createOperation, id: iModel.id };
    });
  }

  /** The sample's baseline, modified by SQL. */
  function altered(sql: string): Buffer {
    const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-altered-'));
    try {
      const file = path.join(folder, 'x.bim');
      writeFileSync(file, sampleBaseline());
      const db = new DatabaseSync(file);
      db.exec(sql);
      db.close();
      return readFileSync(file);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  test('have a usable checkpoint as soon as they are initialized, and are stored once', { skip }, async () => {
    const { db } = context.server.services.database;
    const whole = await upload(sampleBaseline());
    assert.deepEqual(
      [whole.state, whole.operation.state, whole.operation.failureReason],
      ['initialized', 'successful', null],
    );
    assert.equal((await checkpointAt(context, whole.id, 0)).state, 'successful');
    const { blob_id } = await db
      .selectFrom('imodel as m')
      .innerJoin('baseline as l', 'l.id', 'm.baseline_id')
      .select('l.blob_id')
      .where('m.id', '=', whole.id)
      .executeTakeFirstOrThrow();
    const inside = await db.selectFrom('block').select('id').where('blob_id', '=', blob_id).execute();
    assert.equal(inside.length, 1, 'its blocks lie in the uploaded file');
  });

  test('open in iTwin.js and get a checkpoint when padded after the last page', { skip }, async () => {
    const bytes = sampleBaseline();
    const padded = await upload(
      Buffer.concat([bytes, Buffer.alloc(4 * 1024 * 1024 - (bytes.length % (4 * 1024 * 1024)))]),
    );
    assert.deepEqual([padded.state, padded.operation.failureReason], ['initialized', null]);
    assert.equal((await checkpointAt(context, padded.id, 0)).state, 'successful');
  });

  test('a SQLite file that is no iModel, and a briefcase, are refused with the reason', { skip }, async () => {
    const other = await upload(altered('drop table be_Prop'));
    assert.deepEqual([other.state, other.operation.state], ['initializationFailed', 'failed']);
    assert.equal(
      other.operation.failureReason,
      'The baseline file is not an iModel: it is a SQLite file without the tables of one, or damaged.',
    );
    const briefcase = await upload(
      altered("update be_Local set Val = x'0500000000000000' where Name = 'be_repositoryid'"),
    );
    assert.deepEqual([briefcase.state, briefcase.operation.state], ['fileIsBriefcase', 'failed']);
    assert.equal(briefcase.operation.failureReason, 'The baseline file is a briefcase (number 5).');
  });

  /** The sample's baseline with another version of one of its profiles. */
  const ofProfile = (profile: string, version: number[]): Buffer =>
    altered(
      `update be_Prop set StrData = '${JSON.stringify(Object.fromEntries(['major', 'minor', 'sub1', 'sub2'].map((name, n) => [name, version[n]])))}' where Namespace = '${profile}' and Name = 'SchemaVersion'`,
    );

  for (const [what, profile, version, reason] of [
    [
      'newer',
      'dgn_Db',
      [9, 1, 0, 2],
      /^The format of the file \(BeDb [\d.]+, ECDb [\d.]+, DgnDb 9\.1\.0\.2\) is not known to iTwin\.js [\d.]+, which makes the checkpoints of this server\. A later version is required\.$/,
    ],
    ['newer in its lowest layer', 'be_Db', [9, 0, 0, 0], /\(BeDb 9\.0\.0\.0, .* is not known to iTwin\.js/],
    ['older', 'dgn_Db', [1, 0, 0, 0], /DgnDb 1\.0\.0\.0\) is too old for iTwin\.js/],
  ] as const)
    test(
      `of a profile ${what} than that of the server's iTwin.js are kept, can be cloned and accept pushes; their checkpoint fails with the reason`,
      { skip },
      async () => {
        const bytes = ofProfile(profile, [...version]);
        const kept = await upload(bytes);
        assert.deepEqual(
          [kept.state, kept.operation.state, kept.operation.failureReason],
          ['initialized', 'successful', null],
        );
        const { checkpoint } = (await context.api.get(`/imodels/${kept.id}/changesets/0/checkpoint`)).body as {
          checkpoint: { state: string; failureReason: string; directoryAccessInfo: unknown };
        };
        assert.deepEqual([checkpoint.state, checkpoint.directoryAccessInfo], ['failed', null]);
        assert.match(checkpoint.failureReason, reason);
        const { client, authorization } = context.olivia;
        const downloaded = async (iModelId: string): Promise<Buffer> =>
          (
            await bytesAt(
              (await client.baselineFiles.getSingle({ authorization, iModelId }))._links.download?.href ?? '',
            )
          ).bytes;
        assert.ok((await downloaded(kept.id)).equals(bytes));
        const clone = await client.iModels.clone({
          authorization,
          iModelId: kept.id,
          iModelProperties: { iTwinId: context.iTwinId, name: randomUUID() },
        });
        assert.ok((await downloaded(clone.id)).equals(bytes));
        const made = { id: clone.id, iTwinId: context.iTwinId, name: '', changesets: [], briefcaseId: 0 };
        await pushMore(context.olivia, made, 1);
        await nameVersion(context, clone.id, (made.changesets as { id: string }[])[0]?.id);
        const later = await finishedCheckpoint(context, clone.id, 1);
        assert.equal(later.state, 'failed');
      },
    );

  test(
    'count their briefcases above those that created elements in them, whether or not iTwin.js can open them',
    { skip },
    async () => {
      const byBriefcase7 = `insert into bis_ElementUniqueAspect (Id, ECClassId, ElementId, ElementRelECClassId) values (${7 * 2 ** 40 + 1}, 1, 1, 1)`;
      const version = JSON.stringify({ major: 9, minor: 1, sub1: 0, sub2: 2 });
      for (const more of [
        '',
        `; update be_Prop set StrData = '${version}' where Namespace = 'dgn_Db' and Name = 'SchemaVersion'`,
      ]) {
        const { id: iModelId, state } = await upload(altered(byBriefcase7 + more));
        assert.equal(state, 'initialized');
        const { client, authorization } = context.olivia;
        assert.equal((await client.briefcases.acquire({ authorization, iModelId })).briefcaseId, 8);
      }
    },
  );

  test('that could not be read are retried once when a newer iTwin.js is installed', { skip }, async () => {
    const kept = await upload(ofProfile('dgn_Db', [9, 1, 0, 2]));
    const { checkpoints } = context.server.services;
    const retry = (version: string) => checkpoints.retryFailed(version, new AbortController().signal);
    const stateOf = async () => (await checkpointAt(context, kept.id, 0)).state;
    assert.deepEqual([await stateOf(), await retry('5.0.99')], ['failed', 0]);
    assert.ok((await retry('5.100.0')) >= 1);
    assert.equal((await finishedCheckpoint(context, kept.id, 0)).state, 'failed');
    assert.equal(await retry('5.100.0'), 0);
    assert.equal(
      ((await context.api.get(`/imodels/${kept.id}`)).body as { iModel: { state: string } }).iModel.state,
      'initialized',
    );
  });

  test(
    'that cannot be read can be forked with history, and are refused with the reason without it',
    { skip },
    async () => {
      const { id } = await upload(ofProfile('dgn_Db', [9, 1, 0, 2]));
      const fork = async (preserveHistory: boolean) => {
        const { headers } = await context.api.post(`/imodels/${id}/fork`, {
          iTwinId: context.iTwinId,
          name: randomUUID(),
          preserveHistory,
        });
        const forkId = (headers.get('location') ?? '').slice(-36);
        return until('the fork', async () => {
          const { createOperation } = (await context.api.get(`/imodels/${forkId}/operations/create`)).body as {
            createOperation: { state: string; failureReason: string | null };
          };
          return createOperation.state === 'scheduled' ? undefined : createOperation;
        });
      };
      await pushMore(context.olivia, { id, iTwinId: context.iTwinId, name: '', changesets: [], briefcaseId: 0 }, 1);
      assert.deepEqual([(await fork(true)).state, (await fork(true)).failureReason], ['successful', null]);
      const squashed = await fork(false);
      assert.equal(squashed.state, 'failed');
      assert.match(
        squashed.failureReason ?? '',
        /is not known to iTwin\.js [\d.]+, which makes the checkpoints of this server/,
      );
    },
  );

  test('without an iTwin id get the id of their iTwin', { skip }, async () => {
    const made = await upload(altered("delete from be_Prop where Name = 'ProjectGuid'; vacuum"));
    assert.equal(made.state, 'initialized', made.operation.failureReason ?? '');
    const checkpoint = await checkpointAt(context, made.id, 0);
    assert.deepEqual(identityIn((await bytesAt(checkpoint._links.download?.href ?? '')).bytes), {
      iModelId: made.id,
      iTwinId: context.iTwinId,
    });
  });
});

onEachStore(
  'An iModel that waits for a server with iTwin.js',
  { checkpoints: { generate: 'elsewhere' } },
  (context) => {
    const as = () => ({ authorization: context.olivia.authorization });

    test('hides its source, accepts no changes, and keeps its data when the source is deleted', async () => {
      const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
      const accepted = await context.api.post(`/imodels/${source.id}/fork`, {
        iTwinId: context.iTwinId,
        name: randomUUID(),
      });
      assert.equal(accepted.status, 202);
      const id = /[0-9a-f-]{36}$/.exec(accepted.headers.get('location') ?? '')?.[0] ?? '';
      const { createOperation } = (await context.api.get(`/imodels/${id}/operations/create`)).body as {
        createOperation: { state: string; forkedFrom: { iModelId: string } };
      };
      assert.deepEqual([createOperation.state, createOperation.forkedFrom.iModelId], ['scheduled', source.id]);
      const fork = await context.olivia.client.iModels.getSingle({ ...as(), iModelId: id });
      assert.equal(fork.state, 'notInitialized');
      for (const rest of ['', '/1'])
        assert.equal((await context.api.get(`/imodels/${id}/changesets${rest}`)).status, 409);
      for (const [url, body] of [
        [`/imodels/${id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() }],
        [`/imodels/${id}/briefcases`, {}],
        [`/imodels/${id}/namedversions`, { name: 'too early' }],
      ] as const)
        assert.equal(((await context.api.post(url, body)).body as WireError).error.code, 'iModelNotInitialized', url);

      await context.olivia.client.iModels.delete({ ...as(), iModelId: source.id });
      await context.server.services.collector.runOnce();
      const { db } = context.server.services.database;
      const held = await db
        .selectFrom('imodel as m')
        .innerJoin('history as h', 'h.id', 'm.history_id')
        .innerJoin('changeset as c', 'c.segment_id', 'h.segment_id')
        .select('c.id')
        .where('m.id', '=', id)
        .orderBy('c.index')
        .execute();
      assert.deepEqual(
        held.map((changeset) => changeset.id),
        source.changesets.map((changeset) => changeset.id),
      );
      // Deleting the waiting iModel releases its references.
      await context.olivia.client.iModels.delete({ ...as(), iModelId: id });
      await context.server.services.collector.runOnce();
      assert.deepEqual(await db.selectFrom('imodel').select('id').where('id', 'in', [id, source.id]).execute(), []);
    });
  },
);

onEachStore('Automatic checkpoints', { checkpoints: { generate, delaySeconds: 0, everyChangesets: 3 } }, (context) => {
  test('are made of the newest changeset from time to time', { skip }, async () => {
    const iModelId = await pushSample(context.olivia, context.iTwinId, randomUUID());
    const { length } = sampleChangesets();
    for (let index = 3; index <= length; index += 3)
      assert.equal((await finishedCheckpoint(context, iModelId, index)).state, 'successful');
    assert.equal((await checkpointAt(context, iModelId, 1)).state, 'notGenerated');
  });
});

for (const setup of setups)
  describe(`Missing checkpoints on ${setup.engine} and ${setup.store}`, () => {
    test('are made when a server with iTwin.js starts', { skip }, async () => {
      const installation = await Installation.create(setup);
      try {
        const without = await installation.start();
        const olivia = await official(without);
        const iTwinId = await without.iTwin();
        const iModelId = await pushSample(olivia, iTwinId, randomUUID());
        await nameVersion({ olivia } as Context, iModelId, sampleChangesets()[1]?.id);
        assert.equal((await checkpointAt({ olivia } as Context, iModelId, 2)).state, 'notGenerated');
        await without.close();
        const able = await installation.start({ checkpoints: { generate } });
        const context = { olivia: await official(able) } as Context;
        for (const index of [0, 2])
          await until(`checkpoint ${index}`, async () =>
            (await checkpointAt(context, iModelId, index)).state === CheckpointState.Successful ? true : undefined,
          );
        await able.close();
      } finally {
        installation.remove();
      }
    });
  });
