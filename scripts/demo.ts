/**
 * `npm run demo`: the clone operation with real files. Starts a server, creates a real iModel with iTwin.js, pushes
 * changesets, clones it with the official client into another iTwin (up to a changeset, and completely), deletes the
 * source, and checks every file of the clones.
 */
import { fork, type ChildProcess } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { mintToken } from '../apps/server/src/commands/token.ts';
import { clientsOf, type Official } from './clients.ts';
import { pushSample } from './sample.ts';
import type * as RealModel from './realModel.ts';

const rows = 10;
const vesselsPerRow = 8;
const cutAt = 4;

const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-demo-'));
const began = performance.now();
let server: ChildProcess | undefined;
try {
  server = await main();
} catch (error) {
  console.error('\nThe demo failed:', error);
  process.exitCode = 1;
} finally {
  server?.kill('SIGTERM');
  rmSync(folder, { recursive: true, force: true });
}

async function main(): Promise<ChildProcess> {
  console.log('Offshoot demo: make a real iModel, push to it, clone it, delete it, check the clones.\n');
  const data = path.join(folder, 'data');
  const { child, origin } = await step('server started (SQLite and files in a temporary folder)', () =>
    startServer(data),
  );
  server = child;
  const token = await mintToken({ data, lifeSeconds: 3600 });
  const official = clientsOf(origin, token);
  const iTwinA = await createITwin(origin, token, 'Engineering');
  const iTwinB = await createITwin(origin, token, 'Operations');

  const iTwinJs: typeof RealModel | undefined = isITwinJsInstalled() ? await import('./realModel.ts') : undefined;
  if (iTwinJs === undefined)
    console.log('  iTwin.js is not installed here: the sample iModel that ships with the project is used instead.');
  const models = await iTwinJs?.RealModels.start(path.join(folder, 'work'), origin, token);

  const sourceId =
    models === undefined
      ? await step('the sample iModel created from its baseline, its changesets pushed', () =>
          pushSample(official, iTwinA, 'Demo plant'),
        )
      : await step(`a real iModel made with iTwin.js, ${rows} changesets of ${vesselsPerRow} vessels pushed`, () =>
          makePlant(models, iTwinA),
        );
  const pushed = await download(official, sourceId, 'source');

  const partId = await step(`cloned up to changeset ${cutAt} into the other iTwin (official client)`, async () => {
    const clone = await official.client.iModels.clone({
      authorization: official.authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: iTwinB, name: `Demo plant at ${cutAt}`, changesetIndex: cutAt },
    });
    return clone.id;
  });
  const wholeId = await step('cloned in full into the other iTwin (official client)', async () => {
    const clone = await official.client.iModels.clone({
      authorization: official.authorization,
      iModelId: sourceId,
      iModelProperties: { iTwinId: iTwinB },
    });
    return clone.id;
  });
  await step('source deleted', () =>
    official.client.iModels.delete({ authorization: official.authorization, iModelId: sourceId }),
  );

  for (const [name, id, expected] of [
    [`clone at ${cutAt}`, partId, pushed.slice(0, cutAt)],
    ['full clone', wholeId, pushed],
  ] as const) {
    const files = await step(`${name}: every file downloaded`, () => download(official, id, name));
    check(files, expected, iTwinJs);
    console.log(
      `    ${files.length} changesets${iTwinJs === undefined ? '' : ', each SHA-1 id recomputed by iTwin.js'}, each SHA-256 equal to what was pushed; baseline ${await baselineState(official, id)}`,
    );
    if (models !== undefined) {
      const found = await step(`${name}: opened with iTwin.js, its changesets applied`, () =>
        countVessels(models, iTwinB, id),
      );
      const wanted = expected.length * vesselsPerRow;
      if (found !== wanted) throw new Error(`${name} holds ${found} vessels instead of ${wanted}`);
      console.log(`    ${found} vessels, as many as the source had at changeset ${expected.length}`);
    }
  }
  await models?.stop();
  console.log(
    `\nAll checks passed in ${((performance.now() - began) / 1000).toFixed(1)} s. The clones are intact although their source was deleted.`,
  );
  return child;
}

async function step<T>(what: string, work: () => Promise<T>): Promise<T> {
  const from = performance.now();
  const result = await work();
  console.log(`${`${(performance.now() - from).toFixed(0)} ms`.padStart(9)}  ${what}`);
  return result;
}

async function startServer(data: string): Promise<{ child: ChildProcess; origin: string }> {
  const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
  const child = fork(cli, ['start', '--data', data, '--port', '0', '--host', '127.0.0.1'], {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    env: { ...process.env, OFFSHOOT_LOG_LEVEL: 'warn' },
  });
  const origin = await new Promise<string>((resolve, reject) => {
    child.once('message', (message) => resolve((message as { origin: string }).origin));
    child.once('exit', (code) => reject(new Error(`the server ended with ${code}`)));
  });
  return { child, origin };
}

async function createITwin(origin: string, token: string, displayName: string): Promise<string> {
  const response = await fetch(`${origin}/itwins`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ displayName, class: 'Endeavor', subClass: 'Project' }),
  });
  if (!response.ok) throw new Error(`cannot create an iTwin: ${response.status} ${await response.text()}`);
  return ((await response.json()) as { iTwin: { id: string } }).iTwin.id;
}

async function makePlant(models: RealModel.RealModels, iTwinId: string): Promise<string> {
  const iModelId = await models.create(iTwinId, 'Demo plant');
  const db = await models.openBriefcase(iTwinId, iModelId);
  for (let row = 1; row <= rows; row++) await models.pushSpheres(db, vesselsPerRow, row);
  db.close();
  return iModelId;
}

async function countVessels(models: RealModel.RealModels, iTwinId: string, iModelId: string): Promise<number> {
  const db = await models.openBriefcase(iTwinId, iModelId);
  await db.pullChanges();
  const count = models.labels(db).length;
  db.close();
  return count;
}

interface Downloaded {
  id: string;
  parentId: string;
  sha256: string;
  file: string;
}

async function download({ client, authorization }: Official, iModelId: string, name: string): Promise<Downloaded[]> {
  const changesets = await client.changesets.downloadList({
    authorization,
    iModelId,
    targetDirectoryPath: path.join(folder, 'files', name),
  });
  return changesets.map(({ id, parentId, filePath }) => ({
    id,
    parentId,
    sha256: createHash('sha256').update(readFileSync(filePath)).digest('hex'),
    file: filePath,
  }));
}

/** Checks that every file equals the pushed one, and that iTwin.js computes the same changeset id from it. */
function check(
  files: readonly Downloaded[],
  expected: readonly Downloaded[],
  iTwinJs: typeof RealModel | undefined,
): void {
  if (files.length !== expected.length) throw new Error(`${files.length} changesets instead of ${expected.length}`);
  for (const [index, file] of files.entries()) {
    const source = expected[index] as Downloaded;
    if (file.id !== source.id || file.parentId !== source.parentId || file.sha256 !== source.sha256)
      throw new Error(`changeset ${index + 1} is not the one that was pushed`);
    const computed = iTwinJs?.computeChangesetId(file.parentId, file.file) ?? file.id;
    if (computed !== file.id)
      throw new Error(`changeset ${index + 1} has the id ${file.id}, its contents give ${computed}`);
  }
}

async function baselineState({ client, authorization }: Official, iModelId: string): Promise<string> {
  const baseline = await client.baselineFiles.getSingle({ authorization, iModelId });
  const response = await fetch(baseline._links.download?.href ?? '');
  const bytes = Buffer.from(await response.arrayBuffer());
  if (bytes.length !== baseline.fileSize || bytes.toString('latin1', 0, 15) !== 'SQLite format 3')
    throw new Error('the baseline of a clone is damaged');
  return `${(bytes.length / 1e6).toFixed(1)} MB, whole`;
}
