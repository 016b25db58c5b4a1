/**
 * Creates the seed, the empty iModel that every new iModel starts from. Run once for each new version of iTwin.js. The
 * result is committed, so that the server needs no native code to create iModels.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { IModelHost, SnapshotDb } from '@itwin/core-backend';
import { Guid } from '@itwin/core-bentley';
import { nativeDbOf, startITwinJs } from '../apps/server/src/checkpoints/itwinjs/itwinjs.ts';

const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-seed-'));
await startITwinJs({ cacheDir: folder });
try {
  const file = path.join(folder, 'seed.bim');
  const db = SnapshotDb.createEmpty(file, { rootSubject: { name: 'iModel' } });
  // Any value, so that the entry exists in the file. The ids of each iModel are written over it in place.
  nativeDbOf(db).setITwinId(Guid.createValue());
  nativeDbOf(db).saveChanges();
  db.close();
  const bytes = readFileSync(file);
  const packed = brotliCompressSync(bytes, {
    params: { [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length, [constants.BROTLI_PARAM_LGWIN]: 24 },
  });
  writeFileSync(new URL('../apps/server/assets/seed.bim.br', import.meta.url), packed);
  console.log(`seed: ${bytes.length} bytes, packed ${packed.length}`);
} finally {
  await IModelHost.shutdown();
  rmSync(folder, { recursive: true, force: true });
}
