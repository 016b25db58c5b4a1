import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { ensureFirstITwin } from '../apps/server/src/wiring/firstITwin.ts';
import { bootServer, endServer, engines } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));

for (const engine of engines) {
  test(`servers on ${engine} that start concurrently on a new installation create one first iTwin and all start`, async () => {
    const server = await bootServer(engine);
    try {
      const { services } = server.running;
      const firsts = await Promise.all(Array.from({ length: 6 }, () => ensureFirstITwin(services)));
      assert.equal(new Set(firsts.map((first) => first?.id)).size, 1);
      assert.equal((await services.database.db.selectFrom('itwin').select('id').execute()).length, 1);
    } finally {
      await endServer(server);
    }
  });
}

describe('A start that fails after the server listens', () => {
  test('ends the process and reports the reason', { timeout: 120_000 }, async () => {
    const server = await bootServer('sqlite');
    await server.close();
    try {
      const data = server.installation.dataDir;
      const database = new DatabaseSync(path.join(data, 'offshoot.db'));
      database.exec(
        "create trigger no_first before insert on itwin begin select raise(abort, 'the disk says no'); end",
      );
      database.close();
      const ended = await new Promise<{ code: number | null; stderr: string }>((resolve) => {
        const child = execFile(
          process.execPath,
          [cli, 'start', '--data', data, '--host', '127.0.0.1', '--port', '0'],
          { timeout: 60_000 },
          (_error, _stdout, stderr) => resolve({ code: child.exitCode, stderr }),
        );
      });
      assert.deepEqual([ended.code, ended.stderr.includes('the disk says no')], [1, true], ended.stderr);
    } finally {
      server.installation.remove();
    }
  });
});
