import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { test } from 'node:test';
import { LockLevel, type LocksError } from '@itwin/imodels-client-authoring';
import { sql } from 'kysely';
import { raiseBriefcaseCounter } from '../apps/server/src/briefcases/counter.ts';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { Db } from '../apps/server/src/db/database.ts';
import { briefcaseNumbersMigration } from '../apps/server/src/db/migrations/0009-briefcase-numbers.ts';
import { rangesOf } from '../apps/server/src/db/statements/historyRanges.ts';
import type { WireError } from './support/api.ts';
import { all, makeIModel, pushMore, workFolder, type MadeIModel } from './support/clients.ts';
import type * as Scenario from './support/scenario.ts';
import { otherStore } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';

const west = 'West Europe';

/** The histories as lists of ranges over segments, in the table that earlier versions had. */
async function addEarlierHistories(db: Db): Promise<void> {
  await sql`create table history_segment (history_id text, first_index bigint, last_index bigint, segment_id text)`.execute(
    db,
  );
  for (const { id } of await db.selectFrom('history').select('id').execute())
    await sql`insert into history_segment select ${id}, h.first_index, h.last_index, h.segment_id
      from ${rangesOf(id, 1, Number.MAX_SAFE_INTEGER)} as h`.execute(db);
}

/**
 * What a derived iModel (clone, fork, iModel from a template) continues of its source: its history continues, so whatever must
 * be unique within a history continues too. The server makes no checkpoints here; the tests below use real iTwin.js.
 */
onEachDatabase(
  'Derived iModels continue their source',
  (setup) => ({ dataCenters: { [west]: otherStore(setup) } }),
  (context) => {
    const as = () => ({ authorization: context.olivia.authorization });
    const acquire = async (iModelId: string): Promise<number> =>
      (await context.olivia.client.briefcases.acquire({ ...as(), iModelId })).briefcaseId;
    const target = async (far: boolean): Promise<string> =>
      far ? context.server.iTwin('olivia', undefined, west) : context.iTwinId;

    type Derive = (sourceId: string, iTwinId: string) => Promise<{ id: string }>;
    const named = (iTwinId: string) => ({ iTwinId, name: randomUUID() });
    const kinds: Record<string, Derive> = {
      'a clone': (iModelId, iTwinId) =>
        context.olivia.client.iModels.clone({ ...as(), iModelId, iModelProperties: named(iTwinId) }),
      'a clone up to an earlier changeset': (iModelId, iTwinId) =>
        context.olivia.client.iModels.clone({
          ...as(),
          iModelId,
          iModelProperties: { ...named(iTwinId), changesetIndex: 1 },
        }),
      'a clone of the baseline': (iModelId, iTwinId) =>
        context.olivia.client.iModels.clone({
          ...as(),
          iModelId,
          iModelProperties: { ...named(iTwinId), changesetIndex: 0 },
        }),
      'a clone of a clone': async (iModelId, iTwinId) => {
        const first = await context.olivia.client.iModels.clone({
          ...as(),
          iModelId,
          iModelProperties: named(context.iTwinId),
        });
        return context.olivia.client.iModels.clone({ ...as(), iModelId: first.id, iModelProperties: named(iTwinId) });
      },
      'a fork with history': (iModelId, iTwinId) =>
        context.olivia.client.iModels.fork({
          ...as(),
          iModelId,
          iModelProperties: { ...named(iTwinId), preserveHistory: true },
        }),
      'an iModel from a template': (iModelId, iTwinId) =>
        context.olivia.client.iModels.createFromTemplate({
          ...as(),
          iModelProperties: { ...named(iTwinId), template: { iModelId } },
        }),
    };

    for (const [kind, derive] of Object.entries(kinds))
      test(`${kind}, in the same data center or another, never reissues a briefcase id of its source`, async () => {
        const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
        // Pushes by three briefcases, of which two are released; a fourth has not pushed yet.
        for (let n = 0; n < 2; n++) {
          source.briefcaseId = 0;
          await pushMore(context.olivia, source, 1);
          await context.olivia.client.briefcases.release({
            ...as(),
            iModelId: source.id,
            briefcaseId: source.briefcaseId,
          });
        }
        assert.equal(await acquire(source.id), 5);
        const made = await Promise.all([false, true].map(async (far) => derive(source.id, await target(far))));
        for (const { id } of made) {
          for (const briefcaseId of [2, 3, 4, 5]) {
            const { status, body } = await context.api.get(`/imodels/${id}/briefcases/${briefcaseId}`);
            assert.deepEqual([status, (body as WireError).error.code], [404, 'BriefcaseNotFound']);
          }
          assert.deepEqual(await all(context.olivia.client.briefcases.getMinimalList({ ...as(), iModelId: id })), []);
          assert.deepEqual([await acquire(id), await acquire(id)], [6, 7]);
        }
        // From here on they diverge.
        assert.equal(await acquire(source.id), 6);
      });

    for (const far of [false, true])
      test(`a briefcase behind the changesets that a clone${far ? ' in another data center' : ''} started with gets no lock until it has pulled them`, async () => {
        const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
        const lock = (
          iModelId: string,
          briefcaseId: number,
          changesetId: string | undefined,
          objectId: string,
          level = LockLevel.Exclusive,
        ) =>
          context.olivia.client.locks.update({
            ...as(),
            iModelId,
            briefcaseId,
            ...(changesetId !== undefined && { changesetId }),
            lockedObjects: [{ lockLevel: level, objectIds: [objectId] }],
          });
        const refused = (attempt: Promise<unknown>, objectIds: string[]) =>
          assert.rejects(attempt, (error: LocksError) => {
            assert.deepEqual([error.code, error.objectIds], ['NewerChangesExist', objectIds]);
            return true;
          });
        const [first, second] = source.changesets.map(({ id }) => id) as [string, string, string];
        // 0x11 was changed up to the second changeset.
        await lock(source.id, source.briefcaseId, second, '0x11');
        await lock(source.id, source.briefcaseId, second, '0x11', LockLevel.None);
        const behind = await acquire(source.id);
        await refused(lock(source.id, behind, first, '0x11'), ['0x11']);

        const iTwinId = await target(far);
        const earlier = { ...named(iTwinId), changesetIndex: 2 };
        const [clone, fork, template] = await Promise.all([
          context.olivia.client.iModels.clone({ ...as(), iModelId: source.id, iModelProperties: earlier }),
          context.olivia.client.iModels.fork({
            ...as(),
            iModelId: source.id,
            iModelProperties: { ...earlier, name: randomUUID(), preserveHistory: true },
          }),
          context.olivia.client.iModels.createFromTemplate({
            ...as(),
            iModelProperties: { ...named(iTwinId), template: { iModelId: source.id } },
          }),
        ]);
        const ofClone = await context.olivia.client.iModels.clone({
          ...as(),
          iModelId: clone.id,
          iModelProperties: named(iTwinId),
        });
        for (const { id } of [clone, ofClone, fork]) {
          const briefcaseId = await acquire(id);
          await refused(lock(id, briefcaseId, first, '0x11'), ['0x11']);
          await refused(lock(id, briefcaseId, first, '0x11', LockLevel.Shared), ['0x11']);
          await refused(lock(id, briefcaseId, '', '0x22'), ['0x22']);
          await refused(lock(id, briefcaseId, undefined, '0x22'), ['0x22']);
          assert.deepEqual((await lock(id, briefcaseId, second, '0x11')).lockedObjects, [
            { lockLevel: 'exclusive', objectIds: ['0x11'] },
          ]);
          // A release requires no pull.
          assert.deepEqual((await lock(id, briefcaseId, first, '0x11', LockLevel.None)).lockedObjects, []);
        }

        // From its own head at creation on, a clone knows what was changed and refuses no more than that.
        const continued: MadeIModel = {
          ...source,
          id: clone.id,
          briefcaseId: 0,
          changesets: source.changesets.slice(0, 2),
        };
        await pushMore(context.olivia, continued, 1);
        await lock(clone.id, continued.briefcaseId, continued.changesets[2]?.id, '0x33');
        await lock(clone.id, continued.briefcaseId, continued.changesets[2]?.id, '0x33', LockLevel.None);
        const atHead = await acquire(clone.id);
        await refused(lock(clone.id, atHead, second, '0x33'), ['0x33']);
        await lock(clone.id, atHead, second, '0x11');

        // An iModel that starts without changesets has none to pull.
        await lock(template.id, await acquire(template.id), '', '0x11');
      });

    test('a changeset that is pushed to a clone is later than those before it, whatever the clocks say', async () => {
      const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
      const { db } = context.server.services.database;
      // As if a server whose clock is an hour ahead had written the source.
      await db
        .updateTable('imodel')
        .set({ clock: Date.now() + 3_600_000 })
        .where('id', '=', source.id)
        .execute();
      await pushMore(context.olivia, source, 2);
      const clone = await context.olivia.client.iModels.clone({
        ...as(),
        iModelId: source.id,
        iModelProperties: { ...named(context.iTwinId), changesetIndex: 2 },
      });
      const continued: MadeIModel = {
        ...source,
        id: clone.id,
        briefcaseId: 0,
        changesets: source.changesets.slice(0, 2),
      };
      await pushMore(context.olivia, continued, 1);
      const times = (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: clone.id }))).map(
        ({ pushDateTime }) => Date.parse(pushDateTime as never),
      );
      assert.equal(times.length, 3);
      assert.deepEqual(
        times,
        [...new Set(times)].sort((a, b) => a - b),
      );
    });

    test('an upgrade raises the briefcase counters of existing derived iModels above every id that is known to be issued', async () => {
      const { client } = context.olivia;
      const make = async (briefcases: number): Promise<MadeIModel> => {
        const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
        for (let n = 1; n < briefcases; n++) await acquire(made.id);
        return made;
      };
      const derive = async (kind: keyof typeof kinds, sourceId: string): Promise<string> =>
        ((await kinds[kind]?.(sourceId, context.iTwinId)) ?? assert.fail()).id;
      const [kept, gone, lone] = [await make(4), await make(3), await make(2)];
      const ofKept = [
        await derive('a clone', kept.id),
        await derive('a fork with history', kept.id),
        await derive('an iModel from a template', kept.id),
        await derive('a clone of the baseline', kept.id),
      ];
      const between = await derive('a clone', kept.id);
      ofKept.push(await derive('a clone', between));
      // Of a deleted source, only its changesets are left as evidence.
      const ofGone = [await derive('a clone', gone.id), await derive('a clone', gone.id)];
      for (const iModelId of [between, gone.id]) await client.iModels.delete({ ...as(), iModelId });
      await context.server.services.collector.runOnce();

      const { database } = context.server.services;
      const derived = [...ofKept, ...ofGone];
      await sql`alter table imodel drop column inherited_index`.execute(database.db);
      await database.db.updateTable('imodel').set({ next_briefcase_id: 2 }).where('id', 'in', derived).execute();
      await addEarlierHistories(database.db);
      await database.db.transaction().execute((tx) => briefcaseNumbersMigration(context.engine).up(tx));
      await sql`drop table history_segment`.execute(database.db);

      const rows = await database.db
        .selectFrom('imodel')
        .select(['id', 'next_briefcase_id', 'inherited_index'])
        .where('id', 'in', [...derived, kept.id, lone.id])
        .execute();
      const after = new Map(rows.map((row) => [row.id, row]));
      const countersOf = (ids: readonly string[]) => ids.map((id) => after.get(id)?.next_briefcase_id);
      assert.deepEqual(countersOf(ofKept), [6, 6, 6, 6, 6]);
      assert.deepEqual(countersOf(ofGone), [3, 3]);
      assert.deepEqual(countersOf([kept.id, lone.id]), [6, 4]);
      assert.deepEqual(
        [...ofKept, ...ofGone, kept.id].map((id) => after.get(id)?.inherited_index),
        [1, 1, 0, 0, 1, 1, 1, 0],
      );
      assert.equal(await acquire(ofKept[2] as string), 6);
    });

    test('briefcase ids end where those that iTwin.js reserves begin', async () => {
      const { id } = await makeIModel(context.olivia, context.iTwinId);
      const { db } = context.server.services.database;
      const raise = (atLeast: number) => db.transaction().execute((tx) => raiseBriefcaseCounter(tx, id, atLeast));
      await raise(100);
      assert.equal(await acquire(id), 100);
      await raise(50);
      assert.equal(await acquire(id), 101);
      await raise(2 ** 24 - 11);
      assert.equal(await acquire(id), 2 ** 24 - 11);
      await raise(2 ** 40);
      const { status, body } = await context.api.post(`/imodels/${id}/briefcases`, {});
      assert.deepEqual(
        [status, (body as WireError).error.code, (body as WireError).error.details?.[0]?.code],
        [422, 'InvalidiModelsRequest', 'ResourceQuotaExceeded'],
      );
    });
  },
);

/** iTwin.js is optional: without its native library, only the counters can be compared. */
const scenario: typeof Scenario | undefined = isITwinJsInstalled() ? await import('./support/scenario.ts') : undefined;

onEachDatabase(
  'Elements in derived iModels',
  (setup) => ({ checkpoints: { generate: 'auto', delaySeconds: 0.2 }, dataCenters: { [west]: otherStore(setup) } }),
  (context) => {
    test(
      'that iTwin.js inserts after inherited changesets have unique ids and survive the pull',
      { skip: scenario === undefined ? 'iTwin.js is not installed' : false },
      async () => {
        const work = workFolder();
        try {
          await scenario?.runScenario({
            part: 'numbering',
            folder: path.join(work.path, 'numbering'),
            origin: context.server.origin,
            token: await context.server.token('olivia'),
            iTwinId: context.iTwinId,
            otherITwinId: await context.server.iTwin('olivia', undefined, west),
            notes: path.join(work.path, 'notes.json'),
          });
        } finally {
          work.remove();
        }
      },
    );
  },
);
