import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import { timed } from '../common.ts';
import type { Installation } from '../installation.ts';
import type { OtherWay } from './peers.ts';
import type { Sources } from './sources.ts';

/** `INSERT … SELECT` of the rows of all changesets, durably, in a copy of the database with its indexes. */
export async function prepareRowCopy({ dataDir, content }: Installation<Sources>): Promise<OtherWay> {
  const file = path.join(dataDir, 'rows.db');
  const source = new DatabaseSync(path.join(dataDir, databaseFile), { readOnly: true });
  try {
    source.prepare('vacuum into ?').run(file);
  } finally {
    source.close();
  }
  const database = new DatabaseSync(file);
  database.exec('pragma journal_mode = wal; pragma synchronous = full; pragma foreign_keys = on');
  const columns = database
    .prepare('select name from pragma_table_info(?)')
    .all('changeset')
    .map(({ name }) => `"${String(name)}"`)
    .filter((name) => name !== '"segment_id"')
    .join(', ');
  const { segment_id } = database
    .prepare('select h.segment_id from imodel m join history h on h.id = m.history_id where m.id = ?')
    .get(content.modelId) as { segment_id: string };
  const run = (): void => {
    const segment = randomUUID();
    database.exec('begin immediate');
    database.prepare('insert into segment (id, owner_imodel_id) values (?, null)').run(segment);
    database
      .prepare(
        `insert into changeset (segment_id, ${columns}) select ?, ${columns} from changeset where segment_id = ?`,
      )
      .run(segment, segment_id);
    database.exec('commit');
  };
  return {
    name: 'INSERT … SELECT of the rows',
    run: () => timed(run),
    stop: async () => {
      database.close();
      for (const ending of ['', '-wal', '-shm']) rmSync(`${file}${ending}`, { force: true });
    },
  };
}
