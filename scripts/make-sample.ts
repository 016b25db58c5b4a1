/**
 * Creates the sample, a small real iModel with a few changesets, for machines without iTwin.js and for tests that need
 * real files. Run once; the result is committed.
 */
import { fork } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { brotliCompressSync } from 'node:zlib';
import { mintToken } from '../apps/server/src/commands/token.ts';
import { clientsOf } from './clients.ts';
import { RealModels } from './realModel.ts';

const rows = 6;
const target = fileURLToPath(new URL('../test/fixtures/sample/', import.meta.url));
const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-sample-'));
const data = path.join(folder, 'data');
const server = fork(
  fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url)),
  ['start', '--data', data, '--port', '0'],
  { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] },
);
try {
  const { origin } = await new Promise<{ origin: string }>((resolve) =>
    server.once('message', (message) => resolve(message as { origin: string })),
  );
  const token = await mintToken({ data, lifeSeconds: 3600 });
  const { client, authorization } = clientsOf(origin, token);
  const listed = (await (
    await fetch(`${origin}/itwins`, { headers: { authorization: `Bearer ${token}` } })
  ).json()) as { iTwins: { id: string }[] };
  const iTwinId = listed.iTwins[0]?.id ?? '';
  const models = await RealModels.start(path.join(folder, 'work'), origin, token);
  const iModelId = await models.create(iTwinId, 'Sample plant');
  const db = await models.openBriefcase(iTwinId, iModelId);
  for (let row = 1; row <= rows; row++) await models.pushSpheres(db, 3, row);
  db.close();
  await models.stop();

  rmSync(target, { recursive: true, force: true });
  mkdirSync(target, { recursive: true });
  const baseline = await client.baselineFiles.getSingle({ authorization, iModelId });
  const bytes = Buffer.from(await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer());
  writeFileSync(path.join(target, 'baseline.bim.br'), brotliCompressSync(bytes));
  const changesets = await client.changesets.downloadList({ authorization, iModelId, targetDirectoryPath: target });
  const described = changesets.map(({ id, parentId, description, containingChanges, filePath }) => ({
    id,
    parentId,
    description,
    containingChanges,
    file: path.basename(filePath),
    size: readFileSync(filePath).length,
  }));
  writeFileSync(path.join(target, 'changesets.json'), `${JSON.stringify(described, undefined, 2)}\n`);
} finally {
  server.kill();
  rmSync(folder, { recursive: true, force: true });
}
