import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { databaseFile, openDatabase } from '../apps/server/src/db/database.ts';
import { readAudit } from '../apps/server/src/access/audit.ts';
import { Installation, engines, people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const dayMs = 24 * 3600 * 1000;

function offshoot(args: readonly string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  return new Promise((resolve) => {
    const child = execFile(process.execPath, [cli, ...args], { maxBuffer: 2 ** 26 }, (_error, stdout, stderr) =>
      resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}

const entry = (at: number, more: { action?: string; itwin_id?: string; imodel_id?: string; detail?: string } = {}) => ({
  id: randomUUID(),
  at,
  actor_id: people.olivia.id,
  application_id: 'suite',
  action: 'iModel.update',
  itwin_id: 'some-itwin',
  imodel_id: null,
  detail: '{}',
  ...more,
});

onEachDatabase('The audit log', { audit: { keepDays: 10 } }, (context) => {
  test('keeps its entries for the configured time and no longer', async () => {
    const { db } = context.server.services.database;
    const now = Date.now();
    // More entries than one step removes.
    const old = Array.from({ length: 2500 }, (_, n) => entry(now - 10 * dayMs - 1000 - n));
    for (let from = 0; from < old.length; from += 500)
      await db
        .insertInto('audit')
        .values(old.slice(from, from + 500))
        .execute();
    const young = entry(now - 10 * dayMs + 60_000, { action: 'young' });
    await db.insertInto('audit').values(young).execute();
    await context.server.services.collector.runOnce();
    const left = await db
      .selectFrom('audit')
      .select('id')
      .where('at', '<', now - 9 * dayMs)
      .execute();
    assert.deepEqual(
      left.map(({ id }) => id),
      [young.id],
    );
  });

  test('is read in chronological order, with each filter, over any number of entries', async () => {
    const { db } = context.server.services.database;
    const base = Date.UTC(2020, 0, 1);
    const many = Array.from({ length: 2100 }, (_, n) =>
      entry(base + Math.floor(n / 3), {
        action: n % 2 === 0 ? 'iModel.update' : 'iModels.other',
        imodel_id: `m${n % 5}`,
      }),
    );
    for (let from = 0; from < many.length; from += 500)
      await db
        .insertInto('audit')
        .values(many.slice(from, from + 500))
        .execute();
    const read = async (filter: Parameters<typeof readAudit>[1]) => {
      const found = [];
      for await (const each of readAudit(db, { until: base + 10_000, ...filter })) found.push(each);
      return found;
    };
    const all = await read({ since: base });
    assert.deepEqual(all.map(({ id }) => id).sort(), many.map(({ id }) => id).sort());
    assert.ok(all.every(({ at }, n) => n === 0 || at >= (all[n - 1]?.at ?? 0)));
    assert.ok(all.every(({ actor_email }) => actor_email === people.olivia.email));
    assert.equal((await read({ since: base, action: 'iModel.' })).length, 1050);
    assert.equal((await read({ since: base, action: 'iModel.update' })).length, 1050);
    assert.equal((await read({ since: base, action: 'iModel' })).length, 0);
    assert.equal((await read({ since: base, iModelId: 'm1' })).length, 420);
    assert.equal((await read({ since: base, until: base + 10 })).length, 30);
    assert.equal((await read({ since: base, actorId: 'somebody else' })).length, 0);
  });
});

for (const engine of engines) {
  test(`offshoot audit prints the log on ${engine} beside a running server, without terminal control characters`, async () => {
    const installation = await Installation.create(engine);
    const server = await installation.start();
    try {
      const iTwinId = await server.iTwin();
      const api = await server.as('olivia');
      const { iModel } = (await api.post('/imodels', { iTwinId, name: 'plain' })).body as { iModel: { id: string } };
      await server.services.database.db
        .insertInto('audit')
        .values(entry(Date.now(), { itwin_id: iTwinId, imodel_id: iModel.id, detail: '{"name":"\u009b2J\u202eevil"}' }))
        .execute();
      const where = [
        '--data',
        installation.dataDir,
        ...(installation.databaseUrl === undefined ? [] : ['--config', configFile(installation)]),
      ];
      const lines = await offshoot(['audit', ...where, '--itwin', iTwinId]);
      assert.equal(lines.code, 0, lines.stderr);
      assert.deepEqual(
        lines.stdout
          .trim()
          .split('\n')
          .map((line) => line.split(/ +/)[1]),
        ['iTwin.create', 'iModel.create', 'iModel.update'],
      );
      assert.doesNotMatch(lines.stdout, /[\u0080-\u009f\u202e]/);
      assert.match(lines.stdout, /evil/);
      const json = await offshoot([
        'audit',
        ...where,
        '--actor',
        people.olivia.email,
        '--imodel',
        iModel.id.toUpperCase(),
        '--since',
        '1d',
        '--action',
        'iModel.create',
        '--json',
      ]);
      const [only, ...others] = json.stdout
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line) as { action: string; actor: { email: string }; iModelId: string });
      assert.deepEqual(
        [only?.action, only?.actor.email, only?.iModelId, others.length],
        ['iModel.create', people.olivia.email, iModel.id, 0],
      );
      const ofName = await offshoot(['audit', ...where, '--imodel', 'plain', '--json']);
      assert.equal(ofName.stdout.trim().split('\n').length, 2, ofName.stderr);
      const unknown = await offshoot(['audit', ...where, '--itwin', 'No such iTwin']);
      assert.deepEqual([unknown.code, unknown.stderr.includes("no iTwin is named 'No such iTwin'")], [3, true]);
      const other = (await api.post('/imodels', { iTwinId: await server.iTwin(), name: 'plain' })).body as {
        iModel: { id: string };
      };
      const several = await offshoot(['audit', ...where, '--imodel', 'plain']);
      assert.equal(several.code, 2);
      for (const { id } of [iModel, other.iModel]) assert.match(several.stderr, new RegExp(`${id}  in iTwin`));
      const narrowed = await offshoot(['audit', ...where, '--imodel', 'plain', '--itwin', iTwinId, '--json']);
      assert.equal(narrowed.stdout.trim().split('\n').length, 2, narrowed.stderr);
      assert.equal((await offshoot(['audit', ...where, '--until', '2000-01-01'])).stdout, '');
      assert.equal((await offshoot(['audit', ...where, '--since', 'yesterday'])).code, 2);
    } finally {
      await server.close();
      installation.remove();
    }
  });
}

function configFile(installation: Installation): string {
  const file = path.join(installation.dataDir, 'audit.json');
  writeFileSync(file, JSON.stringify({ databaseUrl: installation.databaseUrl }));
  return file;
}

/** Fills the database with rows and deletes them again, so that most of its pages are free. */
async function freePages(installation: Installation): Promise<void> {
  const database = await openDatabase(installation.config());
  const value = 'x'.repeat(10_000);
  for (let n = 0; n < 20; n++)
    await database.db
      .insertInto('secret')
      .values(Array.from({ length: 100 }, () => ({ name: `gap ${randomUUID()}`, value })))
      .execute();
  await database.db.deleteFrom('secret').where('name', 'like', 'gap %').execute();
  await database.close();
}

const sizeOf = (installation: Installation) => statSync(path.join(installation.dataDir, databaseFile)).size;

test('the embedded database returns the space of deleted rows', async () => {
  const installation = await Installation.create('sqlite');
  try {
    await freePages(installation);
    const before = sizeOf(installation);
    const server = await installation.start();
    await server.services.collector.runOnce();
    await server.close();
    assert.ok(before > 20e6 && sizeOf(installation) < before / 3, `${before} ${sizeOf(installation)}`);
  } finally {
    installation.remove();
  }
});

/** Creates the database as versions did that returned no space. */
function disableAutoVacuum(installation: Installation): void {
  const database = new DatabaseSync(path.join(installation.dataDir, databaseFile));
  database.exec('pragma auto_vacuum = none; vacuum');
  database.close();
}

test('the database of an earlier version returns space after its next start', async () => {
  const installation = await Installation.create('sqlite');
  try {
    await (await openDatabase(installation.config())).close();
    disableAutoVacuum(installation);
    await freePages(installation);
    const before = sizeOf(installation);
    const server = await installation.start();
    await server.services.collector.runOnce();
    await server.close();
    assert.ok(sizeOf(installation) < before / 3, `${before} ${sizeOf(installation)}`);
  } finally {
    installation.remove();
  }
});

test('offshoot compact rewrites the embedded database, and refuses while a server runs', async () => {
  const installation = await Installation.create('sqlite');
  try {
    await freePages(installation);
    const before = sizeOf(installation);
    const server = await installation.start();
    const iTwinId = await server.iTwin();
    const refused = await offshoot(['compact', '--data', installation.dataDir]);
    assert.deepEqual([refused.code, refused.stderr.includes('Another server runs')], [2, true]);
    await server.close();
    const done = await offshoot(['compact', '--data', installation.dataDir, '--json']);
    assert.equal(done.code, 0, done.stderr);
    assert.ok((JSON.parse(done.stdout) as { after: number }).after < before / 3);
    const again = await installation.start();
    assert.equal((await (await again.as('olivia')).get(`/itwins/${iTwinId}`)).status, 200);
    await again.close();
  } finally {
    installation.remove();
  }
});
