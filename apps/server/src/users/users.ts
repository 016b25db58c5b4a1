import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import { BoundedCache } from '../boundedCache.ts';
import { readUnionPage, sourceWhere, type Page, type PageRequest, type PageSource } from '../db/keysetPaging.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import { isForeignKeyError, isUniqueError, type Db } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { UserAccountTable } from '../db/schemaOfITwins.ts';
import { rangesOf } from '../db/statements/historyRanges.ts';
import { userOfEntry, usersFileIssuer, type Directory } from '../access/directory.ts';
import { emailKey, type Identity, type User, type Caller } from '../domain.ts';
import { outageOf } from '../outages.ts';

/** Activity of a user on one iModel. */
export interface UserStatistics {
  pushedChangesetsCount: number;
  lastPushedAt: number | null;
  briefcasesCount: number;
  /** Milliseconds since 1970, to the minute; null for a user who never connected. */
  lastAccessAt: number | null;
  createdVersionsCount: number;
  /** By the application that acquired the briefcases. */
  applications: { id: string; name: string; ownsLocks: boolean; ownsExclusiveRootElementLock: boolean }[];
}

/**
 * Resolution of the last access. Writing on every request would make reads wait for the writer, so each server records one
 * access per minute for a user and iModel.
 */
const accessResolutionMs = 60_000;

/** Maximum number of users per statement: PostgreSQL accepts 65,535 parameters. */
const usersAtATime = 1000;

const accountById = compiledQuery((db, { id }: { id: string }) =>
  db.selectFrom('user_account').selectAll().where('id', '=', id),
);
const idByIdentity = compiledQuery((db, { issuer, subject }: Identity) =>
  db.selectFrom('user_account').select('id').where('issuer', '=', issuer).where('subject', '=', subject),
);
const lastAccess = compiledQuery((db, { imodelId, userId }: { imodelId: string; userId: string }) =>
  db.selectFrom('imodel_user').select('last_access_at').where('imodel_id', '=', imodelId).where('user_id', '=', userId),
);

/** What other users of an organization see of a user. */
export type UserProfile = Omit<User, 'identity'>;

/** The users known from tokens, and which iModels they have connected to. */
export class Users {
  readonly #db: Db;
  readonly #scans: Db;
  /**
   * Rows that this process has read or written. When more users are active than it holds, their rows are read again, and written
   * only if they differ: a read costs 2 µs on SQLite, a write a sync.
   */
  readonly #known = new BoundedCache<string, User>(10_000);
  /** Ids by issuer and subject. */
  readonly #ids = new BoundedCache<string, string>(10_000);
  readonly #connected = new BoundedCache<string, true>(50_000, { ttl: accessResolutionMs });

  /** @param scans for reads that may walk many rows */
  constructor(db: Db, scans: Db = db) {
    this.#db = db;
    this.#scans = scans;
  }

  /** Whether `remember` has nothing to do. */
  isRemembered(user: User): boolean {
    const known = this.#known.get(user.id);
    return known !== undefined && (known === user || isSame(known, user));
  }

  /** Whether `connect` has nothing to do. */
  isConnected(imodelId: string, userId: string): boolean {
    return this.#connected.has(`${imodelId}/${userId}`);
  }

  /** Records a user as described by the token. */
  async remember(user: User): Promise<void> {
    if (this.isRemembered(user)) return;
    const columns = {
      email: user.email,
      verified_email: user.email === '' ? null : emailKey(user.email),
      given_name: user.givenName,
      surname: user.surname,
      organization_id: user.organizationId,
    };
    const stored = await accountById.first(this.#db, { id: user.id });
    if (stored !== undefined && isDescribedBy(stored, columns)) {
      this.#known.set(user.id, user);
      return;
    }
    const write = () =>
      this.#db
        .insertInto('user_account')
        .values({ id: user.id, ...user.identity, ...columns, created_at: Date.now() })
        .onConflict((conflict) =>
          conflict.column('id').doUpdateSet((eb) => ({
            ...columns,
            issuer: eb.fn.coalesce('user_account.issuer', 'excluded.issuer'),
            subject: eb.fn.coalesce('user_account.subject', 'excluded.subject'),
          })),
        )
        .execute();
    const noted = await this.#note(() =>
      write().catch((error: unknown) => {
        // With concurrent first requests, the unique index on issuer and subject may report the conflict before that on the id.
        if (!isUniqueError(error)) throw error;
        return write();
      }),
    );
    if (noted) this.#known.set(user.id, user);
  }

  /**
   * Id of the user that an issuer identifies by a subject; recorded if it is new. It is the subject itself if no other user has
   * this id, which is what clients of a single issuer expect.
   * @param isReserved whether the users file assigns an id to another user
   * @param claimsEarlier whether users of an earlier version, which stored only the subject, belong to this issuer
   * @param bySubject the identity by the subject, if the issuer identifies users by another claim; a user recorded under it before
   * the claim was configured keeps the account
   */
  async idOf(
    identity: Identity,
    {
      isReserved,
      claimsEarlier,
      bySubject = identity,
    }: { isReserved: (id: string) => boolean; claimsEarlier: boolean; bySubject?: Identity },
  ): Promise<string> {
    const key = JSON.stringify([identity.issuer, identity.subject]);
    const known = this.#ids.get(key) ?? (await this.#findByIdentity(identity));
    if (known !== undefined && !isReserved(known)) {
      this.#ids.set(key, known);
      return known;
    }
    const { issuer, subject } = identity;
    const derived = derivedId(identity);
    const candidates = isPlainId(subject) && !isReserved(subject) ? [subject, derived] : [derived];
    const noted = await this.#note(async () => {
      // The users file now assigns this id to another user, so the previous one needs a new id.
      if (known !== undefined)
        await this.#db
          .updateTable('user_account')
          .set({ issuer: usersFileIssuer, subject: known })
          .where('id', '=', known)
          .execute();
      if (claimsEarlier && isPlainId(bySubject.subject) && !isReserved(bySubject.subject))
        await this.#db
          .updateTable('user_account')
          .set(identity)
          .where('id', '=', bySubject.subject)
          .where('issuer', 'is', null)
          .execute();
      if (known === undefined && bySubject !== identity) {
        const account = await this.#findByIdentity(bySubject);
        if (account !== undefined && !isReserved(account)) await this.#identify(account, identity);
      }
      for (const id of candidates) {
        await this.#db
          .insertInto('user_account')
          .values({
            id,
            issuer,
            subject,
            email: '',
            verified_email: null,
            given_name: '',
            surname: '',
            organization_id: null,
            created_at: Date.now(),
          })
          .onConflict((conflict) => conflict.doNothing())
          .execute();
        if ((await this.#findByIdentity(identity)) !== undefined) return;
      }
    });
    const id = noted ? await this.#findByIdentity(identity) : undefined;
    if (id === undefined) return derived;
    this.#ids.set(key, id);
    return id;
  }

  /** Changes what identifies a user. Nothing happens if a concurrent request did so. */
  async #identify(id: string, identity: Identity): Promise<void> {
    try {
      await this.#db.updateTable('user_account').set(identity).where('id', '=', id).execute();
    } catch (error) {
      if (!isUniqueError(error)) throw error;
    }
  }

  async #findByIdentity(identity: Identity): Promise<string | undefined> {
    return (await idByIdentity.first(this.#db, identity))?.id;
  }

  /** Records that a user accessed an iModel, once a minute. Rule of the API: the users of an iModel are all users who ever accessed it. */
  async connect(imodelId: string, userId: string): Promise<void> {
    const key = `${imodelId}/${userId}`;
    if (this.#connected.has(key)) return;
    const now = Date.now();
    const stored = await lastAccess.first(this.#db, { imodelId, userId });
    const age = now - (stored?.last_access_at ?? -Infinity);
    if (age >= 0 && age < accessResolutionMs) {
      // Recorded by another server, or by this one before it forgot: due again when that record is a minute old.
      this.#connected.set(key, true, { ttl: accessResolutionMs - age });
      return;
    }
    const noted = await this.#note(async () => {
      try {
        await this.#db
          .insertInto('imodel_user')
          .values({ imodel_id: imodelId, user_id: userId, first_access_at: now, last_access_at: now })
          .onConflict((conflict) => conflict.columns(['imodel_id', 'user_id']).doUpdateSet({ last_access_at: now }))
          .execute();
      } catch (error) {
        if (!isForeignKeyError(error)) throw error; // The iModel was deleted in the meantime.
      }
    });
    if (noted) this.#connected.set(key, true);
  }

  /** Executes a secondary write that must not fail a read request on a full disk. @returns whether it was written */
  async #note(write: () => Promise<unknown>): Promise<boolean> {
    try {
      await write();
      return true;
    } catch (error) {
      if (outageOf(error) !== 'noSpace') throw error;
      return false;
    }
  }

  /** The only user with this verified e-mail address; undefined if several have it. */
  async findByEmail(email: string): Promise<UserAccountTable | undefined> {
    const [only, ...others] = await this.#db
      .selectFrom('user_account')
      .selectAll()
      .where('verified_email', '=', emailKey(email))
      .limit(2)
      .execute();
    return others.length === 0 ? only : undefined;
  }

  /**
   * The users of an iTwin whose names and organization a caller may see: the caller, users of the same organizations, the creator of
   * the iTwin, and users who have opened one of its iModels. Anybody can create an iTwin and add anybody to it, which must not
   * disclose who a user is.
   */
  async knownTo(caller: Caller, iTwinId: string, users: readonly UserAccountTable[]): Promise<ReadonlySet<string>> {
    const organizations = new Set([caller.user.organizationId, ...caller.administeredOrganizationIds]);
    organizations.delete(null);
    const isKnown = ({ id, organization_id }: UserAccountTable): boolean =>
      id === caller.user.id || organizations.has(organization_id);
    const known = new Set(users.filter(isKnown).map(({ id }) => id));
    const others = [...new Set(users.map(({ id }) => id))].filter((id) => !known.has(id));
    for (let start = 0; start < others.length; start += usersAtATime) {
      const some = others.slice(start, start + usersAtATime);
      // A cross join keeps the order: SQLite would try every user in every iModel of the iTwin (2.5 s for 100 users and 100,000 iModels).
      const active = this.#db
        .selectFrom('user_account')
        .select('user_account.id')
        .where('user_account.id', 'in', some)
        .where((eb) =>
          eb.exists(
            eb
              .selectFrom('imodel_user as u')
              .crossJoin('imodel as m')
              .select('u.user_id')
              .whereRef('u.user_id', '=', 'user_account.id')
              .whereRef('m.id', '=', 'u.imodel_id')
              .where('m.itwin_id', '=', iTwinId)
              .where('m.deleted_at', 'is', null)
              // The offset keeps PostgreSQL from reading the users of all iModels at once (0.2 s for 10,000 members).
              .limit(sql.lit(1))
              .offset(sql.lit(0)),
          ),
        );
      const maker = this.#db
        .selectFrom('itwin')
        .select('owner_id as id')
        .where('id', '=', iTwinId)
        .where('owner_id', 'in', some);
      for (const { id } of await active.union(maker).execute()) known.add(id);
    }
    return known;
  }

  async find(id: string): Promise<UserAccountTable | undefined> {
    return this.#db.selectFrom('user_account').selectAll().where('id', '=', id).executeTakeFirst();
  }

  /** The users with these ids, in their order, as the users file describes them or else as they were recorded. Others are left out. */
  async profiles(ids: readonly string[], directory: Pick<Directory, 'findUserById'>): Promise<UserProfile[]> {
    const found = new Map<string, UserProfile>();
    for (let start = 0; start < ids.length; start += usersAtATime) {
      const some = ids.slice(start, start + usersAtATime);
      const rows = await this.#db.selectFrom('user_account').selectAll().where('id', 'in', some).execute();
      for (const { id, email, given_name, surname, organization_id } of rows)
        found.set(id, { id, email, givenName: given_name, surname, organizationId: organization_id });
    }
    return ids.flatMap((id) => {
      const entry = directory.findUserById(id);
      // The file may have changed since the user's last request. Without an organization in it, that of the token counts.
      const listed = entry === undefined ? undefined : userOfEntry(entry);
      const recorded = found.get(id);
      const profile =
        listed === undefined
          ? recorded
          : { ...listed, organizationId: listed.organizationId ?? recorded?.organizationId ?? null };
      return profile === undefined ? [] : [profile];
    });
  }

  /** All users who connected to an iModel, and its creator. */
  async list(imodel: IModelTable, request: PageRequest): Promise<Page<UserAccountTable>> {
    const accounts = this.#scans.selectFrom('user_account').selectAll();
    const connected = this.#scans.selectFrom('imodel_user').where('imodel_id', '=', imodel.id);
    const sources: PageSource[] = [
      { query: connected, id: 'user_id', columns: { id: 'user_id' } },
      sourceWhere(accounts, sql<boolean>`id = ${imodel.creator_id}`, 'id'),
    ];
    return readUnionPage(accounts, sources, 'user_account.id', request);
  }

  /**
   * One user of an iModel: a user who connected, its creator, or the creator of a visible changeset. The last kind makes the creator
   * links of a clone's changesets work, although a clone starts without users.
   */
  async findOf(imodel: IModelTable, userId: string): Promise<UserAccountTable | undefined> {
    const user = await this.find(userId);
    if (user === undefined || user.id === imodel.creator_id) return user;
    const connected = await this.#db
      .selectFrom('imodel_user')
      .select('user_id')
      .where('imodel_id', '=', imodel.id)
      .where('user_id', '=', userId)
      .executeTakeFirst();
    if (connected !== undefined) return user;
    if (imodel.history_id === null) return undefined;
    const pushed = await this.#db
      .selectFrom(rangesOf(imodel.history_id, 1, imodel.head_index).as('h'))
      .crossJoin('changeset as c')
      .select('c.index')
      .whereRef('c.segment_id', '=', 'h.segment_id')
      .where('c.creator_id', '=', userId)
      .whereRef('c.index', '>=', 'h.first_index')
      .whereRef('c.index', '<=', 'h.last_index')
      .limit(1)
      .executeTakeFirst();
    return pushed === undefined ? undefined : user;
  }

  /** Activity of users on this iModel itself, without the changesets that it inherited from its source. */
  async statistics(imodelId: string, userIds: readonly string[]): Promise<Map<string, UserStatistics>> {
    const result = new Map(
      userIds.map((id): [string, UserStatistics] => [
        id,
        {
          pushedChangesetsCount: 0,
          lastPushedAt: null,
          briefcasesCount: 0,
          lastAccessAt: null,
          createdVersionsCount: 0,
          applications: [],
        },
      ]),
    );
    if (userIds.length === 0) return result;
    const pushes = await this.#db
      .selectFrom('push_count')
      .select(['user_id', 'pushes', 'last_pushed_at'])
      .where('imodel_id', '=', imodelId)
      .where('user_id', 'in', userIds)
      .execute();
    for (const row of pushes)
      Object.assign(result.get(row.user_id) ?? {}, {
        pushedChangesetsCount: row.pushes,
        lastPushedAt: row.last_pushed_at,
      });
    // The last version of each creator has their number: a seek, where counting them grows with them.
    const versions = await this.#db
      .selectFrom('user_account as a')
      .select((eb) => [
        'a.id',
        eb
          .selectFrom('named_version as v')
          .select('v.creator_count')
          .where('v.imodel_id', '=', imodelId)
          .whereRef('v.creator_id', '=', 'a.id')
          .orderBy('v.creator_count', 'desc')
          .limit(sql.lit(1))
          .as('count'),
      ])
      .where('a.id', 'in', userIds)
      .execute();
    for (const { id, count } of versions) Object.assign(result.get(id) ?? {}, { createdVersionsCount: count ?? 0 });
    const accesses = await this.#db
      .selectFrom('imodel_user')
      .select(['user_id', 'first_access_at', 'last_access_at'])
      .where('imodel_id', '=', imodelId)
      .where('user_id', 'in', userIds)
      .execute();
    for (const row of accesses)
      Object.assign(result.get(row.user_id) ?? {}, { lastAccessAt: row.last_access_at ?? row.first_access_at });
    for (const row of await this.#briefcases(imodelId, userIds)) {
      const statistics = result.get(row.owner_id) as UserStatistics;
      statistics.briefcasesCount++;
      let application = statistics.applications.find(({ id }) => id === row.application_id);
      if (application === undefined) {
        application = {
          id: row.application_id,
          name: row.application_name,
          ownsLocks: false,
          ownsExclusiveRootElementLock: false,
        };
        statistics.applications.push(application);
      }
      application.ownsLocks ||= Boolean(row.owns_locks);
      application.ownsExclusiveRootElementLock ||= Boolean(row.owns_root);
    }
    return result;
  }

  /** Briefcases of some users, each with whether it holds locks, and the exclusive one on the root element `0x1`. */
  async #briefcases(imodelId: string, userIds: readonly string[]) {
    return this.#db
      .selectFrom('briefcase as b')
      .select((eb) => {
        const locks = eb
          .selectFrom('object_lock as l')
          .select('l.object_id')
          .whereRef('l.imodel_id', '=', 'b.imodel_id')
          .whereRef('l.briefcase_id', '=', 'b.briefcase_id');
        return [
          'b.owner_id',
          'b.application_id',
          'b.application_name',
          eb.exists(locks).as('owns_locks'),
          eb.exists(locks.where('l.object_id', '=', '0x1').where('l.level', '=', 'exclusive')).as('owns_root'),
        ];
      })
      .where('b.imodel_id', '=', imodelId)
      .where('b.owner_id', 'in', userIds)
      .orderBy('b.briefcase_id')
      .execute();
  }
}

/** The columns of a user account that a token describes. */
type DescribedColumns = Pick<
  UserAccountTable,
  'email' | 'verified_email' | 'given_name' | 'surname' | 'organization_id'
>;

/** Whether recording a user again would change nothing. Issuer and subject are only filled in, never replaced. */
function isSame(one: User, other: User): boolean {
  return (
    one.id === other.id &&
    one.identity.issuer === other.identity.issuer &&
    one.identity.subject === other.identity.subject &&
    one.email === other.email &&
    one.givenName === other.givenName &&
    one.surname === other.surname &&
    one.organizationId === other.organizationId
  );
}

function isDescribedBy(stored: UserAccountTable, columns: DescribedColumns): boolean {
  return (
    stored.issuer !== null &&
    stored.subject !== null &&
    stored.email === columns.email &&
    stored.verified_email === columns.verified_email &&
    stored.given_name === columns.given_name &&
    stored.surname === columns.surname &&
    stored.organization_id === columns.organization_id
  );
}

/** Whether a subject can serve as user id: it must not look like an e-mail address or the holder of a share. */
function isPlainId(subject: string): boolean {
  return !subject.includes('@') && !subject.startsWith('share:');
}

/** A separate user id: a version 8 UUID derived from issuer and subject, so that all servers compute the same id. */
function derivedId({ issuer, subject }: Identity): string {
  const digits = createHash('sha256').update(`${issuer}\0${subject}`).digest('hex');
  return [
    digits.slice(0, 8),
    digits.slice(8, 12),
    `8${digits.slice(13, 16)}`,
    `8${digits.slice(17, 20)}`,
    digits.slice(20, 32),
  ].join('-');
}
