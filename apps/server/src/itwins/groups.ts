import { randomUUID } from 'node:crypto';
import { audit } from '../audit.ts';
import type { Database, Tx } from '../db/database.ts';
import type { UserAccountTable, UserGroupTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import type { Members, Role } from './members.ts';

/** A group with its users. */
export interface Group extends UserGroupTable {
  users: UserAccountTable[];
}

/** A group that has roles on its iTwin. */
export interface GroupMember {
  group: UserGroupTable;
  roles: Role[];
}

/** Users named by e-mail or id of whom some are not known. */
export class UnknownUsersError extends Error {
  readonly users: readonly string[];
  constructor(users: readonly string[]) {
    super(`not known: ${users.join(', ')}`);
    this.name = 'UnknownUsersError';
    this.users = users;
  }
}

/** Groups of users on an iTwin, the roles that they hold, and its owners. */
export class Groups {
  readonly #database: Database;
  readonly #members: Members;

  constructor(database: Database, members: Members) {
    this.#database = database;
    this.#members = members;
  }

  async list(iTwinId: string): Promise<Group[]> {
    const rows = await this.#database.db.selectFrom('user_group').selectAll().where('itwin_id', '=', iTwinId).orderBy('name').orderBy('id').execute();
    return Promise.all(rows.map(async (row) => ({ ...row, users: await this.#usersOf(row.id) })));
  }

  /** @throws ApiError GroupNotFound */
  async get(iTwinId: string, id: string): Promise<Group> {
    const row = await this.#database.db.selectFrom('user_group').selectAll().where('itwin_id', '=', iTwinId).where('id', '=', id).executeTakeFirst();
    if (row === undefined) throw new ApiError('GroupNotFound');
    return { ...row, users: await this.#usersOf(id) };
  }

  /** @throws UnknownUsersError */
  async create(caller: Caller, iTwinId: string, group: { name: string; description: string | null; users: readonly string[] }): Promise<Group> {
    const users = await this.#known(group.users);
    const row: UserGroupTable = { id: randomUUID(), itwin_id: iTwinId, name: group.name, description: group.description };
    const id = await this.#change(caller, iTwinId, 'group.create', row.id, async (tx) => {
      await tx.insertInto('user_group').values(row).execute();
      await setUsers(tx, row.id, users);
      return row.id;
    });
    return this.get(iTwinId, id);
  }

  /** @throws ApiError GroupNotFound; UnknownUsersError */
  async update(caller: Caller, iTwinId: string, id: string, change: { name?: string | undefined; description?: string | null | undefined; users?: readonly string[] | undefined }): Promise<Group> {
    const before = await this.get(iTwinId, id);
    const users = change.users === undefined ? undefined : await this.#known(change.users);
    await this.#change(caller, iTwinId, 'group.update', id, async (tx) => {
      const columns = { name: change.name ?? before.name, description: change.description === undefined ? before.description : change.description };
      await tx.updateTable('user_group').set(columns).where('id', '=', id).execute();
      if (users !== undefined) await setUsers(tx, id, users);
    });
    return this.get(iTwinId, id);
  }

  /** Its users lose what they had through it. @throws ApiError GroupNotFound */
  async delete(caller: Caller, iTwinId: string, id: string): Promise<void> {
    await this.get(iTwinId, id);
    await this.#change(caller, iTwinId, 'group.delete', id, async (tx) => {
      await tx.deleteFrom('group_member').where('group_id', '=', id).execute();
      await tx.deleteFrom('group_user').where('group_id', '=', id).execute();
      await tx.deleteFrom('user_group').where('id', '=', id).execute();
    });
  }

  async members(iTwinId: string): Promise<GroupMember[]> {
    const rows = await this.#database.db
      .selectFrom('group_member as m')
      .innerJoin('user_group as g', 'g.id', 'm.group_id')
      .selectAll('g')
      .select('m.role_id')
      .where('m.itwin_id', '=', iTwinId)
      .orderBy('g.name')
      .orderBy('g.id')
      .execute();
    const roles = new Map((await this.#members.roles(iTwinId)).map((role) => [role.id, role]));
    const members = new Map<string, GroupMember>();
    for (const { role_id, ...group } of rows) {
      const member = members.get(group.id) ?? { group, roles: [] };
      const role = roles.get(role_id);
      if (role !== undefined) member.roles.push(role);
      members.set(group.id, member);
    }
    return [...members.values()];
  }

  /** @throws ApiError MemberNotFound */
  async member(iTwinId: string, groupId: string): Promise<GroupMember> {
    const member = (await this.members(iTwinId)).find(({ group }) => group.id === groupId);
    if (member === undefined) throw new ApiError('MemberNotFound');
    return member;
  }

  /** Gives groups roles beside those they hold. @throws ApiError GroupNotFound, RoleNotFound */
  async addMembers(caller: Caller, iTwinId: string, additions: readonly { groupId: string; roleIds: readonly string[] }[]): Promise<GroupMember[]> {
    for (const { groupId } of additions) await this.get(iTwinId, groupId);
    await this.#members.requireRoles(iTwinId, additions.flatMap(({ roleIds }) => [...roleIds]));
    await this.#change(caller, iTwinId, 'groupMember.add', additions.map(({ groupId }) => groupId).join(), async (tx) => {
      for (const { groupId, roleIds } of additions) await giveRoles(tx, iTwinId, groupId, roleIds);
    });
    const named = new Set(additions.map(({ groupId }) => groupId));
    return (await this.members(iTwinId)).filter(({ group }) => named.has(group.id));
  }

  /** @throws ApiError MemberNotFound, RoleNotFound */
  async setMemberRoles(caller: Caller, iTwinId: string, groupId: string, roleIds: readonly string[]): Promise<GroupMember> {
    await this.member(iTwinId, groupId);
    await this.#members.requireRoles(iTwinId, roleIds);
    await this.#change(caller, iTwinId, 'groupMember.setRoles', groupId, async (tx) => {
      await tx.deleteFrom('group_member').where('itwin_id', '=', iTwinId).where('group_id', '=', groupId).execute();
      await giveRoles(tx, iTwinId, groupId, roleIds);
    });
    return this.member(iTwinId, groupId);
  }

  /** @throws ApiError MemberNotFound */
  async removeMember(caller: Caller, iTwinId: string, groupId: string): Promise<void> {
    await this.member(iTwinId, groupId);
    await this.#change(caller, iTwinId, 'groupMember.remove', groupId, async (tx) => {
      await tx.deleteFrom('group_member').where('itwin_id', '=', iTwinId).where('group_id', '=', groupId).execute();
    });
  }

  async owners(iTwinId: string): Promise<UserAccountTable[]> {
    return this.#database.db
      .selectFrom('owner as o')
      .innerJoin('user_account as u', 'u.id', 'o.user_id')
      .selectAll('u')
      .where('o.itwin_id', '=', iTwinId)
      .orderBy('u.email')
      .orderBy('u.id')
      .execute();
  }

  /** @throws UnknownUsersError */
  async addOwner(caller: Caller, iTwinId: string, user: string): Promise<UserAccountTable> {
    const [account] = await this.#known([user]);
    const { id } = account as UserAccountTable;
    await this.#change(caller, iTwinId, 'owner.add', id, async (tx) => {
      await tx
        .insertInto('owner')
        .values({ itwin_id: iTwinId, user_id: id })
        .onConflict((conflict) => conflict.doNothing())
        .execute();
    });
    return account as UserAccountTable;
  }

  /** @throws ApiError OwnerNotFound, LastOwner */
  async removeOwner(caller: Caller, iTwinId: string, userId: string): Promise<void> {
    await this.#change(caller, iTwinId, 'owner.remove', userId, async (tx) => {
      // Two removals at once must not leave none: the iTwin's row is the turn.
      const itwin = tx.selectFrom('itwin').select('id').where('id', '=', iTwinId);
      await (this.#database.engine === 'postgres' ? itwin.forUpdate() : itwin).execute();
      const owners = await tx.selectFrom('owner').select('user_id').where('itwin_id', '=', iTwinId).execute();
      if (!owners.some(({ user_id }) => user_id === userId)) throw new ApiError('OwnerNotFound');
      if (owners.length === 1) throw new ApiError('LastOwner');
      await tx.deleteFrom('owner').where('itwin_id', '=', iTwinId).where('user_id', '=', userId).execute();
    });
  }

  async #usersOf(groupId: string): Promise<UserAccountTable[]> {
    return this.#database.db
      .selectFrom('group_user as g')
      .innerJoin('user_account as u', 'u.id', 'g.user_id')
      .selectAll('u')
      .where('g.group_id', '=', groupId)
      .orderBy('u.email')
      .orderBy('u.id')
      .execute();
  }

  async #known(users: readonly string[]): Promise<UserAccountTable[]> {
    const found = await Promise.all(users.map(async (user) => ({ user, account: await this.#members.account(user) })));
    const unknown = found.filter(({ account }) => account === undefined).map(({ user }) => user);
    if (unknown.length > 0) throw new UnknownUsersError(unknown);
    return found.map(({ account }) => account as UserAccountTable);
  }

  async #change<T>(caller: Caller, iTwinId: string, action: string, subject: string, work: (tx: Tx) => Promise<T>): Promise<T> {
    return this.#database.db.transaction().execute(async (tx) => {
      const result = await work(tx);
      await audit(tx, caller, { at: Date.now(), action, iTwinId, detail: { subject } });
      return result;
    });
  }
}

async function setUsers(tx: Tx, groupId: string, users: readonly UserAccountTable[]): Promise<void> {
  await tx.deleteFrom('group_user').where('group_id', '=', groupId).execute();
  for (const id of new Set(users.map((user) => user.id))) await tx.insertInto('group_user').values({ group_id: groupId, user_id: id }).execute();
}

async function giveRoles(tx: Tx, iTwinId: string, groupId: string, roleIds: readonly string[]): Promise<void> {
  for (const roleId of new Set(roleIds))
    await tx
      .insertInto('group_member')
      .values({ itwin_id: iTwinId, group_id: groupId, role_id: roleId })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
}
