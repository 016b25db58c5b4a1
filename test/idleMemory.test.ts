import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { freePageCaches, openConnection } from '../apps/server/src/db/sqlite/connection.ts';
import { IdleMemory } from '../apps/server/src/wiring/idleMemory.ts';

const launcher = fileURLToPath(new URL('../apps/server/bin/offshoot.cjs', import.meta.url));

describe('Memory after load', () => {
  let folder: string;
  before(() => (folder = mkdtempSync(path.join(tmpdir(), 'offshoot-test-'))));
  after(() => rmSync(folder, { recursive: true, force: true }));

  function idleMemory(workedMs: number) {
    const state = { busyMs: workedMs, freed: 0 };
    const memory = new IdleMemory({ busyMs: () => state.busyMs, free: () => void state.freed++ });
    const look = (workMs: number): number => {
      state.busyMs += workMs;
      memory.look();
      return state.freed;
    };
    return { state, look };
  }

  test('nothing is freed while requests come in', () => {
    const { look } = idleMemory(1000);
    for (let n = 0; n < 100; n++) assert.equal(look(n % 2 === 0 ? 4000 : 10), 0);
  });

  test('memory is freed once after each load', () => {
    const { look } = idleMemory(0);
    for (let load = 1; load <= 3; load++) {
      assert.equal(look(4000), load - 1);
      assert.equal(look(10), load - 1);
      assert.equal(look(10), load);
      for (let n = 0; n < 10; n++) assert.equal(look(10), load);
    }
  });

  test('the work of freeing memory is no load', () => {
    let busyMs = 1000;
    let freed = 0;
    const memory = new IdleMemory({
      busyMs: () => busyMs,
      free: () => {
        freed++;
        busyMs += 1000;
      },
    });
    for (let n = 0; n < 10; n++) memory.look();
    assert.equal(freed, 1);
  });

  test('the page cache of each connection of the main thread is bounded', () => {
    const file = path.join(folder, 'bounded.db');
    const uses = ['groupWriter', 'nonDurable', 'reader'] as const;
    const connections = uses.map((use) => openConnection(file, use));
    try {
      for (const [n, use] of uses.entries()) {
        const [row] = connections[n]?.execute('pragma cache_size', []).rows as [{ cache_size: number }];
        // Negative: KiB.
        assert.ok(row.cache_size < 0 && row.cache_size >= -16_384, `${use}: ${row.cache_size}`);
      }
    } finally {
      for (const connection of connections) connection.close();
    }
  });

  test('freeing the page caches leaves connections and open transactions usable', () => {
    const file = path.join(folder, 'freed.db');
    const writer = openConnection(file, 'groupWriter');
    const closed = openConnection(file, 'reader');
    closed.close();
    try {
      writer.execute('create table t (n integer)', []);
      writer.execute('begin immediate', []);
      writer.execute('insert into t values (?)', [1]);
      freePageCaches();
      assert.equal(writer.inTransaction, true);
      writer.execute('commit', []);
      assert.deepEqual(writer.execute('select n from t', []).rows, [{ n: 1 }]);
    } finally {
      writer.close();
    }
  });

  test('a server frees memory when its start is over', { timeout: 180_000 }, async () => {
    const child = spawn(
      process.execPath,
      [launcher, 'start', '--data', path.join(folder, 'data'), '--host', '127.0.0.1', '--port', '0'],
      { env: { ...process.env, OFFSHOOT_LOG_LEVEL: 'debug' }, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    try {
      let found = false;
      for await (const line of createInterface({ input: child.stdout }))
        if ((found = line.includes('freed memory after a load'))) break;
      assert.ok(found, 'the server ended before it freed memory');
    } finally {
      child.kill('SIGTERM');
      await ended;
    }
  });
});
