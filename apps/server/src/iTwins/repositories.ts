import { randomUUID } from 'node:crypto';
import { audit } from '../access/audit.ts';
import { isUniqueError, type Database, type Tx } from '../db/database.ts';
import type { RepositoryTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Quotas } from '../quotas/quotas.ts';

/** The properties of a repository that its creator chooses. */
export type NewRepository = Omit<RepositoryTable, 'id' | 'itwin_id'>;

/** Repositories: external data sources of an iTwin. */
export class Repositories {
  readonly #database: Database;
  readonly #quotas: Quotas;

  constructor(database: Database, quotas: Quotas) {
    this.#database = database;
    this.#quotas = quotas;
  }

  async list(
    iTwinId: string,
    filter: { class?: string | undefined; subClass?: string | undefined },
  ): Promise<RepositoryTable[]> {
    let query = this.#database.db
      .selectFrom('repository')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .orderBy('class')
      .orderBy('uri');
    if (filter.class !== undefined) query = query.where('class', '=', filter.class);
    if (filter.subClass !== undefined) query = query.where('sub_class', '=', filter.subClass);
    return query.execute();
  }

  /** @throws ApiError iTwinRepositoryNotFound */
  async get(iTwinId: string, id: string | undefined): Promise<RepositoryTable> {
    const row = await this.#database.db
      .selectFrom('repository')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', id ?? '')
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('iTwinRepositoryNotFound');
    return row;
  }

  /** @throws ApiError iTwinRepositoryExists; QuotaExceededError */
  async create(caller: Caller, iTwinId: string, repository: NewRepository): Promise<RepositoryTable> {
    const row: RepositoryTable = { id: randomUUID(), itwin_id: iTwinId, ...repository };
    return this.#write(caller, 'repository.create', row, async (tx) => {
      await this.#quotas.requireRoom(tx, 'repositories', iTwinId);
      await tx.insertInto('repository').values(row).execute();
    });
  }

  /** @throws ApiError iTwinRepositoryExists */
  async update(caller: Caller, before: RepositoryTable, change: Partial<NewRepository>): Promise<RepositoryTable> {
    const row = { ...before, ...change };
    const { id, itwin_id, ...columns } = row;
    return this.#write(caller, 'repository.update', row, async (tx) => {
      await tx.updateTable('repository').set(columns).where('id', '=', id).where('itwin_id', '=', itwin_id).execute();
    });
  }

  async #write(
    caller: Caller,
    action: string,
    row: RepositoryTable,
    write: (tx: Tx) => Promise<void>,
  ): Promise<RepositoryTable> {
    try {
      return await this.#database.db.transaction().execute(async (tx) => {
        await write(tx);
        // Leaves out the key or password: the audit log has more readers than the repository has users.
        await audit(tx, caller, {
          at: Date.now(),
          action,
          iTwinId: row.itwin_id,
          detail: { ...row, authentication: row.authentication !== null },
        });
        return row;
      });
    } catch (error) {
      if (isUniqueError(error)) throw new ApiError('iTwinRepositoryExists', { cause: error });
      throw error;
    }
  }

  /** @throws ApiError iTwinRepositoryNotFound */
  async delete(caller: Caller, iTwinId: string, id: string | undefined): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const deleted = await tx
        .deleteFrom('repository')
        .where('itwin_id', '=', iTwinId)
        .where('id', '=', id ?? '')
        .executeTakeFirst();
      if (deleted.numDeletedRows === 0n) throw new ApiError('iTwinRepositoryNotFound');
      await audit(tx, caller, { at: Date.now(), action: 'repository.delete', iTwinId, detail: { id } });
    });
  }
}
