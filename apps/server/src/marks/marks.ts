import { readPage, type Page, type PageRequest } from '../api/paging.ts';
import { isForeignKeyError, type Database } from '../db/database.ts';
import type { IModelTable, MarkedIModelTable } from '../db/schema.ts';
import { ApiError } from '../errors.ts';

export type MarkKind = MarkedIModelTable['kind'];

/** Rule of the API: recents that are kept of one user; the oldest go. */
const maxRecents = 25;

/** iModels that a user marked: favorites, and those used of late. Each user's own. */
export class Marks {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  /** Marks an iModel; marking it again moves it to the front of the recents and leaves a favorite where it is. */
  async add(userId: string, kind: MarkKind, imodelId: string): Promise<void> {
    try {
      await this.#database.db.transaction().execute(async (tx) => {
        const own = tx.selectFrom('marked_imodel').where('user_id', '=', userId).where('kind', '=', kind);
        const latest = await own.select((eb) => eb.fn.max('marked_at').as('at')).executeTakeFirst();
        const markedAt = Math.max(Date.now(), (latest?.at ?? 0) + 1);
        await tx
          .insertInto('marked_imodel')
          .values({ user_id: userId, kind, imodel_id: imodelId, marked_at: markedAt })
          .onConflict((conflict) => {
            const columns = conflict.columns(['user_id', 'kind', 'imodel_id']);
            return kind === 'recent' ? columns.doUpdateSet({ marked_at: markedAt }) : columns.doNothing();
          })
          .execute();
        if (kind === 'favorite') return;
        const kept = await own.select('imodel_id').orderBy('marked_at', 'desc').limit(maxRecents).execute();
        await tx
          .deleteFrom('marked_imodel')
          .where('user_id', '=', userId)
          .where('kind', '=', kind)
          .where('imodel_id', 'not in', kept.map((row) => row.imodel_id))
          .execute();
      });
    } catch (error) {
      if (isForeignKeyError(error)) throw new ApiError('iModelNotFound', { cause: error });
      throw error;
    }
  }

  /** Takes a mark away; none there is no error. */
  async remove(userId: string, kind: MarkKind, imodelId: string): Promise<void> {
    await this.#database.db.deleteFrom('marked_imodel').where('user_id', '=', userId).where('kind', '=', kind).where('imodel_id', '=', imodelId).execute();
  }

  /** Marked iModels of one iTwin. @param hidden iModels that the user may not see */
  async list(userId: string, kind: MarkKind, iTwinId: string, hidden: readonly string[], request: PageRequest): Promise<Page<IModelTable & { marked_at: number }>> {
    let query = this.#database.db
      .selectFrom('imodel')
      .innerJoin('marked_imodel', 'marked_imodel.imodel_id', 'imodel.id')
      .selectAll('imodel')
      .select('marked_imodel.marked_at')
      .where('marked_imodel.user_id', '=', userId)
      .where('marked_imodel.kind', '=', kind)
      .where('imodel.itwin_id', '=', iTwinId)
      .where('imodel.deleted_at', 'is', null);
    if (hidden.length > 0) query = query.where('imodel.id', 'not in', hidden);
    return readPage(query, request);
  }
}
