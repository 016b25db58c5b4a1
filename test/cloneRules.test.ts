/**
 * The rules of the clone operation. Each has exactly one line `// Clone rule: …` in the source, where the code enforces it, and
 * one test here that has its name, so that `grep -rn "Clone rule" apps/server/src` lists the whole operation.
 */
import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { sql } from 'kysely';
import { orphanRules } from '../apps/server/src/collector/orphans.ts';
import { transferCheckpointsJob } from '../apps/server/src/transfer/begin.ts';
import type { Answer } from './support/api.ts';
import { makeIModel, pushMore, type MadeIModel } from './support/clients.ts';
import { otherStore, people } from './support/server.ts';
import { onEachStore, type Context } from './support/suite.ts';
import { until } from './support/until.ts';

const source = path.join(import.meta.dirname, '../apps/server/src');
const west = 'West Europe';
const extent = { southWest: { latitude: 1, longitude: 2 }, northEast: { latitude: 3, longitude: 4 } };

/** Every rule, with the test that proves it. */
const rules: Record<string, (context: Context) => Promise<void>> = {
  'the source is the iModel in the URL': async (context) => {
    const [one, other] = [await make(context, 1), await make(context, 2)];
    assert.deepEqual(await changesetIds(context, await clone(context, one)), idsOf(one));
    assert.deepEqual(await changesetIds(context, await clone(context, other)), idsOf(other));
    assert.equal((await post(context, { id: randomUUID() }, {})).status, 404);
  },

  'the target is the iTwin in the body': async (context) => {
    const made = await make(context);
    const iTwinId = await context.server.iTwin();
    assert.equal((await read(context, await clone(context, made, { iTwinId }))).iTwinId, iTwinId);
    const answer = await context.api.post(`/imodels/${made.id}/clone`, { name: 'without a target' });
    assert.equal(answer.status, 422);
  },

  'nothing is synchronized afterwards': async (context) => {
    const made = await make(context, 1);
    const id = await clone(context, made);
    const before = idsOf(made);
    await pushMore(context.olivia, made, 1);
    await context.api.patch(`/imodels/${made.id}`, { description: 'changed after the clone' });
    assert.deepEqual(await changesetIds(context, id), before);
    assert.equal((await read(context, id)).description, 'the source');
    const continued: MadeIModel = { ...made, id, briefcaseId: 0, changesets: made.changesets.slice(0, 1) };
    await pushMore(context.olivia, continued, 1);
    assert.deepEqual(await changesetIds(context, made.id), idsOf(made));
  },

  'the clone survives the deletion of its source': async (context) => {
    const made = await make(context, 2);
    const id = await clone(context, made);
    assert.equal((await context.api.delete(`/imodels/${made.id}`)).status, 204);
    await context.server.services.collector.runOnce();
    assert.deepEqual(await changesetFiles(context, id), hashesOf(made));
  },

  "name and description default to the source's": async (context) => {
    const made = await make(context);
    const inherited = await read(context, await clone(context, made, { name: undefined }));
    assert.deepEqual([inherited.name, inherited.description], [made.name, 'the source']);
    const given = await read(context, await clone(context, made, { name: 'given name', description: 'given' }));
    assert.deepEqual([given.name, given.description], ['given name', 'given']);
  },

  "the extent is the source's": async (context) => {
    const made = await make(context);
    await context.api.patch(`/imodels/${made.id}`, { extent });
    assert.deepEqual((await read(context, await clone(context, made))).extent, extent);
  },

  'the baseline is always included': async (context) => {
    const made = await make(context, 1);
    for (const body of [{}, { changesetIndex: 0 }]) {
      const id = await clone(context, made, body);
      const { db } = context.server.services.database;
      const rows = await db.selectFrom('imodel').select('baseline_id').where('id', 'in', [made.id, id]).execute();
      assert.equal(new Set(rows.map(({ baseline_id }) => baseline_id)).size, 1);
    }
  },

  'changesets are included up to the chosen one, all by default': async (context) => {
    const made = await make(context, 3);
    assert.deepEqual(await changesetIds(context, await clone(context, made)), idsOf(made));
    const cuts = [{ changesetIndex: 2 }, { changesetId: made.changesets[1]?.id }];
    for (const cut of cuts)
      assert.deepEqual(await changesetIds(context, await clone(context, made, cut)), idsOf(made).slice(0, 2));
    for (const baselineOnly of [{ changesetIndex: 0 }, { changesetId: '' }])
      assert.deepEqual(await changesetIds(context, await clone(context, made, baselineOnly)), []);
  },

  'nothing else of the source is copied': async (context) => {
    const made = await make(context, 1);
    const { api } = context;
    const changesetId = made.changesets[0]?.id;
    const answers = [
      await api.post(`/imodels/${made.id}/namedversions`, { name: 'a version', changesetId }),
      await api.post(`/imodels/${made.id}/changesetgroups`, { description: 'a group' }),
      await api.post(`/imodels/${made.id}/changesets/1/extendeddata`, { data: 'e30=' }),
      await api.put(`/imodels/${made.id}/userpermissions`, {
        userPermissions: [{ userId: people.olivia.id, permissions: ['imodels_manage'] }],
      }),
    ];
    assert.deepEqual(
      answers.map(({ status }) => status < 300),
      [true, true, true, true],
    );
    const tables = ['briefcase', 'changeset_group', 'extended_data', 'imodel_user', 'named_version', 'operation'];
    const ofSource = await tablesWithRowsOf(context, made.id);
    assert.deepEqual(
      tables.filter((table) => !ofSource.includes(table)),
      [],
    );
    assert.deepEqual(await tablesWithRowsOf(context, await clone(context, made)), ['audit', 'operation']);
  },

  'the operation is asynchronous: 202 with Location and Create-iModel-Operation': async (context) => {
    const answer = await post(context, await make(context), {});
    assert.deepEqual([answer.status, answer.body], [202, undefined]);
    const { headers } = answer;
    const operation = headers.get('create-imodel-operation') ?? '';
    assert.equal(operation, `${headers.get('location')}/operations/create`);
    assert.equal((await context.api.get(operation)).status, 200);
  },

  'the iModel may become initialized before its create operation is successful': async (context) => {
    await whileCheckpointsWait(context, async (id) => {
      assert.equal((await read(context, id)).state, 'initialized');
      assert.equal(await operationState(context, id), 'scheduled');
    });
  },

  'critical data is copied first': async (context) => {
    await whileCheckpointsWait(context, async (id, made) => {
      assert.equal(await operationState(context, id), 'scheduled');
      assert.deepEqual(await changesetFiles(context, id), hashesOf(made));
      const { db } = context.server.services.database;
      const { store } = await db
        .selectFrom('imodel as m')
        .innerJoin('baseline as l', 'l.id', 'm.baseline_id')
        .innerJoin('blob as b', 'b.id', 'l.blob_id')
        .select('b.store')
        .where('m.id', '=', id)
        .executeTakeFirstOrThrow();
      assert.equal(store, context.server.services.blobs.stores.ofDataCenter(west).id);
    });
  },

  'the caller manages the iTwin of the source': async (context) => {
    assert.equal(await statusFor(context, 'imodels_write', 'imodels_manage'), 403);
    assert.equal(await statusFor(context, 'imodels_manage', 'imodels_manage'), 202);
  },

  'the caller manages the target iTwin': async (context) => {
    assert.equal(await statusFor(context, 'imodels_manage', 'imodels_write'), 403);
    assert.equal(await statusFor(context, 'imodels_manage', 'imodels_manage'), 202);
  },

  'an iModel with permissions of its own must give the caller at least webview': async (context) => {
    const own = async (who: 'olivia' | 'max', permission: string) => (made: MadeIModel) =>
      context.api.put(`/imodels/${made.id}/userpermissions`, {
        userPermissions: [{ userId: people[who].id, permissions: [permission] }],
      });
    const others = await own('olivia', 'imodels_manage');
    const max = await own('max', 'imodels_webview');
    assert.equal(await statusFor(context, 'imodels_manage', 'imodels_manage', others), 403);
    assert.equal(await statusFor(context, 'imodels_manage', 'imodels_manage', max), 202);
  },

  'an Organization Administrator of both organizations may clone between their iTwins': async (context) => {
    const made = await make(context);
    const iTwinId = await context.server.iTwin('eve');
    for (const [who, status] of [
      ['admin', 404],
      ['foreignAdmin', 404],
      ['consultant', 202],
    ] as const) {
      const api = await context.server.as(who);
      assert.equal((await api.post(`/imodels/${made.id}/clone`, { iTwinId })).status, status, who);
    }
  },

  '5 requests a minute in the lowest tier, 20 in the others': async (context) => {
    const made = await make(context);
    for (const [application, allowed] of [
      ['trial-app', 5],
      ['basic-app', 20],
      ['premium-app', 20],
      ['enterprise-app', 20],
    ] as const) {
      const statuses: number[] = [];
      for (let n = 0; n <= allowed; n++) statuses.push((await post(context, made, {}, application)).status);
      assert.deepEqual(statuses, [...Array<number>(allowed).fill(202), 429], application);
    }
  },

  'a request above the rate limit gets 429 with Retry-After': async (context) => {
    const made = await make(context);
    let answer = await post(context, made, {}, 'trial-app');
    for (let n = 0; n < 5 && answer.status === 202; n++) answer = await post(context, made, {}, 'trial-app');
    assert.equal(answer.status, 429);
    const retryAfter = Number(answer.headers.get('retry-after'));
    assert.ok(Number.isInteger(retryAfter) && retryAfter >= 1 && retryAfter <= 60, `Retry-After: ${retryAfter}`);
  },
};

/** The rules that the comments in the source state. */
function rulesInSource(): string[] {
  return globSync('**/*.ts', { cwd: source }).flatMap((file) =>
    [...readFileSync(path.join(source, file), 'utf8').matchAll(/Clone rule: (.*)\.$/gm)].map(([, rule]) => rule ?? ''),
  );
}

describe('The comments in the source', () => {
  test('state each rule of the clone operation exactly once, and no other', () => {
    assert.deepEqual(rulesInSource().toSorted(), Object.keys(rules).toSorted());
  });
});

onEachStore(
  'A clone',
  (setup) => ({ dataCenters: { [west]: otherStore(setup) } }),
  (context) => {
    for (const [rule, prove] of Object.entries(rules)) test(`Clone rule: ${rule}`, () => prove(context));
  },
);

function make({ olivia, iTwinId }: Context, changesets = 0): Promise<MadeIModel> {
  return makeIModel(olivia, iTwinId, { changesets, description: 'the source' });
}

/** Requests a clone into another iTwin than the source's. */
async function post(
  { server }: Context,
  { id }: { id: string },
  body: Record<string, unknown>,
  application?: string,
): Promise<Answer> {
  const api = await server.as('olivia', application);
  return api.post(`/imodels/${id}/clone`, { iTwinId: await server.iTwin(), name: randomUUID(), ...body });
}

/** Clones an iModel. @returns the id of the clone */
async function clone(context: Context, made: MadeIModel, body: Record<string, unknown> = {}): Promise<string> {
  const answer = await post(context, made, body);
  assert.equal(answer.status, 202, JSON.stringify(answer.body));
  return (answer.headers.get('location') ?? '').slice(-36);
}

interface ReadIModel {
  iTwinId: string;
  name: string;
  description: string | null;
  state: string;
  extent: unknown;
}

async function read({ api }: Context, id: string): Promise<ReadIModel> {
  return ((await api.get(`/imodels/${id}`)).body as { iModel: ReadIModel }).iModel;
}

async function operationState({ api }: Context, id: string): Promise<string> {
  const { body } = await api.get(`/imodels/${id}/operations/create`);
  return (body as { createOperation: { state: string } }).createOperation.state;
}

interface ListedChangeset {
  id: string;
  _links: { download: { href: string } };
}

async function listChangesets({ api }: Context, id: string): Promise<ListedChangeset[]> {
  const { body } = await api.get(`/imodels/${id}/changesets`, { prefer: 'return=representation' });
  return (body as { changesets: ListedChangeset[] }).changesets;
}

async function changesetIds(context: Context, id: string): Promise<string[]> {
  return (await listChangesets(context, id)).map((changeset) => changeset.id);
}

/** Hashes of the changeset files of an iModel, downloaded. */
async function changesetFiles(context: Context, id: string): Promise<string[]> {
  return Promise.all(
    (await listChangesets(context, id)).map(async ({ _links }) =>
      hashOf(new Uint8Array(await (await fetch(_links.download.href)).arrayBuffer())),
    ),
  );
}

const hashOf = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex');
const hashesOf = ({ changesets }: MadeIModel): string[] => changesets.map(({ bytes }) => hashOf(bytes));
const idsOf = ({ changesets }: MadeIModel): string[] => changesets.map(({ id }) => id);

/** The tables with rows that belong to an iModel. */
async function tablesWithRowsOf({ server }: Context, id: string): Promise<string[]> {
  const { db } = server.services.database;
  const found: string[] = [];
  for (const { name, columns } of await db.introspection.getTables()) {
    if (!(name in orphanRules) || !columns.some((column) => column.name === 'imodel_id')) continue;
    const { rows } = await sql`select 1 from ${sql.table(name)} where imodel_id = ${id} limit 1`.execute(db);
    if (rows.length > 0) found.push(name);
  }
  return found.toSorted();
}

/** The answer to Max, who holds one permission on each of the two iTwins. */
async function statusFor(
  { server, olivia }: Context,
  onSource: 'imodels_write' | 'imodels_manage',
  onTarget: typeof onSource,
  prepare?: (made: MadeIModel) => Promise<unknown>,
): Promise<number> {
  const [from, to] = [await server.iTwin(), await server.iTwin()];
  const made = await makeIModel(olivia, from);
  await server.grant(from, 'max', [onSource]);
  await server.grant(to, 'max', [onTarget]);
  await prepare?.(made);
  return (await (await server.as('max')).post(`/imodels/${made.id}/clone`, { iTwinId: to })).status;
}

/** Clones into another data center and holds the job that copies the other checkpoints, until `check` has ended. */
async function whileCheckpointsWait(
  context: Context,
  check: (id: string, made: MadeIModel) => Promise<void>,
): Promise<void> {
  const { db } = context.server.services.database;
  const hour = 3_600_000;
  const statements =
    context.engine === 'sqlite'
      ? {
          hold: [
            `create trigger hold after insert on job when new.kind = '${transferCheckpointsJob}'
             begin update job set run_at = run_at + ${hour}, wait_ms = ${hour} where id = new.id; end`,
          ],
          release: ['drop trigger hold'],
        }
      : {
          hold: [
            `create function hold() returns trigger language plpgsql as
             $$ begin new.run_at := new.run_at + ${hour}; new.wait_ms := ${hour}; return new; end $$`,
            `create trigger hold before insert on job for each row when (new.kind = '${transferCheckpointsJob}')
             execute function hold()`,
          ],
          release: ['drop trigger hold on job', 'drop function hold'],
        };
  for (const statement of statements.hold) await sql.raw(statement).execute(db);
  try {
    const made = await make(context, 2);
    const id = await clone(context, made, { iTwinId: await context.server.iTwin('olivia', undefined, west) });
    const initialized = async () => ((await read(context, id)).state === 'initialized' ? true : undefined);
    await until('the initialized clone', initialized);
    await check(id, made);
    await db
      .updateTable('job')
      .set({ run_at: 0, wait_ms: 0 })
      .where('kind', '=', transferCheckpointsJob)
      .where('subject_id', '=', id)
      .execute();
    await until('the end of the operation', async () =>
      (await operationState(context, id)) === 'successful' ? true : undefined,
    );
  } finally {
    for (const statement of statements.release) await sql.raw(statement).execute(db);
  }
}
