import { randomBytes } from 'node:crypto';
import { mkdirSync, writeFileSync } from 'node:fs';
import { open, readFile } from 'node:fs/promises';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { launcher } from '../../apps/server/src/bench/common.ts';
import { makeChangeset } from '../../test/support/changesetFile.ts';
import { compare, runProgram, timed, withFolder, type Figure } from '../common.ts';
import { makeInstallation } from '../installation.ts';

const changesets = 1000;
const changesetBytes = 100_000;

/** `offshoot import` of a baseline and its changesets, beside a copy of the same files that syncs each. */
export async function measureImport(): Promise<Figure[]> {
  return withFolder(async (dataDir) => {
    const installation = await makeInstallation(dataDir, undefined, async () => undefined);
    const { token, iTwinId } = installation;
    const folder = path.join(dataDir, 'to import');
    const files = makeFiles(folder);
    const server = await installation.start();
    try {
      const ours: number[] = [];
      const theirs: number[] = [];
      for (const round of [1, 2]) {
        const name = `import ${round}`;
        const args = ['import', folder, '--itwin', iTwinId, '--name', name, '--url', server.origin, '--token', token];
        ours.push((await timed(() => runProgram(process.execPath, [launcher, ...args]))) / 1000);
        theirs.push((await timed(() => copySynced(files, path.join(dataDir, name)))) / 1000);
      }
      return [compare('import of 1,000 changesets of 100 kB', 's', ours, 'files copied and synced', theirs)];
    } finally {
      await server.stop();
    }
  });
}

/** @returns the files of the changesets */
function makeFiles(folder: string): string[] {
  mkdirSync(path.join(folder, 'changesets'), { recursive: true });
  const baseline = new DatabaseSync(path.join(folder, 'baseline.bim'));
  baseline.exec('create table a (b)');
  baseline.close();
  const listed: object[] = [];
  const files: string[] = [];
  let parentId = '';
  for (let index = 1; index <= changesets; index++) {
    const { id, bytes } = makeChangeset(parentId, randomBytes(changesetBytes));
    const file = path.join(folder, 'changesets', `${id}.cs`);
    writeFileSync(file, bytes);
    listed.push({ id, parentId, index, briefcaseId: 2, fileName: `${id}.cs` });
    files.push(file);
    parentId = id;
  }
  writeFileSync(path.join(folder, 'changesets.json'), JSON.stringify({ changesets: listed }));
  return files;
}

async function copySynced(files: readonly string[], target: string): Promise<void> {
  mkdirSync(target);
  for (const file of files) {
    const bytes = await readFile(file);
    const copy = await open(path.join(target, path.basename(file)), 'wx');
    await copy.write(bytes);
    await copy.sync();
    await copy.close();
  }
}
