import { setImmediate } from 'node:timers/promises';
import type { Db } from '../db/database.ts';
import { usersAtOnce, waitingJobs, type UsersRead, type WaitingJobs } from '../db/statements/waitingJobs.ts';

/**
 * Reads the users with due jobs, some at a time, so that a claim costs the same however many wait. Each claim begins where the one
 * before has ended, and goes around, so each user is read equally often. If they are few, each claim reads all of them.
 */
export class WaitingUsers {
  /** The last user of each kind that was read; without an entry the next read begins with the first one. */
  #after: ReadonlyMap<string, string> = new Map();

  /** The waiting users, until all of them have been read or the caller stops reading. */
  async *read(
    db: Db,
    kinds: readonly string[],
    running: { owner: string; ids: readonly string[] },
  ): AsyncGenerator<WaitingJobs[], void> {
    const begun = this.#after;
    /** Kinds that are read from the first user on. */
    const around = new Set(kinds.filter((kind) => !begun.has(kind)));
    for (let unread = kinds; unread.length > 0;) {
      const from = new Map(
        unread.map((kind): [string, UsersRead] => [kind, { user: this.#after.get(kind), count: 0 }]),
      );
      const { waiting, read } = await waitingJobs(db, unread, running, from);
      const countOf = (kind: string): number => read.get(kind)?.count ?? 0;
      // After the last user come the first ones. Without them, the last ones would be compared with fewer others, and served more often.
      const ended = unread.filter((kind) => !around.has(kind) && countOf(kind) < usersAtOnce);
      if (ended.length > 0) {
        const rest = new Map(
          ended.map((kind): [string, UsersRead] => [kind, { user: undefined, count: countOf(kind) }]),
        );
        const others = await waitingJobs(db, ended, running, rest);
        waiting.push(...others.waiting);
        for (const kind of ended) {
          around.add(kind);
          read.delete(kind);
        }
        for (const [kind, end] of others.read) read.set(kind, end);
      }
      const after = new Map(this.#after);
      for (const kind of unread) {
        const { user, count } = read.get(kind) ?? { user: undefined, count: 0 };
        if (user === undefined || count < usersAtOnce) after.delete(kind);
        else after.set(kind, user);
      }
      this.#after = after;
      yield waiting;
      unread = unread.filter((kind) => {
        if (!around.has(kind)) return true;
        const [last, first] = [after.get(kind), begun.get(kind)];
        return last !== undefined && (first === undefined || last < first);
      });
      // Reads of SQLite do not wait for anything, so without the pause no request would be answered meanwhile.
      await setImmediate(undefined);
    }
  }
}
