/**
 * Attacks on `offshoot import` by the author of the imported folder: names and links in it point to other files of the user who
 * runs the command, which everybody who may read the iModel could then read.
 */
import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { ExitError } from '../../apps/server/src/commands/exit.ts';
import { importCommand } from '../../apps/server/src/commands/import.ts';
import { sampleBaseline, sampleChangesets } from '../../scripts/sample.ts';
import { workFolder } from '../support/clients.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';

describe('A folder from an untrusted party', () => {
  let server: TestServer;
  let iTwinId: string;
  const work = workFolder();
  before(async () => {
    server = await bootServer('sqlite');
    iTwinId = await server.iTwin();
    // A file that the importing user can read, and the author of the folder cannot.
    writeFileSync(path.join(work.path, 'private.bim'), sampleBaseline());
    copyFileSync(changeset.file, path.join(work.path, 'private.cs'));
    writeFileSync(path.join(work.path, 'private.json'), '[]');
  });
  after(async () => {
    await endServer(server);
    work.remove();
  });
  const changeset = sampleChangesets()[0] as { id: string; file: string };

  /** A folder that can be imported. */
  function folderOf(name: string, fileName = 'first.cs'): string {
    const folder = path.join(work.path, name);
    mkdirSync(folder);
    writeFileSync(path.join(folder, 'baseline.bim'), sampleBaseline());
    copyFileSync(changeset.file, path.join(folder, 'first.cs'));
    writeFileSync(path.join(folder, 'changesets.json'), JSON.stringify([{ id: changeset.id, parentId: '', fileName }]));
    return folder;
  }

  /** Replaces a file of the folder by a link. */
  function link(folder: string, name: string, target: string): void {
    rmSync(path.join(folder, name), { force: true, recursive: true });
    symlinkSync(target, path.join(folder, name));
  }

  async function outcome(folder: string): Promise<string> {
    try {
      await importCommand().parseAsync(
        ['--url', server.origin, '--token', await server.token('olivia'), '--itwin', iTwinId, '--json', folder],
        { from: 'user' },
      );
      return 'imported';
    } catch (error) {
      assert.ok(error instanceof ExitError, (error as Error).stack);
      return error.message;
    }
  }

  const attacks: [name: string, make: (name: string) => string, message: RegExp][] = [
    ['a name that climbs', (name) => folderOf(name, '../private.cs'), /names a file outside the folder/],
    [
      'a name that climbs to a file of the system',
      (name) => folderOf(name, '../../../../../../../etc/passwd'),
      /names a file outside the folder/,
    ],
    ['an absolute name', (name) => folderOf(name, '/etc/passwd'), /names a file outside the folder/],
    [
      'a link as a changeset',
      (name) => {
        const folder = folderOf(name);
        link(folder, 'first.cs', '../private.cs');
        return folder;
      },
      /names a file outside the folder/,
    ],
    [
      'a link as the folder of changesets',
      (name) => {
        const folder = folderOf(name, 'private.cs');
        rmSync(path.join(folder, 'first.cs'));
        link(folder, 'changesets', '..');
        return folder;
      },
      /names a file outside the folder/,
    ],
    [
      'a link as the baseline',
      (name) => {
        const folder = folderOf(name);
        link(folder, 'baseline.bim', '../private.bim');
        return folder;
      },
      /baseline\.bim links to a file outside the folder/,
    ],
    [
      'a link as the list',
      (name) => {
        const folder = folderOf(name);
        link(folder, 'changesets.json', '../private.json');
        return folder;
      },
      /changesets\.json links to a file outside the folder/,
    ],
    [
      'a link as the write-ahead log',
      (name) => {
        const folder = folderOf(name);
        link(folder, 'baseline.bim-wal', '../private.cs');
        return folder;
      },
      /baseline\.bim-wal is a link, not a regular file/,
    ],
    [
      'a link as the journal',
      (name) => {
        const folder = folderOf(name);
        link(folder, 'baseline.bim-journal', '../private.cs');
        return folder;
      },
      /baseline\.bim-journal is a link, not a regular file/,
    ],
  ];
  for (const [name, make, message] of attacks)
    test(`imports no file from outside by ${name}`, async () => {
      assert.match(await outcome(make(name)), message);
      const api = await server.as('olivia');
      const { iModels } = (await api.get(`/imodels?iTwinId=${iTwinId}&name=${encodeURIComponent(name)}`)).body as {
        iModels: unknown[];
      };
      assert.deepEqual(iModels, []);
    });

  test('is imported with links that stay inside it', async () => {
    const folder = folderOf('links within', 'linked.cs');
    symlinkSync('first.cs', path.join(folder, 'linked.cs'));
    assert.equal(await outcome(folder), 'imported');
  });
});
