import { randomInt } from 'node:crypto';
import { setTimeout as pause } from 'node:timers/promises';
import type { FastifyBaseLogger } from 'fastify';
import { sql, type RawBuilder } from 'kysely';
import type { Database } from '../db/database.ts';
import { outsideRequest } from '../db/requestOutcomes.ts';
import { contains } from './contains.ts';
import { isOneOf, searchKeys, valuesOf } from './searchKeys.ts';

/** iModels of an iTwin that a search looks at without the index. With more, the index is brought up to date. */
const mostUnindexed = 1000;

/** iModels that a search looks at because they have a key of the text. With more, walking the list finds a page as fast. */
const mostCandidates = 500;

/** Keys of the text whose frequency is looked up. */
const mostProbed = 24;

/** iModels and keys that one transaction adds: about 5 ms on SQLite, whose statements run on the main thread. */
const iModelsAtOnce = 30;
const keysAtOnce = 900;

/** iTwins that wait to be indexed; others wait for their next search. */
const mostWaiting = 100;

/** Numbers of iModels in the index; the range is the largest of `randomInt`. */
const docs = 2 ** 47;

/**
 * An index for `$search` on the iModels of an iTwin. It only selects candidates, whose text is compared in the same way as without it.
 * A search brings it up to date in the background if it had to look at more than 1,000 iModels that are not in it. Creating or cloning
 * an iModel therefore adds nothing to it, and neither does an iTwin with few iModels.
 */
export class SearchIndex {
  readonly #database: Database;
  readonly #log: FastifyBaseLogger;
  readonly #waiting = new Set<string>();
  readonly #ending = new AbortController();
  #filling: Promise<void> | undefined;
  /** SQLite would decide by statistics, in which the iModels that are not in the index yet may be most of all. */
  readonly #iModels: RawBuilder<unknown>;

  constructor(database: Database, log: FastifyBaseLogger) {
    this.#database = database;
    this.#iModels = sql.raw(database.engine === 'sqlite' ? 'imodel indexed by imodel_search' : 'imodel');
    this.#log = log;
  }

  /**
   * The ids of the iModels of an iTwin whose text contains the given one. Undefined if the list has to be walked: the text has fewer
   * than three characters, or too many iModels are not in the index or have all keys of the text.
   */
  async find(iTwinId: string, search: string): Promise<string[] | undefined> {
    const keys = searchKeys(iTwinId, search.toLowerCase()).slice(0, mostProbed);
    if (keys.length === 0) return undefined;
    if ((await this.#unindexed(iTwinId)) === mostUnindexed) {
      this.#request(iTwinId);
      return undefined;
    }
    const { key, count } = await this.#rarest(keys);
    if (count === mostCandidates) return undefined;
    const { scans } = this.#database;
    // An iModel that is added to the index meanwhile must be found, so both parts are one statement.
    const ofIModels = (condition: ReturnType<typeof sql>) =>
      sql`select id from ${this.#iModels} where itwin_id = ${iTwinId} and deleted_at is null and ${condition} and ${contains(this.#database, 'search_text', search)}`;
    const { rows } = await sql<{ id: string }>`${ofIModels(sql`search_doc is null`)}
      union all ${ofIModels(isOneOf(scans, 'search_doc', sql`select doc from search_key where key = ${key}`))}`.execute(
      scans,
    );
    return rows.map(({ id }) => id);
  }

  /** Ends the filling of the index after its current transaction. */
  async stop(): Promise<void> {
    this.#ending.abort();
    await this.#filling;
  }

  /** How many iModels are not in the index, counted up to a limit. */
  async #unindexed(iTwinId: string): Promise<number> {
    const { rows } = await sql<{ count: number }>`select count(*) as count from (select 1 from ${this.#iModels}
      where itwin_id = ${iTwinId} and deleted_at is null and search_doc is null limit ${sql.lit(mostUnindexed)}) as counted`.execute(
      this.#database.scans,
    );
    return rows[0]?.count ?? 0;
  }

  /** The key that the fewest iModels have, counted up to a limit. */
  async #rarest(keys: readonly number[]): Promise<{ key: number; count: number }> {
    const { scans } = this.#database;
    const { rows } = await sql<{ key: number; count: number }>`select listed.value as key,
      (select count(*) from (select 1 from search_key where search_key.key = listed.value limit ${sql.lit(mostCandidates)}) as counted) as count
      from ${valuesOf(scans, keys, 'bigint')} order by 2 limit 1`.execute(scans);
    return rows[0] as { key: number; count: number };
  }

  #request(iTwinId: string): void {
    if (this.#ending.signal.aborted || this.#waiting.size >= mostWaiting) return;
    this.#waiting.add(iTwinId);
    this.#filling ??= outsideRequest(() => this.#fill()).finally(() => (this.#filling = undefined));
  }

  async #fill(): Promise<void> {
    const { db, engine } = this.#database;
    for (const iTwinId of this.#waiting) {
      try {
        for (let added = 1; added > 0 && !this.#ending.signal.aborted;) {
          const began = performance.now();
          added = await this.#addSome(iTwinId);
          // Other writers get half of the time.
          await pause(performance.now() - began);
        }
        // By its statistics, PostgreSQL would go on to read the table as if all iModels were still missing in the index.
        if (engine === 'postgres') await sql`analyze imodel, search_key`.execute(db);
      } catch (error) {
        this.#log.warn({ err: error, iTwinId }, 'the search index could not be filled; the next search tries again');
      }
      this.#waiting.delete(iTwinId);
    }
  }

  /** Adds some iModels to the index. @returns how many */
  async #addSome(iTwinId: string): Promise<number> {
    const { db, engine } = this.#database;
    return db.transaction().execute(async (tx) => {
      const missing = tx
        .selectFrom('imodel')
        .select(['id', 'search_text'])
        .where('itwin_id', '=', iTwinId)
        .where('deleted_at', 'is', null)
        .where('search_doc', 'is', null)
        .limit(sql.lit(iModelsAtOnce));
      // Their texts must not change before the end; another server may be adding others.
      const found = await (engine === 'postgres' ? missing.forNoKeyUpdate().skipLocked() : missing).execute();
      const keys: [key: number, doc: number][] = [];
      const added: [id: string, doc: number][] = [];
      for (const { id, search_text } of found) {
        if (keys.length > keysAtOnce) break;
        const doc = randomInt(docs);
        added.push([id, doc]);
        for (const key of searchKeys(iTwinId, search_text)) keys.push([key, doc]);
      }
      if (added.length === 0) return 0;
      const pairs = (list: readonly (readonly [string | number, number])[]) =>
        engine === 'postgres'
          ? sql`json_array_elements(cast(${JSON.stringify(list)} as json)) as pair (value)`
          : sql`json_each(${JSON.stringify(list)}) as pair`;
      const int = sql.raw(engine === 'postgres' ? 'bigint' : 'integer');
      await sql`insert into search_key (key, doc) select cast(pair.value ->> 0 as ${int}), cast(pair.value ->> 1 as ${int})
        from ${pairs(keys)}`.execute(tx);
      await sql`update imodel set search_doc = cast(pair.value ->> 1 as ${int}) from ${pairs(added)}
        where imodel.id = pair.value ->> 0`.execute(tx);
      return added.length;
    });
  }
}
