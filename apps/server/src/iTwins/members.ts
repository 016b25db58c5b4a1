import { randomUUID } from 'node:crypto';
import { sql, type SelectQueryBuilder } from 'kysely';
import { userOfEntry, type Directory, type DirectoryUser } from '../access/directory.ts';
import { requireHeld, withIncluded, type ITwinAccess } from '../access/permissions.ts';
import {
  pageReader,
  readPage,
  readUnionPage,
  type Page,
  type PageRequest,
  type PageSource,
} from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import { isForeignKeyError, type Database } from '../db/database.ts';
import type { RoleTable, UserAccountTable } from '../db/schemaOfITwins.ts';
import type { Caller, Permission } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Users } from '../users/users.ts';

export interface Role {
  id: string;
  displayName: string;
  description: string | null;
  permissions: Permission[];
}

export interface Member {
  user: UserAccountTable;
  roles: Role[];
}

/** Roles of iTwins and who holds them. */
export class Members {
  readonly #database: Database;
  readonly #users: Users;
  readonly #directory: Directory;

  constructor(database: Database, users: Users, directory: Directory) {
    this.#database = database;
    this.#users = users;
    this.#directory = directory;
  }

  async rolesPage(iTwinId: string, request: PageRequest): Promise<Page<Role>> {
    const page = await readPage(
      pageReader(this.#database, request).selectFrom('role').selectAll().where('itwin_id', '=', iTwinId),
      request,
    );
    return { ...page, items: page.items.map(toRole) };
  }

  /** @throws ApiError RoleNotFound */
  async role(iTwinId: string, roleId: string): Promise<Role> {
    const row = await this.#database.db
      .selectFrom('role')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', roleId)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('RoleNotFound');
    return toRole(row);
  }

  /** @throws ApiError InsufficientPermissions */
  async createRole(caller: Caller, access: ITwinAccess, role: Omit<Role, 'id'>): Promise<Role> {
    requireHeld(access, role.permissions);
    const iTwinId = access.itwin.id;
    const created = { id: randomUUID(), ...role };
    return this.#database.db.transaction().execute(async (tx) => {
      await tx
        .insertInto('role')
        .values({
          id: created.id,
          itwin_id: iTwinId,
          display_name: role.displayName,
          description: role.description,
          permissions: JSON.stringify(role.permissions),
        })
        .execute();
      await audit(tx, caller, { at: Date.now(), action: 'role.create', iTwinId, detail: { ...created } });
      return created;
    });
  }

  /** @throws ApiError RoleNotFound, InsufficientPermissions */
  async updateRole(
    caller: Caller,
    access: ITwinAccess,
    roleId: string,
    change: Partial<Omit<Role, 'id'>>,
  ): Promise<Role> {
    const iTwinId = access.itwin.id;
    const before = await this.role(iTwinId, roleId);
    const role = { ...before, ...change };
    const given = withIncluded(before.permissions);
    requireHeld(
      access,
      role.permissions.filter((permission) => !given.has(permission)),
    );
    await this.#database.db.transaction().execute(async (tx) => {
      await tx
        .updateTable('role')
        .set({
          display_name: role.displayName,
          description: role.description,
          permissions: JSON.stringify(role.permissions),
        })
        .where('itwin_id', '=', iTwinId)
        .where('id', '=', roleId)
        .execute();
      await audit(tx, caller, { at: Date.now(), action: 'role.update', iTwinId, detail: { ...role } });
    });
    return role;
  }

  /** Deletes a role, its assignments and its iModel-level permissions. @throws ApiError RoleNotFound */
  async deleteRole(caller: Caller, iTwinId: string, roleId: string): Promise<void> {
    await this.role(iTwinId, roleId);
    await this.#database.db.transaction().execute(async (tx) => {
      // Locks the row so that the role cannot be assigned from here on. SQLite has only one writer.
      if (this.#database.engine === 'postgres')
        await tx.selectFrom('role').select('id').where('id', '=', roleId).forUpdate().execute();
      await tx.deleteFrom('member').where('role_id', '=', roleId).execute();
      await tx.deleteFrom('group_member').where('role_id', '=', roleId).execute();
      // The iModels stay secured: an empty list of grants must deny access, not fall back to the iTwin's permissions.
      await tx.deleteFrom('imodel_grant').where('holder_id', '=', roleId).execute();
      await tx.deleteFrom('role').where('id', '=', roleId).execute();
      await audit(tx, caller, { at: Date.now(), action: 'role.delete', iTwinId, detail: { id: roleId } });
    });
  }

  async list(iTwinId: string, request: PageRequest): Promise<Page<Member>> {
    const db = pageReader(this.#database, request);
    // A member has a row for each role.
    const members = db.selectFrom('member').distinct().where('itwin_id', '=', iTwinId);
    const page = await readUnionPage(
      db.selectFrom('user_account').selectAll(),
      [usersByEmail(members)],
      'user_account.id',
      request,
    );
    return { ...page, items: await this.#withRoles(iTwinId, page.items) };
  }

  /** Users with their roles on an iTwin, in the order of the users. Users without roles are left out. */
  async #withRoles(iTwinId: string, users: readonly UserAccountTable[]): Promise<Member[]> {
    if (users.length === 0) return [];
    const rows = await this.#database.db
      .selectFrom('member')
      .innerJoin('role', 'role.id', 'member.role_id')
      .selectAll('role')
      .select('member.user_id')
      .where('member.itwin_id', '=', iTwinId)
      .where(
        'member.user_id',
        'in',
        users.map(({ id }) => id),
      )
      .orderBy('role.display_name')
      .orderBy('role.id')
      .execute();
    const roles = Map.groupBy(rows, ({ user_id }) => user_id);
    return users
      .map((user) => ({ user, roles: (roles.get(user.id) ?? []).map(toRole) }))
      .filter(({ roles }) => roles.length > 0);
  }

  /**
   * Assigns additional roles to users.
   * @returns the resulting members, and the e-mail addresses and ids of unknown users
   * @throws ApiError RoleNotFound, InsufficientPermissions
   */
  async add(
    caller: Caller,
    access: ITwinAccess,
    additions: readonly { user: string; roleIds: readonly string[] }[],
  ): Promise<{ members: Member[]; unknown: string[] }> {
    const iTwinId = access.itwin.id;
    const found = await Promise.all(
      additions.map(async (addition) => ({ ...addition, account: await this.account(addition.user) })),
    );
    const unknown = found.filter(({ account }) => account === undefined).map(({ user }) => user);
    if (unknown.length > 0) return { members: [], unknown };
    const ids = new Set(found.map(({ account }) => (account as UserAccountTable).id));
    await this.requireGrantable(
      access,
      additions.flatMap(({ roleIds }) => [...roleIds]),
    );
    await namingRoles(() =>
      this.#database.db.transaction().execute(async (tx) => {
        for (const { account, roleIds } of found) {
          const userId = (account as UserAccountTable).id;
          for (const roleId of roleIds)
            await tx
              .insertInto('member')
              .values({ itwin_id: iTwinId, user_id: userId, role_id: roleId })
              .onConflict((conflict) => conflict.doNothing())
              .execute();
          await audit(tx, caller, { at: Date.now(), action: 'member.add', iTwinId, detail: { userId, roleIds } });
        }
      }),
    );
    const users = await this.#database.db
      .selectFrom('user_account')
      .selectAll()
      .where('id', 'in', [...ids])
      .orderBy('email')
      .orderBy('id')
      .execute();
    return { members: await this.#withRoles(iTwinId, users), unknown: [] };
  }

  /** Replaces the roles of a member. @throws ApiError TeamMemberNotFound, RoleNotFound, InsufficientPermissions */
  async setRoles(caller: Caller, access: ITwinAccess, userId: string, roleIds: readonly string[]): Promise<Member> {
    const iTwinId = access.itwin.id;
    const { roles } = await this.get(iTwinId, userId);
    await this.requireGrantable(access, roleIds, roles);
    await namingRoles(() =>
      this.#database.db.transaction().execute(async (tx) => {
        await tx.deleteFrom('member').where('itwin_id', '=', iTwinId).where('user_id', '=', userId).execute();
        for (const roleId of new Set(roleIds))
          await tx.insertInto('member').values({ itwin_id: iTwinId, user_id: userId, role_id: roleId }).execute();
        await audit(tx, caller, { at: Date.now(), action: 'member.setRoles', iTwinId, detail: { userId, roleIds } });
      }),
    );
    return this.get(iTwinId, userId);
  }

  /** @throws ApiError TeamMemberNotFound */
  async get(iTwinId: string, userId: string): Promise<Member> {
    const user = await this.#users.find(userId);
    const [member] = user === undefined ? [] : await this.#withRoles(iTwinId, [user]);
    if (member === undefined) throw new ApiError('TeamMemberNotFound');
    return member;
  }

  /** @throws ApiError TeamMemberNotFound */
  async remove(caller: Caller, iTwinId: string, userId: string): Promise<void> {
    await this.#requireMember(iTwinId, userId);
    await this.#database.db.transaction().execute(async (tx) => {
      await tx.deleteFrom('member').where('itwin_id', '=', iTwinId).where('user_id', '=', userId).execute();
      await audit(tx, caller, { at: Date.now(), action: 'member.remove', iTwinId, detail: { userId } });
    });
  }

  /** A user by e-mail or id: one with an account, or one in the users file without an account yet. Rule of this server: an id is never an e-mail. */
  async account(reference: string): Promise<UserAccountTable | undefined> {
    return reference.includes('@') ? this.#accountByEmail(reference) : this.accountById(reference);
  }

  /** A user by id only. */
  async accountById(id: string): Promise<UserAccountTable | undefined> {
    return (await this.#users.find(id)) ?? this.#fromDirectory(this.#directory.findUserById(id));
  }

  /** Rule of this server: the users file is searched first; for all other users, only verified e-mails count. */
  async #accountByEmail(email: string): Promise<UserAccountTable | undefined> {
    const listed = this.#directory.findUserByEmail(email);
    if (listed !== undefined) return this.#fromDirectory(listed);
    const seen = await this.#users.findByEmail(email);
    // For users in the file, only the e-mail in the file counts.
    return seen === undefined || this.#directory.findUserById(seen.id) !== undefined ? undefined : seen;
  }

  /** The account of a user in the users file. Creates it if it does not exist, and updates it from the file. */
  async #fromDirectory(listed: DirectoryUser | undefined): Promise<UserAccountTable | undefined> {
    if (listed === undefined) return undefined;
    await this.#users.remember(userOfEntry(listed));
    return this.#users.find(listed.id);
  }

  async #requireMember(iTwinId: string, userId: string): Promise<void> {
    const row = await this.#database.db
      .selectFrom('member')
      .select(sql.lit(1).as('one'))
      .where('itwin_id', '=', iTwinId)
      .where('user_id', '=', userId)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('TeamMemberNotFound');
  }

  /**
   * Checks roles that are about to be assigned.
   * @param held roles that the user already holds and keeps, whatever they allow
   * @throws ApiError RoleNotFound, InsufficientPermissions
   */
  async requireGrantable(access: ITwinAccess, roleIds: readonly string[], held: readonly Role[] = []): Promise<void> {
    if (roleIds.length === 0) return;
    const rows = await this.#database.db
      .selectFrom('role')
      .selectAll()
      .where('itwin_id', '=', access.itwin.id)
      .where('id', 'in', [...new Set(roleIds)])
      .execute();
    const roles = new Map(rows.map((row) => [row.id, toRole(row)]));
    const kept = new Set(held.map(({ id }) => id));
    const named = roleIds.map((id) => roles.get(id));
    if (named.includes(undefined)) throw new ApiError('RoleNotFound');
    requireHeld(
      access,
      named.flatMap((role) => (role === undefined || kept.has(role.id) ? [] : role.permissions)),
    );
  }
}

/** The users that rows of `member` or `owner` name, in the order of their e-mail addresses. */
export function usersByEmail<DB, TB extends keyof DB>(rows: SelectQueryBuilder<DB, TB, object>): PageSource {
  return { query: rows as unknown as PageSource['query'], id: 'user_id', columns: { id: 'user_id' } };
}

/**
 * Runs a change that assigns roles which existed when they were checked. If one of them was deleted in the meantime, no
 * role is assigned.
 * @throws ApiError RoleNotFound
 */
export async function namingRoles(change: () => Promise<void>): Promise<void> {
  try {
    await change();
  } catch (error) {
    throw isForeignKeyError(error) ? new ApiError('RoleNotFound', { cause: error }) : error;
  }
}

export function toRole(row: RoleTable): Role {
  return {
    id: row.id,
    displayName: row.display_name,
    description: row.description,
    permissions: JSON.parse(row.permissions) as Permission[],
  };
}
