import type { IModelAccess } from '../access/permissions.ts';
import { pageReader, readPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Config } from '../config.ts';
import type { Database, Tx } from '../db/database.ts';
import { defer, inOrder } from '../db/deferred.ts';
import type { BriefcaseTable } from '../db/schema.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { abandonPush } from '../changesets/changesets.ts';
import { nextTimestamp } from '../imodels/imodelRow.ts';
import { QuotaExceededError, type Quotas } from '../quotas/quotas.ts';
import { firstBriefcaseId, lastBriefcaseId } from './counter.ts';

const minuteMs = 60_000;

/**
 * Acquires and releases briefcases. An id is issued only once within an iModel, and never if the source had issued it before
 * the iModel was derived.
 */
export class Briefcases {
  readonly #database: Database;
  readonly #limits: Config['briefcases'];
  readonly #quotas: Quotas;

  constructor(database: Database, config: Pick<Config, 'briefcases'>, quotas: Quotas) {
    this.#quotas = quotas;
    this.#database = database;
    this.#limits = config.briefcases;
  }

  /**
   * @param minimumId lowest id that the briefcase may get: above the briefcase ids of the changesets that will be imported
   * @throws ApiError iModelNotFound, iModelNotInitialized, RateLimitExceeded; QuotaExceededError
   */
  async acquire(
    caller: Caller,
    access: IModelAccess,
    deviceName: string | null,
    minimumId = firstBriefcaseId,
  ): Promise<BriefcaseTable> {
    return this.#database.db.transaction().execute(async (tx) => {
      const [imodel] = await inOrder(
        lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push'),
        this.#requireRoom(tx, caller, access.imodel.id),
        this.#quotas.requireRoom(tx, 'briefcases', access.imodel.id),
      );
      const briefcaseId = Math.max(imodel.next_briefcase_id, minimumId);
      if (briefcaseId > lastBriefcaseId)
        throw new QuotaExceededError('All Briefcase ids of the iModel have been used.');
      const briefcase: BriefcaseTable = {
        imodel_id: imodel.id,
        briefcase_id: briefcaseId,
        owner_id: caller.user.id,
        device_name: deviceName,
        application_id: caller.application.id,
        application_name: caller.application.name,
        acquired_at: nextTimestamp(imodel),
      };
      await defer(tx, tx.insertInto('briefcase').values(briefcase).execute());
      const counted = { next_briefcase_id: briefcaseId + 1, clock: briefcase.acquired_at };
      await defer(tx, tx.updateTable('imodel').set(counted).where('id', '=', imodel.id).execute());
      await audit(tx, caller, {
        at: briefcase.acquired_at,
        action: 'briefcase.acquire',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail: { briefcaseId, deviceName },
      });
      return briefcase;
    });
  }

  /** Rules of the API: a maximum number of briefcases per user, and per user and minute. Released ones do not count. */
  async #requireRoom(tx: Tx, caller: Caller, imodelId: string): Promise<void> {
    const own = tx.selectFrom('briefcase').where('imodel_id', '=', imodelId).where('owner_id', '=', caller.user.id);
    const since = Date.now() - minuteMs;
    const [{ count }, recent] = await inOrder(
      own.select((eb) => eb.fn.countAll<number>().as('count')).executeTakeFirstOrThrow(),
      own
        .select('acquired_at')
        .where('acquired_at', '>', since)
        .where('acquired_at', '<=', since + 2 * minuteMs)
        .orderBy('acquired_at', 'desc')
        .limit(this.#limits.perMinute)
        .execute(),
    );
    if (Number(count) >= this.#limits.perUser)
      throw new QuotaExceededError('Maximum number of Briefcases per user limit reached.', {
        code: 'MaximumNumberOfBriefcasesPerUser',
      });
    if (recent.length < this.#limits.perMinute) return;
    // A time more than a minute ahead was recorded before the clock was set back.
    const waitMs = Math.min(minuteMs, (recent.at(-1)?.acquired_at ?? since) - since);
    throw new ApiError('RateLimitExceeded', {
      message: 'Maximum number of briefcases per user per minute reached.',
      headers: { 'retry-after': String(Math.max(1, Math.ceil(waitMs / 1000))) },
    });
  }

  /** @throws ApiError BriefcaseNotFound */
  async get(imodelId: string, briefcaseId: number | undefined): Promise<BriefcaseTable> {
    const row =
      briefcaseId === undefined
        ? undefined
        : await this.#database.db
            .selectFrom('briefcase')
            .selectAll()
            .where('imodel_id', '=', imodelId)
            .where('briefcase_id', '=', briefcaseId)
            .executeTakeFirst();
    if (row === undefined) throw new ApiError('BriefcaseNotFound');
    return row;
  }

  async list(imodelId: string, ownerId: string | undefined, request: PageRequest): Promise<Page<BriefcaseTable>> {
    let query = pageReader(this.#database, request)
      .selectFrom('briefcase')
      .selectAll()
      .where('imodel_id', '=', imodelId);
    if (ownerId !== undefined) query = query.where('owner_id', '=', ownerId);
    return readPage(query, request);
  }

  /** Releases a briefcase together with its locks, and abandons its unfinished push. */
  async release(caller: Caller, access: IModelAccess, briefcase: BriefcaseTable): Promise<void> {
    await this.#database.db.transaction().execute(async (tx) => {
      const imodel = await lockInitializedIModel(tx, this.#database.engine, access.imodel.id, 'push');
      const unfinished = await tx
        .selectFrom('pending_changeset')
        .selectAll()
        .where('imodel_id', '=', imodel.id)
        .where('briefcase_id', '=', briefcase.briefcase_id)
        .executeTakeFirst();
      if (unfinished !== undefined) await abandonPush(tx, unfinished, Date.now());
      for (const table of ['object_lock', 'briefcase'] as const)
        await tx
          .deleteFrom(table)
          .where('imodel_id', '=', imodel.id)
          .where('briefcase_id', '=', briefcase.briefcase_id)
          .execute();
      const detail = { briefcaseId: briefcase.briefcase_id, ownerId: briefcase.owner_id };
      await audit(tx, caller, {
        at: Date.now(),
        action: 'briefcase.release',
        iTwinId: imodel.itwin_id,
        iModelId: imodel.id,
        detail,
      });
    });
  }
}
