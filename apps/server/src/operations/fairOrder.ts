import { BoundedCache } from '../boundedCache.ts';

/** A user and its organization; a user without one counts as a separate organization. */
export interface Account {
  userId: string;
  organizationId: string | null;
}

/** Number of accounts whose last service time is kept. */
const mostAccounts = 10_000;

const userOf = ({ userId }: Account): string => `user/${userId}`;
const organizationOf = (account: Account): string =>
  account.organizationId === null ? userOf(account) : `organization/${account.organizationId}`;

/**
 * Decides which job gets the next free slot. One organization may use at most three quarters of the slots and one user at
 * most half, but at least one each. With three slots or more, no user can therefore block the other users of its
 * organization, and no organization can block others. Eligible jobs are ordered by: the organization with the fewest
 * running jobs, the organization served least recently, the same two for users, and the time the job became due.
 */
export class FairOrder {
  readonly #most: { organization: number; user: number };
  readonly #servedAt = new BoundedCache<string, number>(mostAccounts);
  #served = 0;

  constructor(slots: number) {
    this.#most = { organization: Math.max(1, Math.floor((slots * 3) / 4)), user: Math.max(1, Math.floor(slots / 2)) };
  }

  /** The waiting jobs that may get a slot, the next one first. */
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

  /** Records that a job of this account has started. */
  served(account: Account): void {
    this.#served++;
    for (const key of [organizationOf(account), userOf(account)]) this.#servedAt.set(key, this.#served);
  }
}
