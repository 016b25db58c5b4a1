import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../apps/server/src/config.ts';
import { endBaseline } from '../apps/server/src/history/baselines.ts';
import { sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import { all, makeIModel, official, pushMore, workFolder, type Official } from './support/clients.ts';
import { bootServer, endServer, setups, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

interface Brought {
  code: number;
  stderr: string;
  id: string;
  created: boolean;
  pushed: number;
  changesets: number;
}

for (const setup of setups) describe(`Bringing iModels in on ${setup.engine} and ${setup.store}`, () => {
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

  async function run(...args: string[]): Promise<Brought> {
    const token = await server.token('olivia');
    const [command = '', ...rest] = args;
    return new Promise((resolve) => {
      // Of an option that stands twice the last one counts.
      const child = execFile(process.execPath, [cli, command, '--url', server.origin, '--token', token, '--itwin', iTwinId, '--json', ...rest], (_error, stdout, stderr) =>
        resolve({ code: child.exitCode ?? -1, stderr, ...(JSON.parse(stdout === '' ? '{}' : stdout) as Omit<Brought, 'code' | 'stderr'>) }),
      );
    });
  }
  const idsOf = async (iModelId: string) => (await all(olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId }))).map(({ id }) => id);

  /** The sample as files: its first changesets, listed as the API lists them. */
  function sampleFolder(name: string, count: number): string {
    const folder = path.join(work.path, name);
    mkdirSync(folder, { recursive: true });
    writeFileSync(path.join(folder, 'baseline.bim'), sampleBaseline());
    const listed = sampleChangesets().slice(0, count);
    for (const { id, file } of listed) copyFileSync(file, path.join(folder, `${id}.cs`));
    writeFileSync(path.join(folder, 'changesets.json'), JSON.stringify({ changesets: listed.map(({ id, parentId, description, containingChanges }, n) => ({ id, parentId, index: n + 1, description, containingChanges, fileName: `${id}.cs` })) }));
    return folder;
  }

  test('a folder becomes an iModel with every changeset, and a later run brings what is new', async () => {
    const first = await run('import', sampleFolder('plant', 2));
    assert.deepEqual([first.code, first.created, first.pushed, first.changesets], [0, true, 2, 2], first.stderr);
    const again = await run('import', sampleFolder('plant', sampleChangesets().length));
    assert.deepEqual([again.id, again.created, again.pushed], [first.id, false, sampleChangesets().length - 2], again.stderr);
    assert.deepEqual(await idsOf(first.id), sampleChangesets().map(({ id }) => id));
    const { name } = await olivia.client.iModels.getSingle({ authorization: olivia.authorization, iModelId: first.id });
    assert.equal(name, 'plant');
    assert.deepEqual(await all(olivia.client.briefcases.getMinimalList({ authorization: olivia.authorization, iModelId: first.id })), []);
  });

  test('a single file becomes an iModel without changesets', async () => {
    const file = path.join(work.path, 'single.bim');
    writeFileSync(file, sampleBaseline());
    const brought = await run('import', file, '--name', 'one file');
    assert.deepEqual([brought.code, brought.created, brought.changesets], [0, true, 0], brought.stderr);
  });

  test('a baseline above 256 MiB goes in blocks, and is judged as any other', async () => {
    const file = path.join(work.path, 'large.bim');
    writeFileSync(file, '');
    truncateSync(file, 257 * 1024 * 1024);
    const { code, stderr } = await run('import', file);
    assert.deepEqual([code, /it is no SQLite file/.test(stderr)], [1, true], stderr);
  });

  test('a run that was cut off in the middle of a push does not keep the next one waiting', async () => {
    const first = await run('import', sampleFolder('cut off', 1));
    const api = await server.as('olivia');
    const { briefcase } = (await api.post(`/imodels/${first.id}/briefcases`, { deviceName: 'offshoot import' })).body as { briefcase: { briefcaseId: number } };
    const [, second] = sampleChangesets();
    const begun = await api.post(`/imodels/${first.id}/changesets`, { id: second?.id, parentId: second?.parentId, briefcaseId: briefcase.briefcaseId, fileSize: 5 });
    assert.equal(begun.status, 201);
    const next = await run('import', sampleFolder('cut off', 2));
    assert.deepEqual([next.code, next.pushed], [0, 1], next.stderr);
  });

  test('a run that was cut off while the server read the baseline goes on when that is done', async () => {
    // Checkpoints are ordered and nobody makes them: the baseline is never done until this test says so.
    const slow = await bootServer(setup, { checkpoints: { generate: 'elsewhere' } });
    try {
      const place = await slow.iTwin();
      const api = await slow.as('olivia');
      const bytes = sampleBaseline();
      const created = await api.post('/imodels', { iTwinId: place, name: 'reading', baselineFile: { size: bytes.length } });
      const { iModel } = created.body as { iModel: { id: string; _links: { upload: { href: string }; complete: { href: string } } } };
      const again = () => run('import', sampleFolder('reading', 1), '--url', slow.origin, '--itwin', place, '--token', token);
      const token = await slow.token('olivia');
      assert.match((await again()).stderr, /was never completed/);
      await api.put(iModel._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
      assert.equal((await api.post(iModel._links.complete.href, {})).status, 200);
      let asked = 0;
      slow.running.app.server.on('request', ({ url }: IncomingMessage) => (asked += url?.endsWith('/operations/create') === true ? 1 : 0));
      const going = again();
      await until('the command to wait', async () => (asked > 1 ? true : undefined));
      const { db } = slow.services.database;
      const { baseline_id } = await db.selectFrom('imodel').select('baseline_id').where('id', '=', iModel.id).executeTakeFirstOrThrow();
      await db.transaction().execute((tx) => endBaseline(tx, baseline_id, 'initialized'));
      const brought = await going;
      assert.deepEqual([brought.code, brought.id, brought.created, brought.pushed], [0, iModel.id, false, 1], brought.stderr);
    } finally {
      await endServer(slow);
    }
  });

  test('a rate limit is waited for', async () => {
    const few = { general: [{ requests: 12, seconds: 2 }], operations: {} };
    const slow = await bootServer(setup, { tiers: { ...loadConfig({}, { env: {} }).tiers, Unlimited: few } });
    try {
      const place = await slow.iTwin();
      const brought = await run('import', sampleFolder('patient', sampleChangesets().length), '--url', slow.origin, '--itwin', place, '--token', await slow.token('olivia'));
      assert.deepEqual([brought.code, brought.pushed], [0, sampleChangesets().length], brought.stderr);
    } finally {
      await endServer(slow);
    }
  });

  test('what is no chain, is missing or has gone its own way is refused in words', async () => {
    assert.match((await run('import', path.join(work.path, 'nothing'))).stderr, /there is nothing at/);
    const broken = sampleFolder('broken', 3);
    rmSync(path.join(broken, `${sampleChangesets()[2]?.id}.cs`));
    assert.match((await run('import', broken)).stderr, /the file of changeset .* is missing/);
    writeFileSync(path.join(broken, 'changesets.json'), JSON.stringify(sampleChangesets().slice(1, 2)));
    assert.match((await run('import', broken)).stderr, /does not follow the baseline/);
    await makeIModel(olivia, iTwinId, { name: 'grown', changesets: 1 });
    const other = await run('import', sampleFolder('grown', 2));
    assert.deepEqual([other.code, /went on by itself/.test(other.stderr)], [1, true]);
  });

  test('an iModel of another server is mirrored, with what is new on a later run, after any interruption', async () => {
    const elsewhere = await bootServer('sqlite');
    try {
      const eve = await official(elsewhere, 'eve');
      const source = await makeIModel(eve, await elsewhere.iTwin('eve'), { name: 'over there', changesets: 4, description: 'to be mirrored' });
      const mirror = async () => run('mirror', `${elsewhere.origin}/imodels/${source.id}`, '--source-token', await elsewhere.token('eve'));
      // The first time, every download breaks off once in its middle.
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
      await pushMore(eve, source, 3);
      const later = await mirror();
      assert.deepEqual([later.id, later.created, later.pushed, later.changesets], [first.id, false, 3, 7], later.stderr);
      assert.deepEqual(await idsOf(first.id), source.changesets.map(({ id }) => id));
      const here = await olivia.client.iModels.getSingle({ authorization: olivia.authorization, iModelId: first.id });
      assert.deepEqual([here.name, here.description], ['over there', 'to be mirrored']);
      const refused = await run('mirror', `${elsewhere.origin}/imodels/${source.id}`, '--source-token', 'wrong');
      assert.deepEqual([refused.code, /Unauthorized|access_token/.test(refused.stderr)], [3, true]);
      assert.equal((await run('mirror', 'nonsense', '--source-token', 'x')).code, 2);
    } finally {
      await endServer(elsewhere);
    }
  });
});
