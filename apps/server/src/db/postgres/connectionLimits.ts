import { AsyncLocalStorage } from 'node:async_hooks';
import { UnavailableError } from '../../outages.ts';

/** The user, organization and subject of a request; each has a limited number of connections. */
export interface Party {
  organizationId: string | null;
  userId: string;
  /** The iModel or iTwin that the request addresses. */
  subject: string | undefined;
}

/** Maximum number of requests waiting for a connection per user and per subject; further requests are refused at once. */
const mostWaiting = { user: 100, subject: 200 };

/** All connections of the organization, user or subject are in use, and none was released in time. */
export class ConnectionLimitError extends UnavailableError {
  constructor() {
    super('too many requests of one organization, user or iModel wait for the database');
    this.name = 'ConnectionLimitError';
  }
}

/** One request. It counts once, however many connections it uses at a time, so that it cannot wait for itself. */
interface Visit {
  keys: readonly Key[];
  connections: number;
  admission: Promise<void> | undefined;
}
interface Key {
  name: string;
  /** Maximum number of requests with connections, and of waiting requests. */
  most: number;
  mostWaiting: number;
}
interface Waiting {
  keys: readonly Key[];
  admit: () => void;
}

const visits = new AsyncLocalStorage<(Party & { visit?: Visit }) | undefined>();

/** Runs work whose connections count for a user, an organization and a subject. */
export function onBehalfOf<T>(party: Party, work: () => T): T {
  return visits.run({ ...party }, work);
}

/** Runs work without connection limits: for background work that a request starts. */
export function onNobodysBehalf<T>(work: () => T): T {
  return visits.run(undefined, work);
}

/**
 * Limits concurrent connections per organization, user and subject. A statement that waits for a row lock occupies its
 * connection; without limits a few requests for one locked row would exhaust the pool for all users. One organization may
 * use at most three quarters of the `size` connections, one user and one iModel at most half. A request that waits here
 * occupies no connection.
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
   * Waits until the limits of the current request allow another connection.
   * @returns a function that releases it
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
      // All callers that share this admission are refused; the next call starts a new one.
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
