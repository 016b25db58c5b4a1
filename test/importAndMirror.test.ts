import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { DatabaseSync } from 'node:sqlite';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import { ExitError } from '../apps/server/src/commands/exit.ts';
import { importCommand } from '../apps/server/src/commands/import.ts';
import { mirrorCommand } from '../apps/server/src/commands/mirror.ts';
import { settleModelFile } from '../apps/server/src/commands/localBaseline.ts';
import { loadConfig } from '../apps/server/src/config.ts';
import { endBaseline } from '../apps/server/src/baselines/baselines.ts';
import { sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import { insertedElements, makeChangeset, pushVerifiable } from './support/changesetFile.ts';
import { all, makeIModel, official, workFolder, type Official } from './support/clients.ts';
import { FaultyProxy, type PassingAnswer } from './support/faultyProxy.ts';
import { bootServer, endServer, setups, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

interface Imported {
  code: number;
  stderr: string;
  id: string;
  created: boolean;
  pushed: number;
  changesets: number;
}

for (const setup of setups)
  describe(`Importing and mirroring iModels on ${setup.engine} and ${setup.store}`, () => {
    let server: TestServer;
    let olivia: Official;
    let iTwinId: string;
    const work = workFolder();
    before(async () => {
      server = await bootServer(setup);
      olivia = await official(server);
      iTwinId = await server.iTwin();
    });
    after(async () => {
      await endServer(server);
      work.remove();
    });

    async function run(...args: string[]): Promise<Imported> {
      const token = await server.token('olivia');
      const [command = '', ...rest] = args;
      return new Promise((resolve) => {
        // If an option is given twice, the last one counts.
        const child = execFile(
          process.execPath,
          [cli, command, '--url', server.origin, '--token', token, '--itwin', iTwinId, '--json', ...rest],
          (_error, stdout, stderr) =>
            resolve({
              code: child.exitCode ?? -1,
              stderr,
              ...(JSON.parse(stdout === '' ? '{}' : stdout) as Omit<Imported, 'code' | 'stderr'>),
            }),
        );
      });
    }
    const idsOf = async (iModelId: string) =>
      (await all(olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId }))).map(
        ({ id }) => id,
      );

    /** The sample as files: its first changesets, listed as the API lists them. */
    function sampleFolder(name: string, count: number): string {
      const folder = path.join(work.path, name);
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, 'baseline.bim'), sampleBaseline());
      const listed = sampleChangesets().slice(0, count);
      for (const { id, file } of listed) copyFileSync(file, path.join(folder, `${id}.cs`));
      writeFileSync(
        path.join(folder, 'changesets.json'),
        JSON.stringify({
          changesets: listed.map(({ id, parentId, description, containingChanges }, n) => ({
            id,
            parentId,
            index: n + 1,
            description,
            containingChanges,
            fileName: `${id}.cs`,
          })),
        }),
      );
      return folder;
    }

    test('imports a folder with every changeset, and a later run adds new ones', async () => {
      const first = await run('import', sampleFolder('plant', 2));
      assert.deepEqual([first.code, first.created, first.pushed, first.changesets], [0, true, 2, 2], first.stderr);
      const again = await run('import', sampleFolder('plant', sampleChangesets().length));
      assert.deepEqual(
        [again.id, again.created, again.pushed],
        [first.id, false, sampleChangesets().length - 2],
        again.stderr,
      );
      assert.deepEqual(
        await idsOf(first.id),
        sampleChangesets().map(({ id }) => id),
      );
      const { name } = await olivia.client.iModels.getSingle({
        authorization: olivia.authorization,
        iModelId: first.id,
      });
      assert.equal(name, 'plant');
      assert.deepEqual(
        await all(olivia.client.briefcases.getMinimalList({ authorization: olivia.authorization, iModelId: first.id })),
        [],
      );
    });

    test('imports a single file as an iModel without changesets', async () => {
      const file = path.join(work.path, 'single.bim');
      writeFileSync(file, sampleBaseline());
      const imported = await run('import', file, '--name', 'one file');
      assert.deepEqual([imported.code, imported.created, imported.changesets], [0, true, 0], imported.stderr);
    });

    test('uploads a baseline above 256 MiB in blocks, and validates it like any other', async () => {
      const file = path.join(work.path, 'large.bim');
      writeFileSync(file, '');
      truncateSync(file, 257 * 1024 * 1024);
      const { code, stderr } = await run('import', file);
      assert.deepEqual([code, stderr.includes('it is not a SQLite file')], [1, true], stderr);
    });

    test('a run that was interrupted during a push does not delay the next one', async () => {
      const first = await run('import', sampleFolder('cut off', 1));
      const api = await server.as('olivia');
      const { briefcase } = (await api.post(`/imodels/${first.id}/briefcases`, { deviceName: 'offshoot import' }))
        .body as { briefcase: { briefcaseId: number } };
      const [, second] = sampleChangesets();
      const begun = await api.post(`/imodels/${first.id}/changesets`, {
        id: second?.id,
        parentId: second?.parentId,
        briefcaseId: briefcase.briefcaseId,
        fileSize: 5,
      });
      assert.equal(begun.status, 201);
      const next = await run('import', sampleFolder('cut off', 2));
      assert.deepEqual([next.code, next.pushed], [0, 1], next.stderr);
    });

    test('a run that was interrupted while the server checked the baseline continues after that check', async () => {
      // Checkpoints are scheduled and not made: the baseline stays incomplete until this test continues.
      const slow = await bootServer(setup, { checkpoints: { generate: 'elsewhere' } });
      try {
        const place = await slow.iTwin();
        const api = await slow.as('olivia');
        const bytes = sampleBaseline();
        const created = await api.post('/imodels', {
          iTwinId: place,
          name: 'reading',
          baselineFile: { size: bytes.length },
        });
        const { iModel } = created.body as {
          iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } };
        };
        const again = () =>
          run('import', sampleFolder('reading', 1), '--url', slow.origin, '--itwin', place, '--token', token);
        const token = await slow.token('olivia');
        assert.match((await again()).stderr, /was never completed/);
        await api.put(iModel._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
        assert.equal((await api.post(iModel._links.complete.href, {})).status, 200);
        let asked = 0;
        slow.running.app.server.on(
          'request',
          ({ url }: IncomingMessage) => (asked += url?.endsWith('/operations/create') === true ? 1 : 0),
        );
        const going = again();
        await until('the command to wait', async () => (asked > 1 ? true : undefined));
        const { db } = slow.services.database;
        const { baseline_id } = await db
          .selectFrom('imodel')
          .select('baseline_id')
          .where('id', '=', iModel.id)
          .executeTakeFirstOrThrow();
        await db.transaction().execute((tx) => endBaseline(tx, baseline_id, 'initialized'));
        const imported = await going;
        assert.deepEqual(
          [imported.code, imported.id, imported.created, imported.pushed],
          [0, iModel.id, false, 1],
          imported.stderr,
        );
      } finally {
        await endServer(slow);
      }
    });

    test('waits when it is rate limited', async () => {
      const few = { general: [{ requests: 12, seconds: 2 }], operations: {} };
      const slow = await bootServer(setup, { tiers: { ...loadConfig({}, { env: {} }).tiers, Unlimited: few } });
      try {
        const place = await slow.iTwin();
        const imported = await run(
          'import',
          sampleFolder('patient', sampleChangesets().length),
          '--url',
          slow.origin,
          '--itwin',
          place,
          '--token',
          await slow.token('olivia'),
        );
        assert.deepEqual([imported.code, imported.pushed], [0, sampleChangesets().length], imported.stderr);
      } finally {
        await endServer(slow);
      }
    });

    test('refuses a broken chain, missing files and a diverged iModel with the reason', async () => {
      assert.match((await run('import', path.join(work.path, 'nothing'))).stderr, /no file or folder at/);
      const broken = sampleFolder('broken', 3);
      rmSync(path.join(broken, `${sampleChangesets()[2]?.id}.cs`));
      assert.match((await run('import', broken)).stderr, /the file of changeset .* is missing/);
      writeFileSync(path.join(broken, 'changesets.json'), JSON.stringify(sampleChangesets().slice(1, 2)));
      assert.match((await run('import', broken)).stderr, /does not follow the baseline/);
      await makeIModel(olivia, iTwinId, { name: 'grown', changesets: 1 });
      const other = await run('import', sampleFolder('grown', 2));
      assert.deepEqual([other.code, other.stderr.includes('went on by itself')], [1, true]);
    });

    /** Runs a command that must be refused, in this process. */
    async function refusalOf(command: Command, ...args: string[]): Promise<{ exitCode: number; message: string }> {
      const token = await server.token('olivia');
      try {
        await command.parseAsync(['--url', server.origin, '--token', token, '--itwin', iTwinId, '--json', ...args], {
          from: 'user',
        });
      } catch (error) {
        assert.ok(error instanceof ExitError, (error as Error).stack);
        return error;
      }
      throw new Error('the command was not refused');
    }
    const found = async (name: string) =>
      (
        await all(
          olivia.client.iModels.getMinimalList({ authorization: olivia.authorization, urlParams: { iTwinId, name } }),
        )
      )[0];

    /** A folder with these changesets, as one chain. */
    function chainFolder(name: string, changes: readonly Buffer[], listed: (n: number) => object = () => ({})): string {
      const folder = path.join(work.path, name);
      mkdirSync(folder, { recursive: true });
      writeFileSync(path.join(folder, 'baseline.bim'), sampleBaseline());
      let parentId = '';
      const list = changes.map((each, n) => {
        const changeset = makeChangeset(parentId, each);
        writeFileSync(path.join(folder, `${changeset.id}.cs`), changeset.bytes);
        const entry = { id: changeset.id, parentId, index: n + 1, fileSize: changeset.bytes.length, ...listed(n) };
        parentId = changeset.id;
        return entry;
      });
      writeFileSync(path.join(folder, 'changesets.json'), `\uFEFF${JSON.stringify(list)}`);
      return folder;
    }

    test('keeps the listed briefcases, or else those that the elements contain, and issues higher ids', async () => {
      const folder = chainFolder(
        'briefcases',
        [insertedElements(5, 5), insertedElements(5), insertedElements(), insertedElements(7, 12)],
        (n) => (n === 1 ? { briefcaseId: 9 } : {}),
      );
      const imported = await run('import', folder);
      assert.deepEqual([imported.code, imported.pushed], [0, 4], imported.stderr);
      assert.match(
        imported.stderr,
        /for 2 changesets neither changesets.json nor the created elements tell the briefcase/,
      );
      const listed = await all(
        olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId: imported.id }),
      );
      // Elements of several briefcases do not identify the briefcase of the changeset, but their ids are in use.
      assert.deepEqual(
        listed.map(({ briefcaseId }) => briefcaseId),
        [5, 9, 13, 13],
      );
      assert.equal(
        (await olivia.client.briefcases.acquire({ authorization: olivia.authorization, iModelId: imported.id }))
          .briefcaseId,
        14,
      );
      const api = await server.as('olivia');
      for (const briefcaseId of [5, 7, 9, 12])
        assert.equal((await api.get(`/imodels/${imported.id}/briefcases/${briefcaseId}`)).status, 404);
    });

    test('imports the write-ahead log together with its file, or refuses the import', async () => {
      const file = path.join(work.path, 'logged.bim');
      writeFileSync(file, sampleBaseline());
      const open = new DatabaseSync(file);
      open.exec("pragma journal_mode = wal; create table last_work (a); insert into last_work values ('an hour')");
      const before = [readFileSync(file), readFileSync(`${file}-wal`)];
      copyFileSync(`${file}-wal`, `${file}-wal.copy`);
      try {
        const imported = await run('import', file);
        assert.equal(imported.code, 0, imported.stderr);
        assert.match(imported.stderr, /the work in logged.bim-wal is imported with it/);
        const { _links } = await olivia.client.baselineFiles.getSingle({
          authorization: olivia.authorization,
          iModelId: imported.id,
        });
        const arrived = path.join(work.path, 'arrived.bim');
        writeFileSync(arrived, Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer()));
        const copy = new DatabaseSync(arrived, { readOnly: true });
        assert.deepEqual(
          copy
            .prepare('select a from last_work')
            .all()
            .map(({ a }) => a),
          ['an hour'],
        );
        copy.close();
        assert.deepEqual([readFileSync(file), readFileSync(`${file}-wal`)], before);
      } finally {
        open.close();
      }
      const other = path.join(work.path, 'mismatched.bim');
      writeFileSync(other, sampleBaseline());
      const log = readFileSync(`${file}-wal.copy`);
      log.fill(0x55, 16, 24);
      writeFileSync(`${other}-wal`, log);
      assert.match(
        (await refusalOf(importCommand(), other)).message,
        /the write-ahead log does not belong to the file/,
      );
      assert.equal(await found('mismatched'), undefined);
    });

    // Tests the command only, whatever database the server has.
    if (setup === setups[0])
      test('rolls an interrupted transaction back before it imports a file', async () => {
        const file = path.join(work.path, 'cut.bim');
        const writing = path.join(work.path, 'writing.bim');
        writeFileSync(writing, sampleBaseline());
        const db = new DatabaseSync(writing);
        db.exec('pragma journal_mode = delete');
        const before = readFileSync(writing);
        // With a tiny cache, changed pages reach the file before the commit.
        db.exec('pragma cache_size = 1; begin; create table half_done (a)');
        db.exec(
          'with recursive n (i) as (select 1 union all select i + 1 from n where i < 200) insert into half_done select randomblob(4000) from n',
        );
        for (const ending of ['', '-journal']) copyFileSync(writing + ending, file + ending);
        db.exec('rollback');
        db.close();
        assert.notDeepEqual(readFileSync(file), before);
        const settled = settleModelFile(file);
        try {
          assert.notEqual(settled.path, file);
          assert.deepEqual(readFileSync(settled.path), before);
        } finally {
          settled.remove();
        }
      });

    if (setup === setups[0])
      test('refuses an invalid list, or one that the files contradict, before it creates anything on the server', async () => {
        const three = [1, 2, 3].map(() => randomBytes(50));
        type Entry = Record<string, unknown>;
        const cases: [name: string, change: (list: Entry[], folder: string) => unknown, message: RegExp][] = [
          ['size', (list) => Object.assign(list[1] as Entry, { fileSize: 1 }), /is listed with 1 bytes/],
          [
            'size of another name',
            (list) => Object.assign(list[1] as Entry, { size: 1, fileSize: undefined }),
            /is listed with 1 bytes/,
          ],
          [
            'cut file',
            (list, folder) => {
              truncateSync(path.join(folder, `${String(list[2]?.['id'])}.cs`), 40);
              delete list[2]?.['fileSize'];
            },
            /is damaged: the file ends early/,
          ],
          [
            'flipped byte',
            (list, folder) => {
              const file = path.join(folder, `${String(list[2]?.['id'])}.cs`);
              const bytes = readFileSync(file);
              bytes.writeUInt8(bytes.readUInt8(50) ^ 1, 50);
              writeFileSync(file, bytes);
            },
            /its file gives the id/,
          ],
          [
            'no changeset',
            (list, folder) =>
              writeFileSync(
                path.join(folder, `${String(list[2]?.['id'])}.cs`),
                Buffer.alloc(Number(list[2]?.['fileSize']), 'x'),
              ),
            /not a changeset of a known format/,
          ],
          [
            'id of another',
            (list) =>
              Object.assign(list[2] as Entry, { id: '0'.repeat(40), fileName: `${String(list[2]?.['id'])}.cs` }),
            /its file gives the id/,
          ],
          ['no id', (list) => Object.assign(list[0] as Entry, { id: 'x' }), /0\.id must match pattern/],
          ['id that is no text', (list) => Object.assign(list[0] as Entry, { id: 5 }), /0\.id must be string/],
          ['twice', (list) => list.splice(1, 0, { ...list[0], index: 2, parentId: undefined }), /is listed twice/],
          ['parent', (list) => Object.assign(list[2] as Entry, { parentId: list[0]?.['id'] }), /does not follow/],
          [
            'first parent',
            (list) => Object.assign(list[0] as Entry, { parentId: '1'.repeat(40) }),
            /does not follow the baseline/,
          ],
          ['gap', (list) => Object.assign(list[2] as Entry, { index: 4 }), /has the index 4 where 3 is next/],
          [
            'same index',
            (list) => Object.assign(list[2] as Entry, { index: 2, parentId: undefined }),
            /has the index 2 where 3 is next/,
          ],
          [
            'index of some',
            (list) => Object.assign(list[1] as Entry, { index: undefined }),
            /some changesets have an index and some have none/,
          ],
          ['missing first', (list) => list.shift(), /does not follow the baseline/],
          [
            'outside',
            (list, folder) => {
              copyFileSync(path.join(folder, `${String(list[1]?.['id'])}.cs`), path.join(folder, '..', 'outside.cs'));
              Object.assign(list[1] as Entry, { fileName: '../outside.cs' });
            },
            /names a file outside the folder/,
          ],
          [
            'absolute',
            (list, folder) =>
              Object.assign(list[1] as Entry, { fileName: path.join(folder, `${String(list[1]?.['id'])}.cs`) }),
            /names a file outside the folder/,
          ],
          [
            'link to outside',
            (list, folder) => {
              const file = path.join(folder, `${String(list[1]?.['id'])}.cs`);
              copyFileSync(file, path.join(folder, '..', 'linked.cs'));
              rmSync(file);
              symlinkSync('../linked.cs', file);
            },
            /names a file outside the folder/,
          ],
          ['folder', (list) => Object.assign(list[1] as Entry, { fileName: '.' }), /outside the folder|is missing/],
          [
            'description',
            (list) => Object.assign(list[1] as Entry, { description: 'x'.repeat(256) }),
            /1\.description must NOT have more than 255 characters/,
          ],
          ['briefcase', (list) => Object.assign(list[1] as Entry, { briefcaseId: -1 }), /1\.briefcaseId must be >= 0/],
          [
            'flags',
            (list) => Object.assign(list[1] as Entry, { containingChanges: 'many' }),
            /1\.containingChanges must be integer/,
          ],
          [
            'no list',
            (_list, folder) => writeFileSync(path.join(folder, 'changesets.json'), '{"changesets":{}}'),
            /it must be a list of changesets/,
          ],
          [
            'null',
            (_list, folder) => writeFileSync(path.join(folder, 'changesets.json'), 'null'),
            /it must be a list of changesets/,
          ],
          [
            'no text',
            (_list, folder) =>
              writeFileSync(path.join(folder, 'changesets.json'), Buffer.from([0x5b, 0x22, 0xff, 0x22, 0x5d])),
            /is not valid JSON/,
          ],
          [
            'list missing',
            (_list, folder) => rmSync(path.join(folder, 'changesets.json')),
            /no changesets.json that lists them/,
          ],
        ];
        for (const [name, change, message] of cases) {
          const folder = chainFolder(`bad ${name}`, three);
          const list = JSON.parse(readFileSync(path.join(folder, 'changesets.json'), 'utf8').slice(1)) as Entry[];
          const own = readFileSync(path.join(folder, 'changesets.json'));
          change(list, folder);
          const untouched =
            statSync(path.join(folder, 'changesets.json'), { throwIfNoEntry: false })?.size === own.length;
          if (untouched) writeFileSync(path.join(folder, 'changesets.json'), JSON.stringify(list));
          const refusal = await refusalOf(importCommand(), folder);
          assert.deepEqual([refusal.exitCode, message.test(refusal.message)], [2, true], `${name}: ${refusal.message}`);
          assert.equal(await found(`bad ${name}`), undefined, name);
        }
      });

    test('mirrors an iModel of another server, and its new changesets on a later run, after any interruption', async () => {
      const elsewhere = await bootServer('sqlite');
      try {
        const eve = await official(elsewhere, 'eve');
        const source = await makeIModel(eve, await elsewhere.iTwin('eve'), {
          name: 'over there',
          description: 'to be mirrored',
        });
        await pushVerifiable(eve, source, 4);
        const mirror = async () =>
          run(
            'mirror',
            `${elsewhere.origin}/imodels/${source.id}`,
            '--private-source',
            '--source-token',
            await elsewhere.token('eve'),
          );
        // The first time, every download is interrupted once in the middle.
        const broken = new Set<string>();
        const breaking = ({ url = '' }: IncomingMessage, response: ServerResponse): void => {
          if (!url.startsWith('/storage/') || broken.has(url)) return;
          const write = response.write.bind(response);
          response.write = ((chunk: Buffer) => {
            broken.add(url);
            return write(chunk.subarray(0, Math.ceil(chunk.length / 2)), () => response.destroy());
          }) as ServerResponse['write'];
        };
        elsewhere.running.app.server.prependListener('request', breaking);
        const first = await mirror();
        elsewhere.running.app.server.off('request', breaking);
        assert.deepEqual([first.code, first.created, first.pushed, broken.size], [0, true, 4, 5], first.stderr);
        await pushVerifiable(eve, source, 3);
        const later = await mirror();
        assert.deepEqual(
          [later.id, later.created, later.pushed, later.changesets],
          [first.id, false, 3, 7],
          later.stderr,
        );
        assert.deepEqual(
          await idsOf(first.id),
          source.changesets.map(({ id }) => id),
        );
        const here = await olivia.client.iModels.getSingle({ authorization: olivia.authorization, iModelId: first.id });
        assert.deepEqual([here.name, here.description], ['over there', 'to be mirrored']);
        const refused = await run(
          'mirror',
          `${elsewhere.origin}/imodels/${source.id}`,
          '--private-source',
          '--source-token',
          'wrong',
        );
        assert.deepEqual([refused.code, /Unauthorized|access_token/.test(refused.stderr)], [3, true]);
        assert.equal((await run('mirror', 'nonsense', '--private-source', '--source-token', 'x')).code, 2);
      } finally {
        await endServer(elsewhere);
      }
    });

    test('a mirror keeps the briefcases of its source, and reserves ids for future ones', async () => {
      const elsewhere = await bootServer('sqlite');
      try {
        const eve = await official(elsewhere, 'eve');
        const source = await makeIModel(eve, await elsewhere.iTwin('eve'), { name: 'numbered' });
        await pushVerifiable(eve, source, 3);
        const unused = await eve.client.briefcases.acquire({ authorization: eve.authorization, iModelId: source.id });
        const mirror = async () =>
          run(
            'mirror',
            `${elsewhere.origin}/imodels/${source.id}`,
            '--private-source',
            '--source-token',
            await elsewhere.token('eve'),
          );
        const first = await mirror();
        assert.deepEqual([first.code, first.pushed], [0, 3], first.stderr);
        const recorded = async () =>
          (
            await all(
              olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId: first.id }),
            )
          ).map(({ briefcaseId }) => briefcaseId);
        assert.deepEqual(await recorded(), [2, 3, 4]);
        const local = await olivia.client.briefcases.acquire({
          authorization: olivia.authorization,
          iModelId: first.id,
        });
        assert.ok(local.briefcaseId > unused.briefcaseId + 1000);
        // A briefcase here does not prevent future changesets of the source from being mirrored.
        await pushVerifiable(eve, source, 1);
        const later = await mirror();
        assert.deepEqual([later.code, later.pushed], [0, 1], later.stderr);
        assert.deepEqual(await recorded(), [2, 3, 4, 6]);
      } finally {
        await endServer(elsewhere);
      }
    });

    if (setup === setups[0])
      test('a mirror refuses damaged, truncated or wrong files, and reports them', async () => {
        const elsewhere = await bootServer('sqlite');
        const proxy = await FaultyProxy.start(elsewhere.origin);
        try {
          const eve = await official(elsewhere, 'eve');
          const source = await makeIModel(eve, await elsewhere.iTwin('eve'));
          await pushVerifiable(eve, source, 3);
          const ofFile =
            (ending: string) =>
            ({ url }: PassingAnswer) =>
              url.startsWith('/storage/') && new RegExp(`\\${ending}\\?`).test(url);
          const isBaseline = ofFile('.bim');
          const isChangeset = ofFile('.cs');
          const flip = (bytes: Buffer, at: number): void => void bytes.writeUInt8(bytes.readUInt8(at) ^ 1, at);
          const shorten = (key: string) => (answer: PassingAnswer) => {
            if (!answer.url.includes('/changesets?') || answer.url.includes('orderBy')) return;
            const body = JSON.parse(answer.body.toString()) as Record<string, unknown[]>;
            answer.body = Buffer.from(JSON.stringify({ ...body, [key]: body[key]?.slice(0, 2) }));
          };
          const cases: [name: string, change: (answer: PassingAnswer) => void, exitCode: number, message: RegExp][] = [
            [
              'a flipped byte',
              (answer) => isChangeset(answer) && flip(answer.body, 60),
              1,
              /changeset 1 of the other server is damaged: its file gives the id/,
            ],
            [
              'a flipped byte of the header',
              (answer) => isChangeset(answer) && flip(answer.body, 3),
              1,
              /changeset 1 .* is damaged: the file is not a changeset/,
            ],
            [
              'a cut file',
              (answer) => isChangeset(answer) && (answer.body = answer.body.subarray(0, 100)),
              1,
              /changeset 1 has 100 bytes, and was announced with/,
            ],
            [
              'a cut baseline',
              (answer) => isBaseline(answer) && (answer.body = answer.body.subarray(0, 4096)),
              1,
              /the baseline has 4096 bytes, and was announced with/,
            ],
            [
              'more than was announced',
              (answer) => {
                if (isChangeset(answer)) {
                  answer.body = Buffer.concat([answer.body, answer.body]);
                  answer.headers['content-encoding'] = 'identity';
                }
              },
              1,
              /changeset 1 is larger than the announced/,
            ],
            [
              'another MD5',
              (answer) => isBaseline(answer) && (answer.headers['content-md5'] = 'AAAAAAAAAAAAAAAAAAAAAA=='),
              1,
              /its MD5 differs from the announced one/,
            ],
            [
              'an end that never comes',
              (answer) => isChangeset(answer) && ((answer.breakAfter = 10), (answer.headers['etag'] = undefined)),
              4,
              /the download of changeset 1 failed 5 times/,
            ],
            ['silence', (answer) => isChangeset(answer) && (answer.silent = true), 4, /no byte came for 0.2 s/],
            [
              'a redirect to nowhere',
              (answer) =>
                isBaseline(answer) &&
                Object.assign(answer, {
                  status: 302,
                  headers: { location: 'http://127.0.0.1:1/nothing' },
                  body: Buffer.alloc(0),
                }),
              4,
              /the download of the baseline failed 5 times; last: connect ECONNREFUSED/,
            ],
            [
              'a redirect of the API to nowhere',
              (answer) =>
                answer.url.startsWith('/imodels/') &&
                Object.assign(answer, {
                  status: 302,
                  headers: { location: 'http://127.0.0.1:1/nothing' },
                  body: Buffer.alloc(0),
                }),
              1,
              /leads to another address, http:\/\/127\.0\.0\.1:1\/nothing/,
            ],
            [
              'a link that has run out',
              (answer) => isChangeset(answer) && (answer.status = 403),
              3,
              /the server answered the download of changeset 1 with status 403/,
            ],
            [
              'a list that ends early',
              shorten('changesets'),
              1,
              /lists 2 changesets, and its latest one has the index 3/,
            ],
            [
              'no list',
              (answer) => answer.url.includes('/changesets?') && (answer.body = Buffer.from('{}')),
              1,
              /contains no list of changesets/,
            ],
            [
              'a list with a gap',
              (answer) => {
                if (answer.url.includes('/changesets?') && !answer.url.includes('orderBy'))
                  answer.body = Buffer.from(answer.body.toString().replace('"index":2', '"index":3'));
              },
              1,
              /where the one after .* belongs/,
            ],
            [
              'no JSON',
              (answer) => answer.url.startsWith('/imodels/') && (answer.body = Buffer.from('<html>')),
              1,
              /is no JSON/,
            ],
            [
              'an iModel of another form',
              (answer) => answer.url.endsWith(source.id) && (answer.body = Buffer.from('{"iModel":{"name":7}}')),
              1,
              /the iModel of the other server: iModel.name must be string/,
            ],
          ];
          for (const [name, change, exitCode, message] of cases) {
            proxy.change = change;
            const refusal = await refusalOf(
              mirrorCommand(),
              `${proxy.origin}/imodels/${source.id}`,
              '--private-source',
              '--source-token',
              await elsewhere.token('eve'),
              '--name',
              name,
              '--timeout',
              '0.2',
            );
            assert.deepEqual(
              [refusal.exitCode, message.test(refusal.message)],
              [exitCode, true],
              `${name}: ${refusal.message}`,
            );
            const made = await found(name);
            if (made !== undefined && exitCode === 1 && name.includes('byte'))
              assert.deepEqual(await idsOf(made.id), [], name);
          }
          // Resuming: a part that does not fit is not appended, and a whole file instead of a part replaces the existing one.
          const seen = new Set<string>();
          for (const [name, resumed] of [
            ['another part', (answer: PassingAnswer) => void (answer.headers['content-range'] = 'bytes 0-99/100')],
            ['no range', (answer: PassingAnswer) => void delete answer.headers['content-range']],
            [
              'another total',
              (answer: PassingAnswer) =>
                void (answer.headers['content-range'] = String(answer.headers['content-range']).replace(
                  /\d+$/,
                  '999999',
                )),
            ],
            ['another version', (answer: PassingAnswer) => void (answer.headers['etag'] = '"other"')],
          ] as const) {
            seen.clear();
            proxy.change = (answer) => {
              if (!isChangeset(answer) && !isBaseline(answer)) return;
              if (answer.range !== undefined) resumed(answer);
              else if (!seen.has(answer.url)) {
                seen.add(answer.url);
                answer.breakAfter = Math.ceil(answer.body.length / 2);
              }
            };
            const imported = await run(
              'mirror',
              `${proxy.origin}/imodels/${source.id}`,
              '--private-source',
              '--source-token',
              await elsewhere.token('eve'),
              '--name',
              name,
            );
            assert.deepEqual([imported.code, imported.pushed], [0, 3], `${name}: ${imported.stderr}`);
            const { _links } = await olivia.client.baselineFiles.getSingle({
              authorization: olivia.authorization,
              iModelId: imported.id,
            });
            assert.equal(Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer()).length, 1_384_448);
          }
        } finally {
          await proxy.close();
          await endServer(elsewhere);
        }
      });
  });
