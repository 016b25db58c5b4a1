import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { DatabaseSync } from 'node:sqlite';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** The ids in an iModel file, read with SQL alone. */
export function identityIn(bytes: Buffer): { iModelId: string; iTwinId: string } {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-ids-'));
  try {
    const file = path.join(folder, 'model.bim');
    writeFileSync(file, bytes);
    const db = new DatabaseSync(file, { readOnly: true });
    const one = (name: string): string => {
      const row = db
        .prepare("select lower(hex(Data)) as id from be_Prop where Namespace = 'be_Db' and Name = ?")
        .get(name) as { id: string } | undefined;
      return (row?.id ?? '').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5');
    };
    const identity = { iModelId: one('DbGuid'), iTwinId: one('ProjectGuid') };
    db.close();
    return identity;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
