import { sql } from 'kysely';
import { databaseNow } from '../clock.ts';
import type { Db } from '../database.ts';

/** A user with due jobs of one kind. */
export interface WaitingJobs {
  user_id: string;
  /** Null for users of no organization, and for jobs that an earlier version accepted. */
  organization_id: string | null;
  kind: string;
  state: 'ready' | 'running';
  /** When the first of these jobs was due. */
  run_at: number;
}

/** Condition for a job or lease whose time has come. One that ends later than its length allows was created before the clock was set back. */
export function isOver(db: Db, end: 'run_at' | 'lease_until') {
  const now = databaseNow(db);
  return sql<boolean>`(${sql.ref(end)} <= ${now} or ${sql.ref(end)} > ${now} + wait_ms)`;
}

/**
 * Maximum number of jobs to find whose wait started before the clock was set back. This limit, and the separate query for the
 * current time, make both databases use the index `job_ahead`.
 */
const mostAhead = 1000;

/** Waiting users of each kind that one statement reads: about a millisecond on SQLite, whose reads run on the main thread. */
export const usersAtOnce = 100;

/** How far the waiting users of a kind have been read. */
export interface UsersRead {
  /** The last one; undefined before the first. */
  user: string | undefined;
  /** How many of `usersAtOnce`. */
  count: number;
}

/** Some of the waiting users. */
export interface WaitingUsersRead {
  waiting: WaitingJobs[];
  /** By kind. Fewer than `usersAtOnce` means that there are no more. */
  read: Map<string, UsersRead>;
}

/**
 * The next users with due jobs, and since when they are due: one row per user, kind and state. A loose index scan over `job_user` skips
 * from user to user, so the cost does not depend on the number of their jobs: for 100,000 jobs of 10 users 0.3 ms on SQLite and
 * 0.7 ms on PostgreSQL, where grouping the jobs takes 60 and 200 ms. It ends after `usersAtOnce` users, and is not begun for kinds
 * without due jobs, so the cost does not depend on the number of waiting users either.
 * @param after where to begin, for each kind; by default with the first user
 */
export async function waitingJobs(
  db: Db,
  kinds: readonly string[],
  running: { owner: string; ids: readonly string[] },
  after: ReadonlyMap<string, UsersRead> = new Map(),
): Promise<WaitingUsersRead> {
  const now = databaseNow(db);
  const ofKinds = sql`kind in (${sql.join(kinds)})`;
  const notHere = running.ids.length === 0 ? sql`1 = 1` : sql`id not in (${sql.join(running.ids)})`;
  // `(select now)`, because PostgreSQL's clock is no bound of an index.
  const firsts = kinds.map((kind) => {
    const { user, count } = after.get(kind) ?? { user: undefined, count: 0 };
    const beyond = user === undefined ? sql`` : sql`and user_id > ${user}`;
    return sql`select cast(${kind} as text), (select user_id from job where kind = ${kind} and state = 'ready' ${beyond} order by user_id limit 1), cast(${count + 1} as bigint)
        where exists (select 1 from job where kind = ${kind} and state = 'ready' and run_at <= (select ${now}))`;
  });
  const { rows } = await sql<Omit<WaitingJobs, 'state'> & { state: WaitingJobs['state'] | 'read' }>`
    with recursive waiting (kind, user_id, position) as (
      select * from (${sql.join(firsts, sql` union all `)}) as firsts
      union all
      select w.kind, (select job.user_id from job where job.kind = w.kind and state = 'ready' and job.user_id > w.user_id order by job.user_id limit 1), w.position + 1 from waiting as w where w.user_id is not null and w.position < ${sql.lit(usersAtOnce)}
    ), first (kind, user_id, state, run_at) as (
      select w.kind, w.user_id, 'ready', (select run_at from job where job.kind = w.kind and state = 'ready' and job.user_id = w.user_id order by run_at limit 1) from waiting as w where w.user_id is not null
      union all
      select w.kind, max(w.user_id), 'read', max(w.position) from waiting as w where w.user_id is not null group by w.kind
      union all
      select kind, user_id, 'ready', ${now} from (select kind, user_id from job where state = 'ready' and run_at - wait_ms > (select ${now}) order by run_at - wait_ms desc limit ${sql.lit(mostAhead)}) as ahead where ${ofKinds}
      union all
      select kind, user_id, 'running', lease_until from job where state = 'running' and ${ofKinds} and ${isOver(db, 'lease_until')} and (lease_owner <> ${running.owner} or ${notHere})
    )
    select f.user_id, u.organization_id, f.kind, f.state, min(f.run_at) as run_at
      from first as f left join user_account as u on u.id = f.user_id
      where f.run_at <= ${now} or f.state = 'running'
      group by f.user_id, u.organization_id, f.kind, f.state`.execute(db);
  const waiting: WaitingJobs[] = [];
  const read = new Map<string, UsersRead>();
  for (const { state, ...row } of rows)
    if (state === 'read') read.set(row.kind, { user: row.user_id, count: row.run_at });
    else waiting.push({ ...row, state });
  return { waiting, read };
}
