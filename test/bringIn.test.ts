import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { sampleBaseline, sampleChangesets } from '../scripts/sample.ts';
import { all, makeIModel, official, pushMore, workFolder, type Official } from './support/clients.ts';
import { bootServer, endServer, type TestServer } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

interface Brought {
  code: number;
  stderr: string;
  id: string;
  created: boolean;
  pushed: number;
  changesets: number;
}

describe('Bringing iModels in', () => {
  let server: TestServer;
  let olivia: Official;
  let iTwinId: string;
  const work = workFolder();
  before(async () => {
    server = await bootServer('sqlite');
    olivia = await official(server);
    iTwinId = await server.iTwin();
  });
  after(async () => {
    await endServer(server);
    work.remove();
  });

  async function run(...args: string[]): Promise<Brought> {
    const token = await server.token('olivia');
    return new Promise((resolve) => {
      const child = execFile(process.execPath, [cli, ...args, '--url', server.origin, '--token', token, '--itwin', iTwinId, '--json'], (_error, stdout, stderr) =>
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
      const first = await mirror();
      assert.deepEqual([first.code, first.created, first.pushed], [0, true, 4], first.stderr);
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
