import { createCipheriv, createDecipheriv, createHash, randomBytes, randomUUID } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import { sql } from 'kysely';
import { databaseNow } from '../db/clock.ts';
import type { Database, Tx } from '../db/database.ts';
import { withOutcomes, type OutcomeKeeper } from '../db/requestOutcomes.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';

/** A stored response. */
export interface KeptAnswer {
  status: number;
  headers: Record<string, string>;
  body: unknown;
  /** Positions of upload links in the body. Links are not stored but created again for each repetition. */
  uploads: readonly UploadPlace[];
}

export interface UploadPlace {
  /** Path of property names from the body to the link. */
  path: readonly string[];
  blobId: string;
  fileName: string;
}

/** The properties that identify a request. */
export interface RequestIdentity {
  caller: Caller;
  operationId: string;
  /** Path and query as received. */
  url: string;
  body: Buffer;
}

/** The `Idempotency-Key` was already used for a different request. */
export class KeyReusedError extends Error {
  constructor() {
    super('the Idempotency-Key was used for another request');
    this.name = 'KeyReusedError';
  }
}

/** How long a response is stored, milliseconds. */
const lifeMs = 24 * 3600 * 1000;
/** Lease of a running request, milliseconds; another run may take the request over when it has expired. */
const leaseMs = 30_000;
/** Delays between checks for the end of a running request before its repetition is refused: 0.9 s in all, well within the timeouts of clients. */
const waitsMs = [50, 100, 250, 500];
/** How long the repetition of a request without a key waits for the first run, whose client has disconnected, and how often it checks. */
const lostWait = { withinMs: 5000, everyMs: 100 };

interface Reference {
  id: string;
  fingerprint: string;
  /** Encryption key, derived from data that only the client sends, so that the database alone does not reveal the response. */
  secret: Buffer;
}

/**
 * Stores responses to POST requests, so that a client can repeat a request without executing it twice: on any server of the
 * installation, after a restart, and after a crash at any time. The results of the request's transactions are stored in the
 * same transactions (`requestOutcomes.ts`), so that a repetition after a crash continues where the first run stopped.
 */
export class RepeatableRequests {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Ends the leases of running requests. Only for the start of a server that is the only one on its database. */
  async reclaim(): Promise<void> {
    await this.#database.db
      .updateTable('repeatable_request')
      .set({ lease_until: 0 })
      .where('answer', 'is', null)
      .execute();
  }

  /**
   * The response stored for a key. @returns undefined if there is none (yet)
   * @throws KeyReusedError
   */
  async answerTo(key: string, request: RequestIdentity): Promise<KeptAnswer | undefined> {
    const reference = underKey(key, request);
    const row = await this.#find(reference.id);
    if (row === undefined || row.expired) return undefined;
    if (row.fingerprint !== reference.fingerprint) throw new KeyReusedError();
    return row.answer === null ? undefined : (open(row.answer, reference) as KeptAnswer);
  }

  /** Whether a request with this key of the caller is stored. */
  async knows(key: string, caller: Caller): Promise<boolean> {
    const row = await this.#find(idOfKey(key, caller));
    return row !== undefined && !row.expired;
  }

  /**
   * Executes a request once and stores its response, or returns the stored response.
   * @param handler its response is stored if `lasts` returns true, that is unless a retry may succeed
   * @throws KeyReusedError; ApiError RequestInProgress; what the handler throws
   */
  async once(
    key: string,
    request: RequestIdentity,
    handler: () => Promise<KeptAnswer>,
    lasts: (answer: KeptAnswer) => boolean,
  ): Promise<{ answer: KeptAnswer; repeated: boolean }> {
    const reference = underKey(key, request);
    const claim = await this.#claim(reference);
    if ('answer' in claim) return { answer: claim.answer, repeated: true };
    const { runId, committed } = claim;
    const own = () =>
      this.#database.db.updateTable('repeatable_request').where('id', '=', reference.id).where('run_id', '=', runId);
    const renewal = setInterval(() => {
      own()
        .set({ lease_until: sql`${databaseNow(this.#database.db)} + ${leaseMs}` })
        .execute()
        // The lease then expires; the fencing by `run_id` in `keep` decides which run counts.
        .catch(() => undefined);
    }, leaseMs / 3);
    renewal.unref();
    const keeper: OutcomeKeeper = {
      committed,
      keep: async (tx: Tx, results) => {
        const kept = await tx
          .updateTable('repeatable_request')
          .set({ outcomes: seal(results, reference) })
          .where('id', '=', reference.id)
          .where('run_id', '=', runId)
          .executeTakeFirst();
        // Another run has taken over the request: roll this transaction back.
        if (kept.numUpdatedRows === 0n) throw new ApiError('RequestInProgress', { headers: { 'retry-after': '1' } });
      },
    };
    try {
      const answer = await withOutcomes(keeper, handler);
      if (lasts(answer))
        await own()
          .set({
            answer: seal(answer, reference),
            lease_until: 0,
            expires_at: sql`${databaseNow(this.#database.db)} + ${lifeMs}`,
          })
          .execute();
      else await own().set({ lease_until: 0 }).execute();
      return { answer, repeated: committed.length > 0 };
    } catch (error) {
      // The row records whether the transaction was committed; a repetition reads it.
      await own()
        .set({ lease_until: 0 })
        .execute()
        .catch(() => undefined);
      throw error;
    } finally {
      clearInterval(renewal);
    }
  }

  async #claim(reference: Reference): Promise<{ answer: KeptAnswer } | { runId: string; committed: unknown[] }> {
    const { id, fingerprint } = reference;
    const runId = randomUUID();
    const lease = sql<number>`${databaseNow(this.#database.db)} + ${leaseMs}`;
    for (const waits = [...waitsMs]; ;) {
      const inserted = await this.#database.db
        .insertInto('repeatable_request')
        .values({
          id,
          fingerprint,
          run_id: runId,
          lease_until: lease,
          outcomes: null,
          answer: null,
          made: null,
          expires_at: sql<number>`${databaseNow(this.#database.db)} + ${lifeMs}`,
        })
        .onConflict((conflict) => conflict.doNothing())
        .executeTakeFirst();
      if ((inserted.numInsertedOrUpdatedRows ?? 0n) > 0n) return { runId, committed: [] };
      const row = await this.#find(id);
      if (row === undefined) continue;
      if (row.expired && !row.held) {
        await this.#database.db
          .deleteFrom('repeatable_request')
          .where('id', '=', id)
          .where('run_id', '=', row.run_id)
          .execute();
        continue;
      }
      if (row.fingerprint !== fingerprint) throw new KeyReusedError();
      if (row.answer !== null) return { answer: open(row.answer, reference) as KeptAnswer };
      if (!row.held) {
        const taken = await this.#database.db
          .updateTable('repeatable_request')
          .set({ run_id: runId, lease_until: lease })
          .where('id', '=', id)
          .where('run_id', '=', row.run_id)
          .executeTakeFirst();
        if (taken.numUpdatedRows === 0n) continue;
        // Read again: the previous run may have committed in the meantime.
        const outcomes = (await this.#find(id))?.outcomes ?? null;
        return { runId, committed: outcomes === null ? [] : (open(outcomes, reference) as unknown[]) };
      }
      const waitMs = waits.shift();
      if (waitMs === undefined) throw new ApiError('RequestInProgress', { headers: { 'retry-after': '1' } });
      await pause(waitMs);
    }
  }

  /** Records that the client of a running request without a key has disconnected, so that a repetition waits for the response. */
  async announceLost(request: RequestIdentity): Promise<void> {
    const { id, fingerprint } = withoutKey(request);
    const lease_until = sql<number>`${databaseNow(this.#database.db)} + ${leaseMs}`;
    await this.#database.db
      .insertInto('repeatable_request')
      .values({
        id,
        fingerprint,
        run_id: randomUUID(),
        lease_until,
        outcomes: null,
        answer: null,
        made: null,
        expires_at: lease_until,
      })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
  }

  /** Removes the record after the request failed: there is no response to wait for. */
  async withdrawLost(request: RequestIdentity): Promise<void> {
    await this.#database.db
      .deleteFrom('repeatable_request')
      .where('id', '=', withoutKey(request).id)
      .where('answer', 'is', null)
      .execute();
  }

  /**
   * Stores the response to a request without a key that did not reach its client.
   * @param made the created resource in its current state
   */
  async keepLost(request: RequestIdentity, answer: KeptAnswer, made: string): Promise<void> {
    const reference = withoutKey(request);
    const row = {
      run_id: randomUUID(),
      answer: seal(answer, reference),
      made: hash('made', made),
      expires_at: sql<number>`${databaseNow(this.#database.db)} + ${lifeMs}`,
      lease_until: 0,
    };
    await this.#database.db
      .insertInto('repeatable_request')
      .values({ id: reference.id, fingerprint: reference.fingerprint, outcomes: null, ...row })
      .onConflict((conflict) => conflict.column('id').doUpdateSet(row))
      .execute();
  }

  /**
   * The response to the same request that did not reach its client. It is returned only once.
   * @param made the current state of the resource that the response describes; undefined if it was deleted
   */
  async takeLost(
    request: RequestIdentity,
    made: (answer: KeptAnswer) => Promise<string | undefined>,
  ): Promise<KeptAnswer | undefined> {
    const reference = withoutKey(request);
    for (const until = performance.now() + lostWait.withinMs; ; await pause(lostWait.everyMs)) {
      const row = await this.#find(reference.id);
      if (row === undefined || row.expired) return undefined;
      if (row.answer === null) {
        if (!row.held || performance.now() > until) return undefined;
        continue;
      }
      const answer = open(row.answer, reference) as KeptAnswer;
      const now = await made(answer);
      if (now === undefined || hash('made', now) !== row.made) return undefined;
      const taken = await this.#database.db
        .deleteFrom('repeatable_request')
        .where('id', '=', reference.id)
        .where('run_id', '=', row.run_id)
        .executeTakeFirst();
      return taken.numDeletedRows === 0n ? undefined : answer;
    }
  }

  async #find(id: string) {
    const row = await this.#database.db
      .selectFrom('repeatable_request')
      .selectAll()
      .select([
        sql<number>`case when lease_until > ${databaseNow(this.#database.db)} then 1 else 0 end`.as('held'),
        sql<number>`case when expires_at <= ${databaseNow(this.#database.db)} then 1 else 0 end`.as('expired'),
      ])
      .where('id', '=', id)
      .executeTakeFirst();
    return row === undefined ? undefined : { ...row, held: row.held === 1, expired: row.expired === 1 };
  }
}

/** Removes expired responses, at most `limit`. @returns how many */
export async function dropExpiredRequests(database: Database, limit: number): Promise<number> {
  const now = databaseNow(database.db);
  const expired = database.db
    .selectFrom('repeatable_request')
    .select('id')
    .where('expires_at', '<=', now)
    .where('lease_until', '<=', now)
    .limit(limit);
  const dropped = await database.db.deleteFrom('repeatable_request').where('id', 'in', expired).executeTakeFirst();
  return Number(dropped.numDeletedRows);
}

function idOfKey(key: string, { user, application }: Caller): string {
  return hash('key', user.id, application.id, key);
}

function underKey(key: string, request: RequestIdentity): Reference {
  const { user, application } = request.caller;
  return {
    id: idOfKey(key, request.caller),
    fingerprint: fingerprintOf(request),
    secret: digest('secret of key', user.id, application.id, key),
  };
}

function withoutKey(request: RequestIdentity): Reference {
  const { user, application } = request.caller;
  const fingerprint = fingerprintOf(request);
  return {
    id: hash('request', user.id, application.id, fingerprint),
    fingerprint,
    secret: digest('secret of request', user.id, application.id, request.operationId, request.url, request.body),
  };
}

function fingerprintOf({ operationId, url, body }: RequestIdentity): string {
  return hash('fingerprint', operationId, url, body);
}

function digest(...parts: readonly (string | Buffer)[]): Buffer {
  const sha256 = createHash('sha256');
  // Each part is prefixed with its length, so that different lists of parts never produce the same bytes.
  for (const part of parts) sha256.update(`${Buffer.byteLength(part)}:`).update(part);
  return sha256.digest();
}

function hash(...parts: readonly (string | Buffer)[]): string {
  return digest(...parts).toString('hex');
}

const ivBytes = 12;
const tagBytes = 16;

/** Encrypts with AES-256-GCM: responses contain secrets such as the keys of shares, of which the database only stores hashes. */
function seal(value: unknown, { secret }: Reference): string {
  const iv = randomBytes(ivBytes);
  const cipher = createCipheriv('aes-256-gcm', secret, iv);
  const sealed = Buffer.concat([cipher.update(JSON.stringify(value), 'utf8'), cipher.final()]);
  return Buffer.concat([iv, cipher.getAuthTag(), sealed]).toString('base64');
}

function open(text: string, { secret }: Reference): unknown {
  const bytes = Buffer.from(text, 'base64');
  const decipher = createDecipheriv('aes-256-gcm', secret, bytes.subarray(0, ivBytes));
  decipher.setAuthTag(bytes.subarray(ivBytes, ivBytes + tagBytes));
  return JSON.parse(
    Buffer.concat([decipher.update(bytes.subarray(ivBytes + tagBytes)), decipher.final()]).toString('utf8'),
  ) as unknown;
}
