import { AsyncLocalStorage } from 'node:async_hooks';
import { UnavailableError } from '../../outages.ts';

/** Who sent a request, and what it is about; each of them has a limited number of connections. */
export interface Party {
  organizationId: string | null;
  userId: string;
  /** The iModel or iTwin that it is about. */
  subject: string | undefined;
}

/** Requests that may wait for a connection, of one user and on one subject; the next is refused at once. */
const mostWaiting = { user: 100, subject: 200 };

/** The connections that one party may have are all taken, and none came free in time. */
export class ConnectionLimitError extends UnavailableError {
  constructor() {
    super('too many requests of one organization, user or iModel wait for the database');
    this.name = 'ConnectionLimitError';
  }
}

/** One request: it counts once, however many connections it has at a time, so that it never waits for itself. */
interface Visit {
  keys: readonly Key[];
  connections: number;
  admission: Promise<void> | undefined;
}
interface Key {
  name: string;
  /** Requests that have connections at a time, and that wait. */
  most: number;
  mostWaiting: number;
}
interface Waiting {
  keys: readonly Key[];
  admit: () => void;
}

const visits = new AsyncLocalStorage<(Party & { visit?: Visit }) | undefined>();

/** Does some work on somebody's account. */
export function onBehalfOf<T>(party: Party, work: () => T): T {
  return visits.run({ ...party }, work);
}

/** For what a request sets off but does not wait for: nobody's account. */
export function onNobodysBehalf<T>(work: () => T): T {
  return visits.run(undefined, work);
}

/**
 * Who may have how many connections at a time. A statement that waits for a row keeps its connection, so without limits a
 * handful of requests on one locked row take the whole pool, and everybody else waits with them. Of `size` connections one
 * organization has at most three quarters, one user and one iModel a half each. Who waits here has no connection.
 */
export class ConnectionLimits {
  readonly #size: number;
  readonly #waitMs: number;
  readonly #running = new Map<string, number>();
  /** In order of arrival. */
  readonly #waiting = new Set<Waiting>();

  /** @param waitMs longest wait, milliseconds */
  constructor(size: number, waitMs: number) {
    this.#size = size;
    this.#waitMs = waitMs;
  }

  /**
   * Waits until the party of the present request may have a connection.
   * @returns what gives it back
   * @throws ConnectionLimitError
   */
  async enter(): Promise<() => void> {
    const party = visits.getStore();
    if (party === undefined) return () => undefined;
    const visit = (party.visit ??= { keys: this.#keysOf(party), connections: 0, admission: undefined });
    visit.connections++;
    const leave = (): void => {
      if (--visit.connections > 0) return;
      visit.admission = undefined;
      this.#leave(visit.keys);
    };
    const admission = (visit.admission ??= this.#admit(visit.keys));
    try {
      await admission;
      return leave;
    } catch (error) {
      // Those who waited with it are refused with it; the next one asks anew.
      visit.connections--;
      if (visit.admission === admission) visit.admission = undefined;
      throw error;
    }
  }

  #keysOf({ organizationId, userId, subject }: Party): Key[] {
    const part = (share: number): number => Math.max(1, Math.floor(this.#size * share));
    return [
      ...(organizationId === null
        ? []
        : [{ name: `organization/${organizationId}`, most: part(3 / 4), mostWaiting: Number.POSITIVE_INFINITY }]),
      { name: `user/${userId}`, most: part(1 / 2), mostWaiting: mostWaiting.user },
      ...(subject === undefined
        ? []
        : [{ name: `subject/${subject}`, most: part(1 / 2), mostWaiting: mostWaiting.subject }]),
    ];
  }

  async #admit(keys: readonly Key[]): Promise<void> {
    if (this.#fits(keys)) return this.#take(keys);
    for (const { name, mostWaiting } of keys)
      if (this.#countWaiting(name) >= mostWaiting) throw new ConnectionLimitError();
    await new Promise<void>((resolve, reject) => {
      const waiting: Waiting = {
        keys,
        admit: () => {
          clearTimeout(timer);
          resolve();
        },
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(waiting);
        reject(new ConnectionLimitError());
      }, this.#waitMs);
      this.#waiting.add(waiting);
    });
  }

  #countWaiting(name: string): number {
    let count = 0;
    for (const { keys } of this.#waiting) if (keys.some((key) => key.name === name)) count++;
    return count;
  }

  #fits(keys: readonly Key[]): boolean {
    return keys.every(({ name, most }) => (this.#running.get(name) ?? 0) < most);
  }

  #take(keys: readonly Key[]): void {
    for (const { name } of keys) this.#running.set(name, (this.#running.get(name) ?? 0) + 1);
  }

  #leave(keys: readonly Key[]): void {
    for (const { name } of keys) {
      const left = (this.#running.get(name) ?? 1) - 1;
      if (left === 0) this.#running.delete(name);
      else this.#running.set(name, left);
    }
    for (const waiting of this.#waiting) {
      if (!this.#fits(waiting.keys)) continue;
      this.#waiting.delete(waiting);
      this.#take(waiting.keys);
      waiting.admit();
    }
  }
}
