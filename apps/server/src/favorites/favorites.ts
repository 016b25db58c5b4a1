import type { ListedIModels } from '../access/permissions.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import type { Database } from '../db/database.ts';
import type { IModelTable, MarkTable } from '../db/schema.ts';
import type { ITwinTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { iTwinConditions, type ITwinFilter } from '../iTwins/itwins.ts';

export type PersonalListKind = MarkTable['kind'];
export type PersonalListSubject = MarkTable['subject'];

/** Rule of the API: recents kept per user; the oldest are removed. */
const maxRecents = 25;

/** Favorites and recently used iModels and iTwins of each user. */
export class FavoritesAndRecents {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Adds a favorite or a recent. Adding it again moves a recent to the front, and does not move a favorite. */
  async add(userId: string, kind: PersonalListKind, subject: PersonalListSubject, id: string): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const own = tx
        .selectFrom('mark')
        .where('user_id', '=', userId)
        .where('kind', '=', kind)
        .where('subject', '=', subject);
      const latest = await own.select((eb) => eb.fn.max('marked_at').as('at')).executeTakeFirst();
      const markedAt = Math.max(Date.now(), (latest?.at ?? 0) + 1);
      await tx
        .insertInto('mark')
        .values({ user_id: userId, kind, subject, subject_id: id, marked_at: markedAt })
        .onConflict((conflict) => {
          const columns = conflict.columns(['user_id', 'kind', 'subject', 'subject_id']);
          return kind === 'recent' ? columns.doUpdateSet({ marked_at: markedAt }) : columns.doNothing();
        })
        .execute();
      if (kind === 'favorite') return;
      const kept = await own.select('subject_id').orderBy('marked_at', 'desc').limit(maxRecents).execute();
      await tx
        .deleteFrom('mark')
        .where('user_id', '=', userId)
        .where('kind', '=', kind)
        .where('subject', '=', subject)
        .where(
          'subject_id',
          'not in',
          kept.map((row) => row.subject_id),
        )
        .execute();
    });
  }

  /** Removes a favorite or a recent. It is not an error if there is none. */
  async remove(userId: string, kind: PersonalListKind, subject: PersonalListSubject, id: string): Promise<void> {
    await this.#database.db
      .deleteFrom('mark')
      .where('user_id', '=', userId)
      .where('kind', '=', kind)
      .where('subject', '=', subject)
      .where('subject_id', '=', id)
      .execute();
  }

  /** Favorite or recent iModels of one iTwin. @param listed the iModels that the user may list; undefined for all */
  async iModels(
    userId: string,
    kind: PersonalListKind,
    iTwinId: string,
    listed: ListedIModels | undefined,
    request: PageRequest,
  ): Promise<Page<IModelTable & { marked_at: number }>> {
    let query = pageReader(this.#database, request, listed !== undefined)
      .selectFrom('imodel')
      .innerJoin('mark', 'mark.subject_id', 'imodel.id')
      .selectAll('imodel')
      .select('mark.marked_at')
      .where('mark.user_id', '=', userId)
      .where('mark.kind', '=', kind)
      .where('mark.subject', '=', 'imodel')
      .where('imodel.itwin_id', '=', iTwinId)
      .where('imodel.deleted_at', 'is', null);
    if (listed !== undefined) query = query.where(listed.condition);
    return readPage(query, request);
  }

  /** Favorite or recent iTwins that the caller may still see and that match the filter. */
  async iTwins(
    caller: Caller,
    kind: PersonalListKind,
    filter: ITwinFilter,
    request: PageRequest,
  ): Promise<Page<ITwinTable & { marked_at: number }>> {
    let query = pageReader(this.#database, request)
      .selectFrom('itwin')
      .innerJoin('mark', 'mark.subject_id', 'itwin.id')
      .selectAll('itwin')
      .select('mark.marked_at')
      .where('mark.user_id', '=', caller.user.id)
      .where('mark.kind', '=', kind)
      .where('mark.subject', '=', 'itwin');
    for (const condition of iTwinConditions(this.#database, caller, filter)) query = query.where(condition);
    return readPage(query, request);
  }
}
