import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { sql } from 'kysely';
import pino from 'pino';
import { Checkpoints } from '../apps/server/src/checkpoints/checkpoints.ts';
import { GraphicsSchedule } from '../apps/server/src/graphics/rows.ts';
import { usersAtOnce, waitingJobs } from '../apps/server/src/db/statements/waitingJobs.ts';
import { Jobs } from '../apps/server/src/operations/jobs.ts';
import { WaitingUsers } from '../apps/server/src/operations/waitingUsers.ts';
import { makeIModel, official } from './support/clients.ts';
import { fullScans, naming, Planner, statementsOf, type Statement } from './support/plans.ts';
import { bootServer, endServer, engines, people, type TestServer } from './support/server.ts';

for (const engine of engines) {
  describe(`Work in the background of a server, on ${engine}`, () => {
    let server: TestServer;
    let planner: Planner;
    before(async () => {
      server = await bootServer(engine);
      planner = new Planner(server);
    });
    after(() => endServer(server));

    const db = () => server.services.database.db;
    const catchUp = (signal = new AbortController().signal) =>
      new Checkpoints(server.services.database, {
        enabled: true,
        every: 0,
        delayMs: 3_600_000,
        graphics: new GraphicsSchedule(false),
      }).catchUp(signal);

    /** Copies of an iModel that share its history, each with a named version of the first two changesets. */
    async function addCopies(iModelId: string, count: number): Promise<void> {
      const ids = Array.from({ length: count }, () => randomUUID());
      const source = await db().selectFrom('imodel').selectAll().where('id', '=', iModelId).executeTakeFirstOrThrow();
      await db()
        .insertInto('imodel')
        .values(ids.map((id) => ({ ...source, id, name: id, name_order: id })))
        .execute();
      const versions = ids.flatMap((id) => [1, 2].map((index) => ({ id, index })));
      await db()
        .insertInto('named_version')
        .values(
          versions.map(({ id, index }) => ({
            id: randomUUID(),
            imodel_id: id,
            name: `version ${index}`,
            search_text: '',
            description: null,
            changeset_index: index,
            changeset_id: String(index),
            state: 'visible' as const,
            creator_id: people.olivia.id,
            application_id: 'test',
            application_name: 'test',
            created_at: 0,
          })),
        )
        .execute();
    }

    test('the look for missing checkpoints finds each once, in steps by seeks, and lets requests be answered', async () => {
      const made = await makeIModel(await official(server), await server.iTwin(), { changesets: 3 });
      await addCopies(made.id, 120);
      const checkpoints = () =>
        db().selectFrom('checkpoint').select(['changeset_index', 'state']).orderBy('changeset_index').execute();
      // The server made one of the empty baseline.
      await db().deleteFrom('checkpoint').execute();
      // Of the baseline and of the two named changesets, which all copies share.
      assert.equal(await catchUp(), 3);
      assert.deepEqual(
        (await checkpoints()).map(({ changeset_index }) => changeset_index),
        [0, 1, 2],
      );

      let turns = 0;
      let ended = false;
      const statements = await statementsOf(async () => {
        const looking = catchUp().finally(() => (ended = true));
        while (!ended) {
          await turn();
          turns++;
        }
        assert.equal(await looking, 0);
      });
      const versions = naming(statements, 'from named_version');
      const baselines = naming(statements, 'from imodel as m where');
      // 240 versions and 121 iModels, 100 at a time; what has a checkpoint costs no statement of its own.
      assert.deepEqual([versions.length, baselines.length], [3, 2]);
      assert.ok(turns >= 5, `${turns} turns of the event loop`);
      for (const statement of [...versions, ...baselines]) {
        const plan = await planner.plan(statement);
        assert.deepEqual(fullScans(plan), [], plan);
        assert.match(
          plan,
          /named_version_changeset|imodel_pkey|SEARCH m USING (PRIMARY KEY|INDEX sqlite_autoindex_imodel_1)/,
        );
      }

      // A server that stops gives up between two steps.
      const abort = new AbortController();
      const aborted = await statementsOf(async () => {
        const looking = catchUp(abort.signal);
        abort.abort();
        await looking;
      });
      assert.equal(naming(aborted, 'from named_version').length, 1);
    });

    test('missing checkpoints are scheduled by a bounded number of statements, and one that cannot be does not stop the others', async () => {
      const count = 30;
      // The look reads 100 versions at a time, in the order of random ids: the end of a page among those of this iModel would add a transaction.
      await db().deleteFrom('named_version').execute();
      const made = await makeIModel(await official(server), await server.iTwin(), { changesets: count });
      const source = await db().selectFrom('imodel').selectAll().where('id', '=', made.id).executeTakeFirstOrThrow();
      const { segment_id } = await db()
        .selectFrom('history')
        .select('segment_id')
        .where('id', '=', source.history_id)
        .executeTakeFirstOrThrow();
      await db()
        .insertInto('named_version')
        .values(
          Array.from({ length: count }, (_, n) => ({
            id: randomUUID(),
            imodel_id: made.id,
            name: `version ${n}`,
            search_text: '',
            description: null,
            changeset_index: n + 1,
            changeset_id: String(n),
            state: 'visible' as const,
            creator_id: people.olivia.id,
            application_id: 'test',
            application_name: 'test',
            created_at: 0,
          })),
        )
        .execute();
      const forget = async () => {
        await db().deleteFrom('job').where('kind', '=', 'checkpoint').execute();
        await db().deleteFrom('checkpoint').where('segment_id', '=', segment_id).execute();
      };
      const scheduled = async () =>
        (
          await db()
            .selectFrom('checkpoint as c')
            .innerJoin('job as j', 'j.subject_id', 'c.id')
            .select('c.changeset_index')
            .where('c.segment_id', '=', segment_id)
            .orderBy('c.changeset_index')
            .execute()
        ).map(({ changeset_index }) => changeset_index);
      const all = Array.from({ length: count }, (_, n) => n + 1);

      // Others are not missing.
      await catchUp();
      await forget();
      const statements = await statementsOf(async () => assert.equal(await catchUp(), count));
      assert.deepEqual(await scheduled(), all);
      // 25 in each transaction: one insert of checkpoints, one of their jobs.
      const ofCheckpoints = naming(statements, 'insert into "checkpoint"').filter(({ parameters }) =>
        parameters.includes(segment_id),
      );
      assert.equal(ofCheckpoints.length, 2);
      assert.equal(naming(statements, 'insert into "job"').length, 2);

      // As if the collector had deleted the segment of the seventh in the meantime.
      const failing = `insert into push_count (imodel_id, user_id, pushes, last_pushed_at) values ('gone', '', 0, 0);`;
      const when = `before insert on checkpoint for each row when (new.changeset_index = 7)`;
      for (const statement of engine === 'sqlite'
        ? [`create trigger refused ${when} begin ${failing} end`]
        : [
            `create function refused() returns trigger language plpgsql as $$ begin ${failing} return new; end $$`,
            `create trigger refused ${when} execute function refused()`,
          ])
        await sql.raw(statement).execute(db());
      try {
        await forget();
        assert.equal(await catchUp(), count - 1);
        assert.deepEqual(
          await scheduled(),
          all.filter((index) => index !== 7),
        );
      } finally {
        await sql.raw(`drop trigger refused${engine === 'sqlite' ? '' : ' on checkpoint'}`).execute(db());
        await forget();
      }
    });

    test('a claim reads a bounded number of waiting users, every one of them has a turn, and none is read for nothing', async () => {
      const kind = randomUUID();
      const count = 2 * usersAtOnce + 50;
      const users = Array.from({ length: count }, (_, n) => `${kind} ${String(n).padStart(3, '0')}`);
      const job = {
        kind,
        subject_id: '',
        tenant: 'iTwin',
        payload: '{}',
        state: 'ready' as const,
        wait_ms: 0,
        attempt: 0,
        lease_owner: null,
        lease_until: null,
        last_error: null,
        created_at: 0,
        trace: null,
      };
      const addJobs = async (run_at: number) => {
        const rows = users.map((user_id) => ({ ...job, id: randomUUID(), user_id, run_at, wait_ms: run_at }));
        await db().insertInto('job').values(rows).execute();
      };
      const windows = async (waiting: WaitingUsers): Promise<string[][]> => {
        const read: string[][] = [];
        for await (const some of waiting.read(db(), [kind], { owner: 'server', ids: [] }))
          read.push(some.map(({ user_id }) => user_id).toSorted());
        return read;
      };

      // Of jobs that are not due, no user is read.
      await addJobs(Date.now() + 3_600_000);
      const idle = await statementsOf(async () => assert.deepEqual(await windows(new WaitingUsers()), [[]]));
      assert.equal(naming(idle, 'recursive waiting').length, 1);
      await db().deleteFrom('job').where('kind', '=', kind).execute();

      await addJobs(1000);
      const waiting = new WaitingUsers();
      const [first, second, third] = [
        users.slice(0, usersAtOnce),
        users.slice(usersAtOnce, 2 * usersAtOnce),
        users.slice(2 * usersAtOnce),
      ];
      assert.deepEqual(await windows(waiting), [first, second, third]);
      // A claim that succeeds stops reading. The next one begins there, and continues with the first users after the last ones.
      for (const expected of [first, second, [...users.slice(0, usersAtOnce / 2), ...third]])
        for await (const some of waiting.read(db(), [kind], { owner: 'server', ids: [] })) {
          assert.deepEqual(some.map(({ user_id }) => user_id).toSorted(), expected);
          break;
        }
      // One that does not succeed reads all of them, from there around.
      assert.deepEqual(new Set((await windows(waiting)).flat()), new Set(users));

      const ran: string[] = [];
      const jobs = new Jobs(server.services.database, pino({ level: 'silent' }), { poll: 60_000 });
      jobs.handle(1, [
        {
          kind,
          attempts: 1,
          backoffMs: () => 0,
          run: async ({ userId }) => {
            ran.push(userId);
            return async () => undefined;
          },
          onExhausted: async () => undefined,
        },
      ]);
      await addJobs(2000);
      const statements = await statementsOf(async () => {
        jobs.start();
        const left = db().selectFrom('job').select('id').where('kind', '=', kind).limit(1);
        while ((await left.executeTakeFirst()) !== undefined) await new Promise((resolve) => setTimeout(resolve, 20));
        await jobs.stop(5000);
      });
      // Two jobs of each user. While others wait, a user waits for as many claims as there are users, and those of one read.
      assert.equal(ran.length, 2 * count);
      for (const user of users) assert.ok(ran.indexOf(user) <= count + usersAtOnce, `${user}: ${ran.indexOf(user)}`);
      const claims = naming(statements, 'recursive waiting').filter(({ parameters }) => parameters.includes(kind));
      assert.ok(claims.length <= 2.5 * ran.length, `${claims.length} statements for ${ran.length} jobs`);
      const plan = await planner.plan(claims[0] as Statement);
      assert.deepEqual(
        fullScans(plan).filter((step) => /\b(job|other)\b/.test(step)),
        [],
        plan,
      );
      assert.match(plan, /job_user/);
      assert.match(plan, /job_ready/);
    });

    test('jobs are found, claimed and counted as unserved by seeks, and dead letters are not read', async () => {
      const kind = randomUUID();
      const rows = Array.from({ length: 900 }, (_, n) => ({
        id: `${kind}/${n}`,
        kind,
        subject_id: String(n),
        tenant: 'iTwin',
        user_id: `user ${n % 3}`,
        payload: '{}',
        state: n < 450 ? ('ready' as const) : ('failed' as const),
        run_at: n,
        wait_ms: 0,
        attempt: 0,
        lease_owner: null,
        lease_until: null,
        last_error: null,
        created_at: 0,
        trace: null,
      }));
      await db().insertInto('job').values(rows).execute();
      const jobs = new Jobs(server.services.database, pino({ level: 'silent' }), { poll: 60_000 });
      let ran = 0;
      const handler = {
        kind,
        attempts: 1,
        backoffMs: () => 0,
        run: async () => {
          ran++;
          await new Promise((resolve) => setTimeout(resolve, 50));
          return async () => undefined;
        },
        onExhausted: async () => undefined,
      };
      jobs.handle(1, [handler]);
      const statements = await statementsOf(async () => {
        assert.deepEqual((await waitingJobs(db(), [kind], { owner: 'server', ids: [] })).waiting.length, 3);
        await jobs.unserved();
        jobs.start();
        while (ran === 0) await new Promise((resolve) => setTimeout(resolve, 5));
        await jobs.stop(5000);
      });
      const looks = naming(statements, 'recursive waiting');
      const claims = naming(statements, "update job set state = 'running'", 'select id from job');
      assert.ok(looks.length >= 3 && claims.length >= 1);
      for (const statement of [...looks, ...claims]) {
        const plan = await planner.plan(statement);
        // The common table expressions and the accounts of the waiting users may be walked, the jobs may not.
        assert.deepEqual(
          fullScans(plan).filter((step) => /\b(job|other)\b/.test(step)),
          [],
          plan,
        );
        assert.match(plan, /job_user|job_ready/);
      }
      await db().deleteFrom('job').where('kind', '=', kind).execute();
    });
  });
}
