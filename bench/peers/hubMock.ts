import { copyFileSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { timed } from '../common.ts';
import type { OtherWay } from './peers.ts';

/**
 * The way of HubMock, the local hub in the tests of iTwin.js: a new iModel is a folder with a database and a copy of the
 * baseline, and each pushed changeset is a copied file and a row, committed one by one.
 */
export function hubMockCopy(folder: string, files: string): OtherWay {
  const target = path.join(folder, 'hub');
  const names = readdirSync(files).sort((a, b) => Number(a) - Number(b));
  const copy = (): void => {
    mkdirSync(target);
    const database = new DatabaseSync(path.join(target, 'localHub.db'));
    try {
      database.exec(
        'create table timeline (csIndex integer primary key, csId text unique, description text, size integer, briefcaseId integer)',
      );
      const insert = database.prepare('insert into timeline values (?, ?, ?, ?, ?)');
      for (const [index, name] of names.entries()) {
        copyFileSync(path.join(files, name), path.join(target, name));
        insert.run(index, name, '', 0, 2);
      }
    } finally {
      database.close();
    }
  };
  return {
    name: "HubMock's way",
    run: async () => {
      const took = await timed(copy);
      rmSync(target, { recursive: true });
      return took;
    },
  };
}
