/** What the commands of `accountCommands.ts` do. */
import { randomUUID } from 'node:crypto';
import { Directory, type DirectoryUser } from '../access/directory.ts';
import { longestPassword, shortestPassword } from '../access/passwords.ts';
import { passwordPath, SignInRefusedError, signInBase, signInPath } from '../access/signInIssuer.ts';
import type { Config } from '../config.ts';
import { Accounts } from '../signIn/accounts.ts';
import { SignInState } from '../signIn/state.ts';
import { exitCodes, ExitError } from './exit.ts';
import type { AccountOptions, AddOptions, PasswordOptions } from './accountCommands.ts';
import type { InstallationOptions } from './installationOptions.ts';
import { printDone, printList, printObject, type Column } from './output.ts';
import { confirm } from './resource.ts';
import { findServer } from './serverAddress.ts';
import { withSignInDatabase } from './signInDatabase.ts';
import { parseTime } from './token.ts';

/** The longest password line that is read, bytes: four for each character, and the end of the line. */
const mostBytes = 4 * longestPassword + 2;

interface Account extends DirectoryUser {
  hasPassword: boolean;
}

const columns: Column<Account>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'E-MAIL', of: ({ email }) => email },
  { title: 'NAME', of: ({ givenName, surname }) => `${givenName} ${surname}` },
  { title: 'ORGANIZATION', of: ({ organizationId }) => organizationId },
  {
    title: 'ADMINISTRATOR',
    of: ({ organizationAdministrator: administers }) =>
      administers === true || (Array.isArray(administers) && administers.length > 0) ? 'yes' : 'no',
  },
  { title: 'PASSWORD', of: ({ hasPassword }) => (hasPassword ? 'yes' : 'no') },
];

export async function list(options: AccountOptions): Promise<void> {
  await withAccounts(options, async ({ accounts, directory }) => {
    const { users } = directory.data;
    const having = await accounts.withPassword(users.map(({ id }) => id));
    printList(
      users.map((user) => ({ ...user, hasPassword: having.has(user.id) })),
      columns,
      options,
    );
  });
}

export async function add(email: string, options: AddOptions): Promise<void> {
  if (!/^[^\s@]+@[^\s@]+$/.test(email) || email.length > 255)
    throw new ExitError(exitCodes.usage, `'${email}' is not an e-mail address`);
  const lifeSeconds = parseTime(options.expiresIn);
  const password = await passwordOf(options);
  await withAccounts(options, async (parts) => {
    const { accounts, directory } = parts;
    if (directory.findUser(email) !== undefined)
      throw new ExitError(
        exitCodes.failed,
        `there is a user '${email}' already; offshoot users password gives a new link`,
      );
    const organizationId = organizationOf(directory, options.organization);
    const user: DirectoryUser = {
      id: randomUUID(),
      email,
      givenName: options.givenName ?? (email.split('@')[0] as string),
      surname: options.surname ?? '-',
      ...(organizationId !== undefined && { organizationId }),
      ...(options.administrator === true && { organizationAdministrator: true }),
    };
    if (options.administrator === true && organizationId === undefined)
      throw new ExitError(exitCodes.usage, 'an administrator needs an organization: give --organization');
    const base = password === undefined ? baseOf(parts.config) : undefined;
    await directory.saveUser(user);
    const link = await giveAccess(accounts, user, password, base, lifeSeconds);
    printObject(
      { ...user, hasPassword: password !== undefined, ...(link !== undefined && { link }) },
      [...columns, ...(link === undefined ? [] : [{ title: 'LINK', of: () => link }])],
      options,
    );
  });
}

export async function setPassword(name: string, options: PasswordOptions & { remove?: boolean }): Promise<void> {
  if (options.remove === true && options.passwordStdin === true)
    throw new ExitError(exitCodes.usage, 'give one of --remove and --password-stdin');
  const lifeSeconds = parseTime(options.expiresIn);
  const password = await passwordOf(options);
  await withAccounts(options, async ({ accounts, directory, config }) => {
    const user = userOf(directory, name);
    if (options.remove === true) {
      await accounts.removePassword(user.id);
      printDone(
        { id: user.id, hasPassword: false },
        `${user.email} has no password now, and all sessions have ended`,
        options,
      );
      return;
    }
    const base = password === undefined ? baseOf(config) : undefined;
    const link = await giveAccess(accounts, user, password, base, lifeSeconds);
    if (link === undefined)
      printDone({ id: user.id, hasPassword: true }, `the password of ${user.email} is set`, options);
    else printDone({ id: user.id, link }, link, options);
  });
}

export async function remove(name: string, options: AccountOptions & { yes?: boolean }): Promise<void> {
  await withAccounts(options, async ({ accounts, directory }) => {
    const user = userOf(directory, name);
    await confirm(`Remove the user ${user.email}?`, options);
    await directory.removeUser(user.id);
    await accounts.removePassword(user.id);
    printDone({ id: user.id, deleted: true }, `${user.email} is removed`, options);
  });
}

interface Parts {
  accounts: Accounts;
  directory: Directory;
  config: Config;
}

async function withAccounts(options: InstallationOptions, work: (parts: Parts) => Promise<void>): Promise<void> {
  await withSignInDatabase(options, 'users sign in at the configured issuers', async (db, config) => {
    const directory = Directory.open(config.dataDir, (message) => process.stderr.write(`${message}\n`));
    await work({ accounts: new Accounts(db, directory, new SignInState(db)), directory, config });
  });
}

/** Sets the password, or makes a link with which the user sets one. @returns the link */
async function giveAccess(
  accounts: Accounts,
  { id }: DirectoryUser,
  password: string | undefined,
  base: string | undefined,
  lifeSeconds: number,
): Promise<string | undefined> {
  if (password !== undefined) {
    await accounts.setPassword(id, password);
    return undefined;
  }
  const token = await accounts.makeLink({ userId: id, purpose: 'user' }, lifeSeconds);
  return `${base ?? ''}${signInPath}${passwordPath}?link=${token}`;
}

/** Address of the server, for links. @throws ExitError if users cannot sign in there */
function baseOf(config: Config): string {
  try {
    return signInBase(config, config.publicUrl ?? findServer({ data: config.dataDir }).url);
  } catch (error) {
    if (error instanceof SignInRefusedError) throw new ExitError(exitCodes.failed, error.message);
    throw error;
  }
}

/** @throws ExitError usage */
function userOf(directory: Directory, name: string): DirectoryUser {
  const user = directory.findUser(name);
  if (user === undefined) throw new ExitError(exitCodes.usage, `no user '${name}' in ${directory.file}`);
  return user;
}

/** @throws ExitError usage */
function organizationOf(directory: Directory, name: string | undefined): string | undefined {
  const { organizations } = directory.data;
  if (name === undefined) return organizations.length === 1 ? organizations[0]?.id : undefined;
  const found = organizations.find((each) => each.id === name || each.name === name);
  if (found === undefined)
    throw new ExitError(
      exitCodes.usage,
      `no organization '${name}' in ${directory.file}; there are ${organizations.map((each) => `'${each.name}'`).join(', ')}`,
    );
  return found.id;
}

/** The first line of standard input, if it has the password. @throws ExitError usage */
async function passwordOf({ passwordStdin = false }: PasswordOptions): Promise<string | undefined> {
  if (!passwordStdin) return undefined;
  const parts: Buffer[] = [];
  let bytes = 0;
  for await (const part of process.stdin as AsyncIterable<Buffer>) {
    parts.push(part);
    bytes += part.length;
    if (part.includes(10) || bytes > mostBytes) break;
  }
  const password = (Buffer.concat(parts).toString('utf8').split(/\r?\n/)[0] ?? '').normalize('NFKC');
  if (password.length < shortestPassword || password.length > longestPassword)
    throw new ExitError(
      exitCodes.usage,
      `a password has ${shortestPassword} to ${longestPassword} characters; the one from standard input has ${password.length}`,
    );
  return password;
}
