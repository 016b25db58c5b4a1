import { randomBytes } from 'node:crypto';
import type { Directory, DirectoryUser } from '../access/directory.ts';
import { hashPassword, isPassword } from '../access/passwords.ts';
import type { Db } from '../db/database.ts';
import type { SignInState } from './state.ts';

/** Kind of the rows of links that let somebody set a password. */
const kind = 'PasswordLink';

/** Lifetime of the link in the banner. */
const firstLinkSeconds = 24 * 3600;

/** What a link lets its holder do. */
export interface PasswordLink {
  userId: string;
  /** `first`: for the first user of an installation, as long as nobody has a password. */
  purpose: 'first' | 'user';
}

/** Passwords of the users of the users file, which says who a user is and what the user may administer. */
export class Accounts {
  readonly #db: Db;
  readonly #directory: Directory;
  readonly #state: SignInState;

  constructor(db: Db, directory: Directory, state: SignInState) {
    this.#db = db;
    this.#directory = directory;
    this.#state = state;
  }

  /** A user, also one whom a command has added this moment. */
  async find(userId: string): Promise<DirectoryUser | undefined> {
    return this.#named(() => this.#directory.findUserById(userId));
  }

  async #named(find: () => DirectoryUser | undefined): Promise<DirectoryUser | undefined> {
    const user = find();
    if (user !== undefined) return user;
    await this.#directory.refresh();
    return find();
  }

  /** One text for all the ways to write the name of a user, for counting attempts. */
  keyOf(name: string): string {
    return this.#directory.findUser(name)?.id ?? name;
  }

  /** The user with this e-mail address or id and this password. Takes the same time whether or not there is such a user. */
  async authenticate(name: string, password: string): Promise<DirectoryUser | undefined> {
    const user = await this.#named(() => this.#directory.findUser(name));
    const stored =
      user === undefined
        ? undefined
        : await this.#db
            .selectFrom('sign_in_password')
            .select('hash')
            .where('user_id', '=', user.id)
            .executeTakeFirst();
    return (await isPassword(password, stored?.hash)) ? user : undefined;
  }

  async hasPasswords(): Promise<boolean> {
    const any = await this.#db.selectFrom('sign_in_password').select('user_id').limit(1).executeTakeFirst();
    return any !== undefined;
  }

  /** Which of these users have a password. */
  async withPassword(userIds: readonly string[]): Promise<ReadonlySet<string>> {
    const found = new Set<string>();
    for (let start = 0; start < userIds.length; start += 1000) {
      const some = userIds.slice(start, start + 1000);
      const rows = await this.#db
        .selectFrom('sign_in_password')
        .select('user_id')
        .where('user_id', 'in', some)
        .execute();
      rows.forEach((row) => found.add(row.user_id));
    }
    return found;
  }

  /** Sets a password, and ends all sessions, refresh tokens and links of the user. */
  async setPassword(userId: string, password: string): Promise<void> {
    await this.#store(userId, await hashPassword(password));
  }

  async #store(userId: string, hash: string): Promise<void> {
    const row = { hash, changed_at: Date.now() };
    await this.#db
      .insertInto('sign_in_password')
      .values({ user_id: userId, ...row })
      .onConflict((conflict) => conflict.column('user_id').doUpdateSet(row))
      .execute();
    await this.endSessions(userId);
  }

  async removePassword(userId: string): Promise<void> {
    await this.#db.deleteFrom('sign_in_password').where('user_id', '=', userId).execute();
    await this.endSessions(userId);
  }

  async endSessions(userId: string): Promise<void> {
    await this.#state.deleteAll('account_id', userId);
  }

  /** A token for a link that can be used once. */
  async makeLink(link: PasswordLink, lifeSeconds: number): Promise<string> {
    const token = randomBytes(32).toString('base64url');
    await this.#state.put(kind, token, { payload: { ...link }, accountId: link.userId, lifeSeconds });
    return token;
  }

  /** What a link is for; undefined if it is unknown, expired or used. */
  async readLink(token: string): Promise<(PasswordLink & { user: DirectoryUser }) | undefined> {
    const found = await this.#state.find(kind, token);
    if (found === undefined || found['consumed'] !== undefined) return undefined;
    const { userId, purpose } = found as unknown as PasswordLink;
    if (purpose === 'first' && (await this.hasPasswords())) return undefined;
    const user = await this.find(userId);
    return user === undefined ? undefined : { userId, purpose, user };
  }

  /**
   * Sets the password that the holder of a link has chosen, and who the user is if the link is for the first user.
   * @returns false if somebody has used the link in the meantime
   * @throws Error if the users file cannot be changed, or would become invalid
   */
  async useLink(
    token: string,
    { userId, user }: { userId: string; user: DirectoryUser },
    password: string,
    described?: Pick<DirectoryUser, 'givenName' | 'surname' | 'email'>,
  ): Promise<boolean> {
    // First, because it may be refused while many passwords are checked: the link stays good then.
    const hash = await hashPassword(password);
    if (described !== undefined) await this.#directory.saveUser({ ...user, ...described });
    if (!(await this.#state.consume(kind, token))) return false;
    await this.#store(userId, hash);
    return true;
  }

  /**
   * A link for the first administrator, as long as nobody has a password.
   * @returns its token; undefined if somebody has a password, or the users file starts with a user who is no administrator
   */
  async firstLink(): Promise<string | undefined> {
    const first = this.#directory.data.users[0];
    const administers = this.#directory.administeredBy(first?.id ?? '') ?? [];
    if (first === undefined || administers.length === 0 || (await this.hasPasswords())) return undefined;
    return this.makeLink({ userId: first.id, purpose: 'first' }, firstLinkSeconds);
  }
}
