import { randomUUID } from 'node:crypto';
import { sql } from 'kysely';
import { requireHeld, type ITwinAccess } from '../access/permissions.ts';
import { pageReader, readPage, readUnionPage, type Page, type PageRequest } from '../db/keysetPaging.ts';
import { audit } from '../access/audit.ts';
import type { Database, Tx } from '../db/database.ts';
import type { UserAccountTable, UserGroupTable } from '../db/schemaOfITwins.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { namingRoles, toRole, usersByEmail, type Members, type Role } from './members.ts';

/** A group with its users. */
export interface Group extends UserGroupTable {
  users: UserAccountTable[];
}

/** A group that has roles on its iTwin. */
export interface GroupMember {
  group: UserGroupTable;
  roles: Role[];
}

/** Some of the users, given by e-mail or id, are unknown. */
export class UnknownUsersError extends Error {
  readonly users: readonly string[];
  constructor(users: readonly string[]) {
    super(`not known: ${users.join(', ')}`);
    this.name = 'UnknownUsersError';
    this.users = users;
  }
}

/** Another group of the iTwin already has this name. */
export class GroupNameTakenError extends Error {
  constructor() {
    super('another group of the iTwin has this name');
    this.name = 'GroupNameTakenError';
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

  async list(iTwinId: string, request: PageRequest): Promise<Page<Group>> {
    const page = await readPage(
      pageReader(this.#database, request).selectFrom('user_group').selectAll().where('itwin_id', '=', iTwinId),
      request,
    );
    const users = Map.groupBy(await this.#usersOf(page.items.map(({ id }) => id)), ({ group_id }) => group_id);
    return { ...page, items: page.items.map((row) => ({ ...row, users: users.get(row.id) ?? [] })) };
  }

  /** @throws ApiError GroupNotFound */
  async get(iTwinId: string, id: string): Promise<Group> {
    return { ...(await this.#row(iTwinId, id)), users: await this.#usersOf([id]) };
  }

  /** A group without its users. @throws ApiError GroupNotFound */
  async #row(iTwinId: string, id: string): Promise<UserGroupTable> {
    const row = await this.#database.db
      .selectFrom('user_group')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', id)
      .executeTakeFirst();
    if (row === undefined) throw new ApiError('GroupNotFound');
    return row;
  }

  /** @throws UnknownUsersError, GroupNameTakenError */
  async create(
    caller: Caller,
    iTwinId: string,
    group: { name: string; description: string | null; users: readonly string[] },
  ): Promise<Group> {
    const users = await this.#known(group.users);
    const row: UserGroupTable = {
      id: randomUUID(),
      itwin_id: iTwinId,
      name: group.name,
      description: group.description,
    };
    const id = await this.#change(caller, iTwinId, 'group.create', row.id, async (tx) => {
      await this.#requireNameFree(tx, row);
      await tx.insertInto('user_group').values(row).execute();
      await setUsers(tx, row.id, users);
      return row.id;
    });
    return this.get(iTwinId, id);
  }

  /** New members of a group get its roles. @throws ApiError GroupNotFound, InsufficientPermissions; UnknownUsersError, GroupNameTakenError */
  async update(
    caller: Caller,
    access: ITwinAccess,
    id: string,
    change: {
      name?: string | undefined;
      description?: string | null | undefined;
      users?: readonly string[] | undefined;
    },
  ): Promise<Group> {
    const iTwinId = access.itwin.id;
    const before = await this.#row(iTwinId, id);
    const users = change.users === undefined ? undefined : await this.#known(change.users);
    if (users !== undefined && !(await this.#hasAll(id, users))) {
      const [member] = await this.#withRoles(iTwinId, [before]);
      requireHeld(
        access,
        (member?.roles ?? []).flatMap(({ permissions }) => permissions),
      );
    }
    await this.#change(caller, iTwinId, 'group.update', id, async (tx) => {
      const columns = {
        name: change.name ?? before.name,
        description: change.description === undefined ? before.description : change.description,
      };
      // Earlier versions allowed groups to share a name; those keep it.
      if (columns.name !== before.name) await this.#requireNameFree(tx, { id, itwin_id: iTwinId, name: columns.name });
      const { numUpdatedRows } = await tx
        .updateTable('user_group')
        .set(columns)
        .where('id', '=', id)
        .executeTakeFirst();
      if (numUpdatedRows === 0n) throw new ApiError('GroupNotFound');
      if (users !== undefined) await setUsers(tx, id, users);
    });
    return this.get(iTwinId, id);
  }

  /** Its users lose the permissions that they had through it. @throws ApiError GroupNotFound */
  async delete(caller: Caller, iTwinId: string, id: string): Promise<void> {
    await this.#row(iTwinId, id);
    await this.#change(caller, iTwinId, 'group.delete', id, async (tx) => {
      // Locks the row so that no user joins the group from here on. SQLite has only one writer.
      if (this.#database.engine === 'postgres')
        await tx.selectFrom('user_group').select('id').where('id', '=', id).forUpdate().execute();
      await tx.deleteFrom('group_member').where('group_id', '=', id).execute();
      await tx.deleteFrom('group_user').where('group_id', '=', id).execute();
      await tx.deleteFrom('user_group').where('id', '=', id).execute();
    });
  }

  async membersPage(iTwinId: string, request: PageRequest): Promise<Page<GroupMember>> {
    const page = await readPage(
      // Groups without roles are walked.
      pageReader(this.#database, request, true)
        .selectFrom('user_group')
        .selectAll()
        .where('itwin_id', '=', iTwinId)
        .where((eb) =>
          eb.exists(
            eb
              .selectFrom('group_member')
              .select('group_member.group_id')
              .where('group_member.itwin_id', '=', iTwinId)
              .whereRef('group_member.group_id', '=', 'user_group.id'),
          ),
        ),
      request,
    );
    return { ...page, items: await this.#withRoles(iTwinId, page.items) };
  }

  /** Groups with their roles on an iTwin, in the order of the groups. Groups without roles are left out. */
  async #withRoles(iTwinId: string, groups: readonly UserGroupTable[]): Promise<GroupMember[]> {
    if (groups.length === 0) return [];
    const rows = await this.#database.db
      .selectFrom('group_member')
      .innerJoin('role', 'role.id', 'group_member.role_id')
      .selectAll('role')
      .select('group_member.group_id')
      .where('group_member.itwin_id', '=', iTwinId)
      .where(
        'group_member.group_id',
        'in',
        groups.map(({ id }) => id),
      )
      .orderBy('role.display_name')
      .orderBy('role.id')
      .execute();
    const roles = Map.groupBy(rows, ({ group_id }) => group_id);
    return groups
      .map((group) => ({ group, roles: (roles.get(group.id) ?? []).map(toRole) }))
      .filter((member) => member.roles.length > 0);
  }

  /** @throws ApiError TeamMemberNotFound */
  async member(iTwinId: string, groupId: string): Promise<GroupMember> {
    const group = await this.#database.db
      .selectFrom('user_group')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', '=', groupId)
      .executeTakeFirst();
    const [member] = group === undefined ? [] : await this.#withRoles(iTwinId, [group]);
    if (member === undefined) throw new ApiError('TeamMemberNotFound');
    return member;
  }

  /** Assigns additional roles to groups. @throws ApiError GroupNotFound, RoleNotFound, InsufficientPermissions */
  async addMembers(
    caller: Caller,
    access: ITwinAccess,
    additions: readonly { groupId: string; roleIds: readonly string[] }[],
  ): Promise<GroupMember[]> {
    const iTwinId = access.itwin.id;
    for (const { groupId } of additions) await this.#row(iTwinId, groupId);
    await this.#members.requireGrantable(
      access,
      additions.flatMap(({ roleIds }) => [...roleIds]),
    );
    await namingRoles(() =>
      this.#change(caller, iTwinId, 'groupMember.add', additions.map(({ groupId }) => groupId).join(), async (tx) => {
        for (const { groupId, roleIds } of additions) await giveRoles(tx, iTwinId, groupId, roleIds);
      }),
    );
    const named = [...new Set(additions.map(({ groupId }) => groupId))];
    const groups = await this.#database.db
      .selectFrom('user_group')
      .selectAll()
      .where('itwin_id', '=', iTwinId)
      .where('id', 'in', named)
      .orderBy('name')
      .orderBy('id')
      .execute();
    return this.#withRoles(iTwinId, groups);
  }

  /** @throws ApiError TeamMemberNotFound, RoleNotFound, InsufficientPermissions */
  async setMemberRoles(
    caller: Caller,
    access: ITwinAccess,
    groupId: string,
    roleIds: readonly string[],
  ): Promise<GroupMember> {
    const iTwinId = access.itwin.id;
    const { roles } = await this.member(iTwinId, groupId);
    await this.#members.requireGrantable(access, roleIds, roles);
    await namingRoles(() =>
      this.#change(caller, iTwinId, 'groupMember.setRoles', groupId, async (tx) => {
        await tx.deleteFrom('group_member').where('itwin_id', '=', iTwinId).where('group_id', '=', groupId).execute();
        await giveRoles(tx, iTwinId, groupId, roleIds);
      }),
    );
    return this.member(iTwinId, groupId);
  }

  /** @throws ApiError TeamMemberNotFound */
  async removeMember(caller: Caller, iTwinId: string, groupId: string): Promise<void> {
    await this.member(iTwinId, groupId);
    await this.#change(caller, iTwinId, 'groupMember.remove', groupId, async (tx) => {
      await tx.deleteFrom('group_member').where('itwin_id', '=', iTwinId).where('group_id', '=', groupId).execute();
    });
  }

  async owners(iTwinId: string, request: PageRequest): Promise<Page<UserAccountTable>> {
    const db = pageReader(this.#database, request);
    const owners = db.selectFrom('owner').where('itwin_id', '=', iTwinId);
    return readUnionPage(db.selectFrom('user_account').selectAll(), [usersByEmail(owners)], 'user_account.id', request);
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
      // Two concurrent removals must not remove the last owner: the lock on the iTwin's row serializes them.
      const itwin = tx.selectFrom('itwin').select('id').where('id', '=', iTwinId);
      await (this.#database.engine === 'postgres' ? itwin.forUpdate() : itwin).execute();
      const owners = tx.selectFrom('owner').select('user_id').where('itwin_id', '=', iTwinId);
      if ((await owners.where('user_id', '=', userId).executeTakeFirst()) === undefined)
        throw new ApiError('OwnerNotFound');
      if ((await owners.where('user_id', '!=', userId).limit(sql.lit(1)).execute()).length === 0)
        throw new ApiError('LastOwner');
      await tx.deleteFrom('owner').where('itwin_id', '=', iTwinId).where('user_id', '=', userId).execute();
    });
  }

  async #hasAll(groupId: string, users: readonly UserAccountTable[]): Promise<boolean> {
    const ids = new Set(users.map(({ id }) => id));
    if (ids.size === 0) return true;
    const members = await this.#database.db
      .selectFrom('group_user')
      .select('user_id')
      .where('group_id', '=', groupId)
      .where('user_id', 'in', [...ids])
      .execute();
    return members.length === ids.size;
  }

  /** The users of some groups, each with the group. */
  async #usersOf(groupIds: readonly string[]): Promise<(UserAccountTable & { group_id: string })[]> {
    if (groupIds.length === 0) return [];
    // The API adds at most 1,000 users to a group.
    return (groupIds.length === 1 ? this.#database.db : this.#database.scans)
      .selectFrom('group_user as g')
      .innerJoin('user_account as u', 'u.id', 'g.user_id')
      .selectAll('u')
      .select('g.group_id')
      .where('g.group_id', 'in', groupIds)
      .orderBy('u.email')
      .orderBy('u.id')
      .execute();
  }

  /** @throws GroupNameTakenError */
  async #requireNameFree(
    tx: Tx,
    { id, itwin_id, name }: Pick<UserGroupTable, 'id' | 'itwin_id' | 'name'>,
  ): Promise<void> {
    // Two concurrent creations must not both find the name free: the lock on the iTwin's row serializes them.
    const itwin = tx.selectFrom('itwin').select('id').where('id', '=', itwin_id);
    await (this.#database.engine === 'postgres' ? itwin.forUpdate() : itwin).execute();
    const other = await tx
      .selectFrom('user_group')
      .select('id')
      .where('itwin_id', '=', itwin_id)
      .where('name', '=', name)
      .where('id', '!=', id)
      .executeTakeFirst();
    if (other !== undefined) throw new GroupNameTakenError();
  }

  async #known(users: readonly string[]): Promise<UserAccountTable[]> {
    const found = await Promise.all(users.map(async (user) => ({ user, account: await this.#members.account(user) })));
    const unknown = found.filter(({ account }) => account === undefined).map(({ user }) => user);
    if (unknown.length > 0) throw new UnknownUsersError(unknown);
    return found.map(({ account }) => account as UserAccountTable);
  }

  async #change<T>(
    caller: Caller,
    iTwinId: string,
    action: string,
    subject: string,
    work: (tx: Tx) => Promise<T>,
  ): Promise<T> {
    return this.#database.db.transaction().execute(async (tx) => {
      const result = await work(tx);
      await audit(tx, caller, { at: Date.now(), action, iTwinId, detail: { subject } });
      return result;
    });
  }
}

async function setUsers(tx: Tx, groupId: string, users: readonly UserAccountTable[]): Promise<void> {
  await tx.deleteFrom('group_user').where('group_id', '=', groupId).execute();
  const ids = [...new Set(users.map((user) => user.id))];
  if (ids.length === 0) return;
  await tx
    .insertInto('group_user')
    .values(ids.map((id) => ({ group_id: groupId, user_id: id })))
    .execute();
}

async function giveRoles(tx: Tx, iTwinId: string, groupId: string, roleIds: readonly string[]): Promise<void> {
  for (const roleId of new Set(roleIds))
    await tx
      .insertInto('group_member')
      .values({ itwin_id: iTwinId, group_id: groupId, role_id: roleId })
      .onConflict((conflict) => conflict.doNothing())
      .execute();
}
