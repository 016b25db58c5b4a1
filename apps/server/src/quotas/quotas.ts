import { LRUCache } from 'lru-cache';
import type { Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import type { ErrorDetail } from '../errors.ts';
import { FinalError } from '../operations/reasons.ts';
import { accountOf, type Account, type AccountHolder } from './accounts.ts';

const gib = 2 ** 30;
/** A sum over many rows counts for so long, with what this server has added since. Before anything is refused it is read anew. */
const keptMs = 30_000;

/** What an installation lets one tenant have is used up. */
export class QuotaExceededError extends FinalError {
  /** Rule of the API: the detail of the operation's own 422. */
  readonly detail: ErrorDetail;

  constructor(message: string, innerError?: { code: string }) {
    super(message);
    this.name = 'QuotaExceededError';
    this.detail = { code: 'ResourceQuotaExceeded', message, ...(innerError !== undefined && { innerError }) };
  }
}

/** What is counted for one iTwin or iModel, whenever one is added. */
const counted = {
  webhooks: { table: 'webhook', column: 'itwin_id', text: 'Webhooks per iTwin' },
  repositories: { table: 'repository', column: 'itwin_id', text: 'Repositories per iTwin' },
  shares: { table: 'share', column: 'imodel_id', text: 'Shares per iModel' },
  briefcases: { table: 'briefcase', column: 'imodel_id', text: 'Briefcases per iModel' },
  namedVersions: { table: 'named_version', column: 'imodel_id', text: 'Named Versions per iModel' },
} as const;

/** What is used of something, and how much there may be; null is no limit. */
export interface Used {
  used: number;
  limit: number | null;
}
export interface Usage {
  bytes: Used;
  iModels: Used;
}

/**
 * Limits on what one tenant stores. A limit of 0 is none. Bytes count when they are announced, and until the collector has
 * taken them away. Servers on one database each know what the others added half a minute late.
 */
export class Quotas {
  readonly limits: Config['quotas'];
  readonly #known = new LRUCache<string, number>({ max: 10_000, ttl: keptMs, noUpdateTTL: true });

  constructor(limits: Config['quotas']) {
    this.limits = limits;
  }

  /** Largest file of a kind, bytes; null where any may be stored. */
  largest(kind: 'baseline' | 'changeset'): number | null {
    const limit = kind === 'baseline' ? this.limits.baselineGiB : this.limits.changesetGiB;
    return limit === 0 ? null : Math.floor(limit * gib);
  }

  /** @param bytes that are going to be stored on the account; 0 asks whether there is room at all. @throws QuotaExceededError */
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

  /** Asks for room for one more iModel. @throws QuotaExceededError */
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

  /** Asks for room for one more, in the transaction that adds it. @param ownerId of the iTwin or iModel. @throws QuotaExceededError */
  async requireRoom(db: Db, kind: keyof typeof counted, ownerId: string): Promise<void> {
    const limit = this.limits[kind];
    if (limit === 0) return;
    if ((await this.#count(db, counted[kind], ownerId)) >= limit)
      throw new QuotaExceededError(`Maximum number of ${counted[kind].text} limit reached: ${limit}.`);
  }

  /** What an iTwin uses. */
  async ofITwin(db: Db, { id }: AccountHolder): Promise<Usage & { webhooks: Used; repositories: Used }> {
    const { iTwinGiB, iTwinIModels, webhooks, repositories } = this.limits;
    return {
      bytes: used(await bytesOf(db, 'itwin_id', id), iTwinGiB * gib),
      iModels: used(await iModelsOfITwin(db, id), iTwinIModels),
      webhooks: used(await this.#count(db, counted.webhooks, id), webhooks),
      repositories: used(await this.#count(db, counted.repositories, id), repositories),
    };
  }

  /** What the organization of an iTwin uses or, where it belongs to none, whoever made it. */
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
    // Nothing to add: there is room as long as the limit is not reached.
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

/** An index holds all that this needs: some 20 million rows a second. */
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
