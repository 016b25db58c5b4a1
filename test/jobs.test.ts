import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import pino from 'pino';
import { openDatabase, type Database } from '../apps/server/src/db/database.ts';
import { waitingJobs } from '../apps/server/src/db/statements/waitingJobs.ts';
import { enqueue, Jobs, type JobHandler, type JobTimes } from '../apps/server/src/operations/jobs.ts';
import { FinalError, PublicError } from '../apps/server/src/operations/reasons.ts';
import { engines, Installation } from './support/server.ts';
import { until } from './support/until.ts';

const quick: JobTimes = { lease: 400, renew: 100, poll: 20, progress: 60_000 };

for (const engine of engines) {
  describe(`Jobs on ${engine}`, () => {
    let installation: Installation;
    let database: Database;
    const running: Jobs[] = [];
    before(async () => {
      installation = await Installation.create(engine);
      database = await openDatabase(installation.config());
    });
    after(async () => {
      await Promise.all(running.map((jobs) => jobs.stop(0)));
      await database.close();
      installation.remove();
    });

    /** The job engine of one server. */
    function start(handler: JobHandler, options: { slots?: number; times?: Partial<JobTimes> } = {}): Jobs {
      const jobs = new Jobs(database, pino({ level: 'silent' }), { ...quick, ...options.times });
      jobs.handle(options.slots ?? 4, [handler]);
      jobs.start();
      running.push(jobs);
      return jobs;
    }

    /** A handler that records each effect as a row, so that only committed effects count. */
    function recordingHandler(kind: string, changes: Partial<JobHandler> = {}): JobHandler {
      return {
        kind,
        attempts: 3,
        backoffMs: () => 10,
        run: async (job) => (tx) => record(tx, kind, job.subjectId),
        onExhausted: (tx, job, reason) => record(tx, `${kind} given up`, `${job.subjectId}: ${reason}`),
        ...changes,
      };
    }
    async function record(db: Database['db'], kind: string, value: string): Promise<void> {
      await db
        .insertInto('secret')
        .values({ name: `${kind}/${randomUUID()}`, value })
        .execute();
    }
    async function recorded(kind: string): Promise<string[]> {
      return (await database.db.selectFrom('secret').select('value').where('name', 'like', `${kind}/%`).execute()).map(
        ({ value }) => value,
      );
    }
    /** Accounts, one for each organization named; null for users without one. */
    async function addUsers(organizations: readonly (string | null)[]): Promise<string[]> {
      const rows = organizations.map((organization_id) => ({
        id: randomUUID(),
        email: `${randomUUID()}@example.test`,
        given_name: '',
        surname: '',
        organization_id,
        created_at: 0,
      }));
      await database.db.insertInto('user_account').values(rows).execute();
      return rows.map(({ id }) => id);
    }
    async function accept(kind: string, subjectId: string, userId = 'user'): Promise<void> {
      await database.db.transaction().execute((tx) => enqueue(tx, { kind, subjectId, tenant: 'iTwin', userId }));
    }
    const left = (kind: string) => database.db.selectFrom('job').selectAll().where('kind', '=', kind).execute();

    test('count exactly once, however many servers run them and however often one of them loses its lease', async () => {
      const kind = randomUUID();
      let runs = 0;
      const flaky = recordingHandler(kind, {
        attempts: 100,
        // Some runs outlive their lease, which is not renewed; another server then runs the same job concurrently.
        run: async (job) => {
          runs++;
          if (Math.random() < 0.1) await new Promise((resolve) => setTimeout(resolve, 250));
          return (tx) => record(tx, kind, job.subjectId);
        },
      });
      for (let n = 0; n < 200; n++) await accept(kind, String(n));
      const servers = [1, 2, 3].map(() => start(flaky, { times: { lease: 120, renew: 1e6 } }));
      await until('the end of all jobs', async () => ((await left(kind)).length === 0 ? true : undefined));
      await Promise.all(servers.map((jobs) => jobs.stop(1000)));
      const counted = await recorded(kind);
      assert.deepEqual(counted.toSorted(), Array.from({ length: 200 }, (_, n) => String(n)).toSorted());
      assert.ok(runs >= 200);
    });

    test('of a crashed server are taken over when the lease expires, and its late results do not count', async () => {
      const kind = randomUUID();
      let finishLate!: () => void;
      const late = new Promise<void>((resolve) => (finishLate = resolve));
      const dead = start(
        recordingHandler(kind, {
          run: async () => {
            await late;
            return (tx) => record(tx, kind, 'by the dead one');
          },
        }),
        { slots: 1, times: { renew: 1e6 } },
      );
      await accept(kind, 'job');
      await until('the claim', async () => (await left(kind))[0]?.lease_owner ?? undefined);
      start(recordingHandler(kind));
      await until('the take-over', async () => ((await recorded(kind)).length > 0 ? true : undefined));
      finishLate();
      await dead.stop(1000);
      assert.deepEqual(await recorded(kind), ['job']);
    });

    test('that another server has claimed are not completed by the one that lost them', async () => {
      const kind = randomUUID();
      const ends: Record<string, () => void> = {};
      const held = (who: string) =>
        recordingHandler(kind, {
          run: async () => {
            await new Promise<void>((resolve) => (ends[who] = resolve));
            return (tx) => record(tx, kind, who);
          },
        });
      const loser = start(held('the one that lost it'), { slots: 1, times: { renew: 1e6 } });
      await accept(kind, 'job');
      await until('the claim', () => ends['the one that lost it']);
      const owner = start(held('the one that has it'));
      await until('the take-over', () => ends['the one that has it']);
      const [row] = await left(kind);
      ends['the one that lost it']?.();
      await loser.stop(1000);
      assert.deepEqual(
        [await recorded(kind), (await left(kind)).map(({ lease_owner, attempt }) => [lease_owner, attempt])],
        [[], [[row?.lease_owner, 2]]],
      );
      ends['the one that has it']?.();
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      await owner.stop(1000);
      assert.deepEqual(await recorded(kind), ['the one that has it']);
    });

    test('that the same server restarted are not completed by their earlier attempt', async () => {
      const kind = randomUUID();
      const ends: (() => void)[] = [];
      const runs: string[] = [];
      const jobs = start(
        recordingHandler(kind, {
          run: async (job) => {
            runs.push(job.subjectId);
            if (job.subjectId === 'another') return async () => undefined;
            await new Promise<void>((resolve) => (ends[job.attempt] = resolve));
            return (tx) => record(tx, kind, String(job.attempt));
          },
        }),
        { times: { renew: 1e6, lease: 100_000 } },
      );
      await accept(kind, 'job');
      await until('the first run', () => ends[1]);
      // As if its completion could not be written and its lease had expired.
      await database.db
        .updateTable('job')
        .set({ lease_owner: 'nobody', lease_until: 0 })
        .where('kind', '=', kind)
        .execute();
      jobs.wake();
      await until('the second run', () => ends[2]);
      ends[1]?.();
      // Claimed and completed after that, on the same connections.
      await accept(kind, 'another');
      await until('the end of another', async () =>
        runs.includes('another') && (await left(kind)).length === 1 ? true : undefined,
      );
      assert.deepEqual([await recorded(kind), (await left(kind)).map(({ attempt }) => attempt)], [[], [2]]);
      ends[2]?.();
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.deepEqual(await recorded(kind), ['2']);
    });

    test('without progress are aborted and retried, whether or not they react to the signal', async () => {
      const kind = randomUUID();
      start(
        recordingHandler(kind, {
          run: async (job) => {
            if (job.attempt === 1) await new Promise(() => undefined);
            return (tx) => record(tx, kind, `${job.attempt}: ${job.lastError}`);
          },
        }),
        { slots: 1, times: { progress: 200 } },
      );
      await accept(kind, 'hangs');
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.deepEqual(await recorded(kind), ['2: There was no progress for 0.2 s.']);
    });

    test('wait no longer than intended when a fast clock is set back', async () => {
      const kind = randomUUID();
      const hour = 3_600_000;
      await database.db
        .transaction()
        .execute((tx) => enqueue(tx, { kind, subjectId: 'queued', tenant: 'iTwin', userId: 'user', delayMs: 1000 }));
      await accept(kind, 'leased');
      await database.db
        .updateTable('job')
        .set({ run_at: Date.now() + hour })
        .where('kind', '=', kind)
        .execute();
      await database.db
        .updateTable('job')
        .set({
          state: 'running',
          lease_owner: 'a dead server',
          lease_until: Date.now() + hour,
          wait_ms: 30_000,
          attempt: 1,
        })
        .where('kind', '=', kind)
        .where('subject_id', '=', 'leased')
        .execute();
      // A wait of the intended length is kept.
      await database.db
        .transaction()
        .execute((tx) => enqueue(tx, { kind, subjectId: 'waits', tenant: 'iTwin', userId: 'user', delayMs: hour }));
      start(recordingHandler(kind));
      await until('the end of both', async () => ((await left(kind)).length === 1 ? true : undefined));
      assert.deepEqual((await recorded(kind)).toSorted(), ['leased', 'queued']);
      await database.db.deleteFrom('job').where('kind', '=', kind).execute();
    });

    test('that run here are not started twice when the clock is set ahead', async () => {
      const kind = randomUUID();
      let runs = 0;
      let end!: () => void;
      const held = new Promise<void>((resolve) => (end = resolve));
      start(
        recordingHandler(kind, {
          run: async (job) => {
            if (job.subjectId === 'held') {
              runs++;
              await held;
            }
            return (tx) => record(tx, kind, job.subjectId);
          },
        }),
        { times: { renew: 1e6, lease: 60_000 } },
      );
      await accept(kind, 'held');
      await until('the claim', async () => (runs > 0 ? true : undefined));
      await database.db.updateTable('job').set({ lease_until: 1 }).where('kind', '=', kind).execute();
      for (let n = 0; n < 3; n++) await accept(kind, String(n));
      await until('the end of the others', async () => ((await left(kind)).length === 1 ? true : undefined));
      end();
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.equal(runs, 1);
    });

    test('that fail are retried with backoff until their attempts are exhausted, and fail at once on a final error', async () => {
      const kind = randomUUID();
      const attempts: Record<string, number> = {};
      start(
        recordingHandler(kind, {
          run: async (job) => {
            attempts[job.subjectId] = job.attempt;
            if (job.subjectId === 'mends' && job.attempt === 3) return (tx) => record(tx, kind, 'mended');
            throw job.subjectId === 'final' ? new FinalError('no use') : new PublicError('not now');
          },
        }),
      );
      for (const subject of ['mends', 'never', 'final']) await accept(kind, subject);
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.deepEqual(attempts, { mends: 3, never: 3, final: 1 });
      assert.deepEqual(await recorded(kind), ['mended']);
      assert.deepEqual((await recorded(`${kind} given up`)).toSorted(), ['final: no use', 'never: not now']);
    });

    test('that fail give users a reason without paths, stack traces and texts of other programs, and the log all details', async () => {
      const kind = randomUUID();
      const lines: string[] = [];
      const log = pino({ level: 'warn' }, { write: (line: string) => void lines.push(line) });
      const jobs = new Jobs(database, log, quick);
      const secret = 'ENOENT: no such file or directory, open /srv/data/work/model.bim';
      jobs.handle(1, [
        recordingHandler(kind, {
          attempts: 2,
          run: (job) =>
            Promise.reject(
              job.subjectId === 'told'
                ? new PublicError('The receiver answered 500.', { cause: new Error(secret) })
                : new Error(secret),
            ),
        }),
      ]);
      jobs.start();
      running.push(jobs);
      for (const subject of ['told', 'hidden']) await accept(kind, subject);
      await until('both', async () => ((await recorded(`${kind} given up`)).length === 2 ? true : undefined));
      const [hidden, told] = (await recorded(`${kind} given up`)).toSorted();
      assert.equal(told, 'told: The receiver answered 500.');
      const reference =
        /^hidden: The server met an unexpected error\. Its log has more under the reference ([0-9a-f-]{36})\.$/.exec(
          hidden ?? '',
        )?.[1];
      assert.ok(reference !== undefined, hidden);
      assert.ok(lines.some((line) => line.includes(reference) && line.includes(secret)));
      assert.equal(lines.filter((line) => line.includes(secret)).length, 4);
    });

    test('whose server crashes during the last attempt fail with a reason', async () => {
      const kind = randomUUID();
      start(
        recordingHandler(kind, {
          attempts: 1,
          run: (job) =>
            new Promise((_, reject) => job.signal.addEventListener('abort', () => reject(new Error('ended')))),
        }),
        { slots: 1, times: { lease: 100, renew: 1e6 } },
      );
      await accept(kind, 'lost');
      await until('the claim', async () => (await left(kind))[0]?.lease_owner ?? undefined);
      start(recordingHandler(kind, { attempts: 1 }));
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.deepEqual(await recorded(`${kind} given up`), ['lost: The server ended during the last attempt.']);
    });

    test('of one user, and of one organization, never occupy all slots, however many are queued', async () => {
      const kind = randomUUID();
      const organization = randomUUID();
      const users = await addUsers([organization, organization, null]);
      const [greedy = '', colleague = '', stranger = ''] = users;
      const begun = new Map<string, number>(users.map((id) => [id, 0]));
      let end!: () => void;
      const held = new Promise<void>((resolve) => (end = resolve));
      const jobs = start(
        recordingHandler(kind, {
          run: async (job) => {
            begun.set(job.userId, (begun.get(job.userId) ?? 0) + 1);
            await held;
            return (tx) => record(tx, kind, job.userId);
          },
        }),
        { slots: 8 },
      );
      for (const who of [greedy, colleague]) for (let n = 0; n < 10; n++) await accept(kind, String(n), who);
      await until('all places of the organization', async () =>
        (begun.get(greedy) ?? 0) + (begun.get(colleague) ?? 0) >= 6 ? true : undefined,
      );
      for (let n = 0; n < 10; n++) await accept(kind, String(n), stranger);
      await until('the other places', async () => ((begun.get(stranger) ?? 0) >= 2 ? true : undefined));
      assert.ok(users.every((id) => (begun.get(id) ?? 0) <= 4));
      assert.deepEqual([(begun.get(greedy) ?? 0) + (begun.get(colleague) ?? 0), begun.get(stranger)], [6, 2]);
      end();
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      await jobs.stop(1000);
      assert.equal((await recorded(kind)).length, 30);
    });

    test('are claimed in fair order by organization and user, regardless of how many each queued earlier', async () => {
      const kind = randomUUID();
      const [one, two] = [randomUUID(), randomUUID()];
      const [first = '', second = '', other = ''] = await addUsers([one, one, two]);
      for (let n = 0; n < 50; n++) await accept(kind, String(n), first);
      for (const who of [second, other]) for (let n = 0; n < 4; n++) await accept(kind, String(n), who);
      const order: string[] = [];
      start(
        recordingHandler(kind, {
          run: async (job) => {
            order.push(job.userId);
            return async () => undefined;
          },
        }),
        { slots: 1 },
      );
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      // Every second job belongs to the other organization, and of the first organization every second one to the second user.
      assert.deepEqual(
        order.slice(0, 8).map((id) => id === other),
        order[0] === other
          ? [true, false, true, false, true, false, true, false]
          : [false, true, false, true, false, true, false, true],
      );
      assert.deepEqual(new Set(order.slice(0, 8).filter((id) => id !== other)), new Set([first, second]));
    });

    test('are found by user, however many each has queued', async () => {
      const kind = randomUUID();
      const rows = Array.from({ length: 500 }, (_, n) => ({
        id: `${kind}/${n}`,
        kind,
        subject_id: String(n),
        tenant: 'iTwin',
        user_id: `user ${n % 3}`,
        payload: '{}',
        state: 'ready' as const,
        run_at: n,
        wait_ms: 0,
        attempt: 0,
        lease_owner: null,
        lease_until: null,
        last_error: null,
        created_at: 0,
        trace: null,
      }));
      await database.db.insertInto('job').values(rows).execute();
      const { waiting: found } = await waitingJobs(database.db, [kind, 'another'], { owner: 'server', ids: [] });
      assert.deepEqual(found.map(({ user_id, run_at, state }) => [user_id, run_at, state]).toSorted(), [
        ['user 0', 0, 'ready'],
        ['user 1', 1, 'ready'],
        ['user 2', 2, 'ready'],
      ]);
      await database.db.deleteFrom('job').where('kind', '=', kind).execute();
    });

    test('that a server claims at the moment it stops are returned', async () => {
      const kind = randomUUID();
      for (let n = 0; n < 10; n++) await accept(kind, String(n));
      const stopping = start(recordingHandler(kind, { run: () => new Promise(() => undefined) }), {
        slots: 10,
        times: { lease: 60_000 },
      });
      await Promise.all([stopping.stop(0), stopping.stop(0)]);
      const kept = (await left(kind)).filter(({ state }) => state !== 'ready');
      assert.deepEqual(
        kept.map(({ subject_id }) => subject_id),
        [],
      );
    });

    test('that a stopping server cannot finish are returned, without using up an attempt', async () => {
      const kind = randomUUID();
      const first = start(
        recordingHandler(kind, {
          run: (job) =>
            new Promise((_, reject) => job.signal.addEventListener('abort', () => reject(job.signal.reason as Error))),
        }),
      );
      await accept(kind, 'handed on');
      await until('the claim', async () => (await left(kind))[0]?.lease_owner ?? undefined);
      await first.stop(10);
      const [row] = await left(kind);
      assert.deepEqual([row?.state, row?.attempt, row?.lease_owner], ['ready', 0, null]);
      start(recordingHandler(kind));
      await until('the end', async () => ((await left(kind)).length === 0 ? true : undefined));
      assert.deepEqual(await recorded(kind), ['handed on']);
    });
  });
}
