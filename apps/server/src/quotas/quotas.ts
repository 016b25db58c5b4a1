import { BoundedCache } from '../boundedCache.ts';
import type { Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import type { ErrorDetail } from '../errors.ts';
import { FinalError } from '../operations/reasons.ts';
import { accountOf, type Account, type AccountHolder } from './accounts.ts';

const gib = 2 ** 30;
/** How long a sum over many rows is cached, plus what this server has added since. It is recomputed before a request is refused. */
const keptMs = 30_000;

/** A tenant has reached one of its limits. */
export class QuotaExceededError extends FinalError {
  /** Rule of the API: reported as a detail of the operation's 422 error. */
  readonly detail: ErrorDetail;

  constructor(message: string, innerError?: { code: string }) {
    super(message);
    this.name = 'QuotaExceededError';
    this.detail = { code: 'ResourceQuotaExceeded', message, ...(innerError !== undefined && { innerError }) };
  }
}

/** Resources that are counted per iTwin or iModel when one is added. */
const counted = {
  webhooks: { table: 'webhook', column: 'itwin_id', text: 'Webhooks per iTwin' },
  repositories: { table: 'repository', column: 'itwin_id', text: 'Repositories per iTwin' },
  shares: { table: 'share', column: 'imodel_id', text: 'Shares per iModel' },
  briefcases: { table: 'briefcase', column: 'imodel_id', text: 'Briefcases per iModel' },
  namedVersions: { table: 'named_version', column: 'imodel_id', text: 'Named Versions per iModel' },
} as const;

/** Usage and limit of one resource; a limit of null is unlimited. */
export interface Used {
  used: number;
  limit: number | null;
}
export interface Usage {
  bytes: Used;
  iModels: Used;
}

/**
 * Limits on what one tenant stores; 0 means unlimited. Bytes count from the moment their upload is announced until the
 * collector has removed them. A server sees the bytes added by other servers on the same database after at most 30 s.
 */
export class Quotas {
  readonly limits: Config['quotas'];
  readonly #known = new BoundedCache<string, number>(10_000, { ttl: keptMs, noUpdateTTL: true });

  constructor(limits: Config['quotas']) {
    this.limits = limits;
  }

  /** Maximum size of a file of this kind, bytes; null if unlimited. */
  largest(kind: 'baseline' | 'changeset'): number | null {
    const limit = kind === 'baseline' ? this.limits.baselineGiB : this.limits.changesetGiB;
    return limit === 0 ? null : Math.floor(limit * gib);
  }

  /** @param bytes to be charged to the account; 0 checks that its limit is not reached yet. @throws QuotaExceededError */
  async requireBytes(db: Db, { itwin_id, account_id }: Account, bytes: number): Promise<void> {
    const { iTwinGiB, organizationGiB } = this.limits;
    if (itwin_id !== null)
      await this.#require(
        `Maximum number of bytes per iTwin limit reached: ${iTwinGiB} GiB.`,
        `bytes ${itwin_id}`,
        iTwinGiB * gib,
        bytes,
        () => bytesOf(db, 'itwin_id', itwin_id),
      );
    if (account_id !== null)
      await this.#require(
        `Maximum number of bytes per organization limit reached: ${organizationGiB} GiB.`,
        `bytes ${account_id}`,
        organizationGiB * gib,
        bytes,
        () => bytesOf(db, 'account_id', account_id),
      );
  }

  /** Checks that one more iModel is allowed. @throws QuotaExceededError */
  async requireIModel(db: Db, itwin: AccountHolder): Promise<void> {
    const { iTwinIModels, organizationIModels } = this.limits;
    const { itwin_id, account_id } = accountOf(itwin);
    await this.#require(
      `Maximum number of iModels per iTwin limit reached: ${iTwinIModels}.`,
      `iModels ${itwin_id}`,
      iTwinIModels,
      1,
      () => iModelsOfITwin(db, itwin_id),
    );
    await this.#require(
      `Maximum number of iModels per organization limit reached: ${organizationIModels}.`,
      `iModels ${account_id}`,
      organizationIModels,
      1,
      () => iModelsOfOwner(db, itwin),
    );
  }

  /** Checks that one more resource is allowed, in the transaction that adds it. @param ownerId id of the iTwin or iModel. @throws QuotaExceededError */
  async requireRoom(db: Db, kind: keyof typeof counted, ownerId: string): Promise<void> {
    const limit = this.limits[kind];
    if (limit === 0) return;
    if ((await this.#count(db, counted[kind], ownerId)) >= limit)
      throw new QuotaExceededError(`Maximum number of ${counted[kind].text} limit reached: ${limit}.`);
  }

  /** Usage of an iTwin. */
  async ofITwin(db: Db, { id }: AccountHolder): Promise<Usage & { webhooks: Used; repositories: Used }> {
    const { iTwinGiB, iTwinIModels, webhooks, repositories } = this.limits;
    return {
      bytes: used(await bytesOf(db, 'itwin_id', id), iTwinGiB * gib),
      iModels: used(await iModelsOfITwin(db, id), iTwinIModels),
      webhooks: used(await this.#count(db, counted.webhooks, id), webhooks),
      repositories: used(await this.#count(db, counted.repositories, id), repositories),
    };
  }

  /** Usage of the organization of an iTwin or, without one, of its creator. */
  async ofOrganization(db: Db, itwin: AccountHolder): Promise<Usage> {
    const { organizationGiB, organizationIModels } = this.limits;
    return {
      bytes: used(await bytesOf(db, 'account_id', accountOf(itwin).account_id), organizationGiB * gib),
      iModels: used(await iModelsOfOwner(db, itwin), organizationIModels),
    };
  }

  async #require(
    message: string,
    key: string,
    limit: number,
    added: number,
    read: () => Promise<number>,
  ): Promise<void> {
    if (limit === 0) return;
    let known = this.#known.get(key);
    if (known === undefined || known + added > limit) {
      this.#known.delete(key);
      known = await read();
    }
    // Without bytes to add, the request is allowed as long as the limit is not reached.
    if (known + Math.max(added, 1) > limit) throw new QuotaExceededError(message);
    this.#known.set(key, known + added);
  }

  async #count(
    db: Db,
    { table, column }: Pick<(typeof counted)[keyof typeof counted], 'table' | 'column'>,
    ownerId: string,
  ): Promise<number> {
    const { n } = await db
      .selectFrom(table)
      .select((eb) => eb.fn.countAll<number>().as('n'))
      .where(column as 'itwin_id', '=', ownerId)
      .executeTakeFirstOrThrow();
    return Number(n);
  }
}

function used(count: number, limit: number): Used {
  return { used: count, limit: limit === 0 ? null : Math.floor(limit) };
}

/** Covered by an index: about 20 million rows per second. */
async function bytesOf(db: Db, column: 'itwin_id' | 'account_id', id: string): Promise<number> {
  const { bytes } = await db
    .selectFrom('blob')
    .select((eb) => eb.fn.sum<number | string | null>('size').as('bytes'))
    .where(column, '=', id)
    .executeTakeFirstOrThrow();
  return Number(bytes ?? 0);
}

async function iModelsOfITwin(db: Db, iTwinId: string): Promise<number> {
  const { n } = await db
    .selectFrom('imodel')
    .select((eb) => eb.fn.countAll<number>().as('n'))
    .where('itwin_id', '=', iTwinId)
    .where('deleted_at', 'is', null)
    .executeTakeFirstOrThrow();
  return Number(n);
}

async function iModelsOfOwner(db: Db, { organization_id, owner_id }: AccountHolder): Promise<number> {
  const all = db
    .selectFrom('imodel as m')
    .innerJoin('itwin as i', 'i.id', 'm.itwin_id')
    .where('m.deleted_at', 'is', null)
    .where('i.deleted_at', 'is', null);
  const own =
    organization_id === null
      ? all.where('i.organization_id', 'is', null).where('i.owner_id', '=', owner_id)
      : all.where('i.organization_id', '=', organization_id);
  const { n } = await own.select((eb) => eb.fn.countAll<number>().as('n')).executeTakeFirstOrThrow();
  return Number(n);
}
