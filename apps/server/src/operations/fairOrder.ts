import { LRUCache } from 'lru-cache';

/** A user, and the organization that it belongs to; a user of none is an organization of its own. */
export interface Account {
  userId: string;
  organizationId: string | null;
}

/** Accounts of which it is remembered when they were last served. */
const mostAccounts = 10_000;

const userOf = ({ userId }: Account): string => `user/${userId}`;
const organizationOf = (account: Account): string =>
  account.organizationId === null ? userOf(account) : `organization/${account.organizationId}`;

/**
 * Whose job gets the next free place. Of `slots` places one organization has at most three quarters and one user a half, at
 * least one each: so that with three places or more, whatever one user runs, another user of its organization finds one free, and a
 * user of another organization too. Among those who may have one the order is: the organization that runs fewest, then the one that was
 * served longest ago, then the same for users, then the job that has been due for longest.
 */
export class FairOrder {
  readonly #most: { organization: number; user: number };
  readonly #servedAt = new LRUCache<string, number>({ max: mostAccounts });
  #served = 0;

  constructor(slots: number) {
    this.#most = { organization: Math.max(1, Math.floor((slots * 3) / 4)), user: Math.max(1, Math.floor(slots / 2)) };
  }

  /** Those of the waiting who may have a place, first the one whose turn it is. */
  order<T extends Account & { dueAt: number }>(waiting: readonly T[], running: readonly Account[]): T[] {
    const counts = new Map<string, number>();
    for (const account of running)
      for (const key of new Set([organizationOf(account), userOf(account)]))
        counts.set(key, (counts.get(key) ?? 0) + 1);
    const rank = (entry: T): number[] =>
      [organizationOf(entry), userOf(entry)]
        .flatMap((key) => [counts.get(key) ?? 0, this.#servedAt.get(key) ?? 0])
        .concat(entry.dueAt);
    return waiting
      .filter(
        (entry) =>
          (counts.get(userOf(entry)) ?? 0) < this.#most.user &&
          (counts.get(organizationOf(entry)) ?? 0) < this.#most.organization,
      )
      .map((entry) => ({ entry, rank: rank(entry) }))
      .toSorted(
        (one, other) =>
          one.rank.map((value, n) => value - (other.rank[n] as number)).find((difference) => difference !== 0) ?? 0,
      )
      .map(({ entry }) => entry);
  }

  /** Notes that a job of this account has begun. */
  served(account: Account): void {
    this.#served++;
    for (const key of [organizationOf(account), userOf(account)]) this.#servedAt.set(key, this.#served);
  }
}
