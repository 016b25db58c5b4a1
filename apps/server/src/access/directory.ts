import { statSync } from 'node:fs';
import { on } from 'node:events';
import path from 'node:path';
import { randomUUID } from 'node:crypto';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import { emailKey, type User } from '../domain.ts';
import { createFileDurably } from '../storage/durable.ts';
import {
  changeUsersFile,
  readUsersFile,
  type DirectoryApplication,
  type DirectoryData,
  type DirectoryUser,
  type UsersFileChange,
} from './usersFile.ts';
import type { UsersFileSlice, UsersFileTask } from './usersFileThread.ts';

export type { DirectoryData, DirectoryUser };

/** Recorded as the issuer of users that come from the users file. */
export const usersFileIssuer = 'urn:offshoot:users-file';

/** A user as an entry of the users file describes it. */
export function userOfEntry({ id, email, givenName, surname, organizationId }: DirectoryUser): User {
  return {
    id,
    identity: { issuer: usersFileIssuer, subject: id },
    email,
    givenName,
    surname,
    organizationId: organizationId ?? null,
  };
}

export const usersFileName = 'users.json';
/** Minimum interval between checks of the file for changes. */
const lookEveryMs = 1000;
/** A larger file is read by a thread, bytes. One of this size has 1,000 users or more, and takes about 5 ms. */
const mostBytesAtOnce = 262_144;
/** A thread reads 100,000 users in about a second; a disk that does not answer must not prevent all later reads. */
const threadTimeoutMs = 60_000;

/**
 * The users file: organizations, users, and applications with their tiers. The first start creates it with one user, who
 * administers one organization. It is read again when it changes; an invalid file is reported, and the last valid contents stay
 * in force. A large file is read by a thread: the previous contents stay in force until all of it is here.
 */
export class Directory {
  readonly file: string;
  readonly #onFault: (message: string) => void;
  #contents: Contents = noContents();
  #lookedAt = 0;
  #modifiedAt = 0;
  /** What a thread is doing with the file. Never fails. Nothing else reads or changes the file meanwhile. */
  #running: Promise<void> | undefined;

  private constructor(file: string, onFault: (message: string) => void) {
    this.file = file;
    this.#onFault = onFault;
  }

  /**
   * Reads the file at once, whatever its size: nobody waits for another answer yet.
   * @param onFault called with the reason when the changed file cannot be used
   * @throws Error if the file exists but cannot be used
   */
  static open(dataDir: string, onFault: (message: string) => void): Directory {
    const directory = new Directory(path.join(dataDir, usersFileName), onFault);
    createFileDurably(directory.file, `${JSON.stringify(firstDirectory(), undefined, 2)}\n`);
    directory.#readAtOnce();
    return directory;
  }

  findUserById(id: string): DirectoryUser | undefined {
    return this.#current().usersById.get(id);
  }

  findUserByEmail(email: string): DirectoryUser | undefined {
    return this.#current().usersByEmail.get(emailKey(email));
  }

  /** The user by id or e-mail address, as entered by a person. Not for claims of tokens, whose subject may look like an e-mail address. */
  findUser(idOrEmail: string): DirectoryUser | undefined {
    return this.findUserById(idOrEmail) ?? this.findUserByEmail(idOrEmail);
  }

  /** Looks now whether the file has changed, although the last look may have been less than a second ago, and waits until it is read. */
  async refresh(): Promise<void> {
    // What is running may have begun before the change.
    await this.#running;
    this.#look();
    await this.#running;
  }

  /** Ids of the organizations that a user of the file administers; undefined if the file does not contain the user. */
  administeredBy(id: string): readonly string[] | undefined {
    const user = this.findUserById(id);
    if (user === undefined) return undefined;
    const { organizationId, organizationAdministrator } = user;
    if (organizationAdministrator !== true)
      return organizationAdministrator === false ? [] : (organizationAdministrator ?? []);
    return organizationId === undefined ? [] : [organizationId];
  }

  findApplication(id: string): DirectoryApplication | undefined {
    return this.#current().applications.get(id);
  }

  /** The name of an organization; its id if the file does not contain it. */
  organizationName(id: string): string {
    return this.#current().organizations.get(id)?.name ?? id;
  }

  /**
   * Adds an entry for a user to the file, or replaces the entry with the same id. The rest of the file is kept as it is.
   * @throws Error if the file would become invalid, for example because another user has the e-mail address
   */
  async saveUser(user: DirectoryUser): Promise<void> {
    await this.#change({ save: user });
  }

  /** Removes the entry of a user from the file. @throws Error if the file cannot be used or written */
  async removeUser(id: string): Promise<void> {
    await this.#change({ remove: id });
  }

  get data(): DirectoryData {
    return this.#current().data;
  }

  #current(): Contents {
    if (Date.now() - this.#lookedAt >= lookEveryMs) this.#look();
    return this.#contents;
  }

  /** Reads the file if it has changed: at once if it is small, else in the background. */
  #look(): void {
    if (this.#running !== undefined) return;
    this.#lookedAt = Date.now();
    try {
      const { mtimeMs } = statSync(this.file);
      if (mtimeMs === this.#modifiedAt) return;
      // Also if it cannot be used, which is reported once.
      this.#modifiedAt = mtimeMs;
      this.#read()?.catch((error: unknown) => this.#onFault((error as Error).message));
    } catch (error) {
      this.#onFault((error as Error).message);
    }
  }

  /** One change after another, so that none is lost. */
  async #change(change: UsersFileChange): Promise<void> {
    while (this.#running !== undefined) await this.#running;
    await this.#read(change);
  }

  /**
   * Reads the file, after changing it if a change is given.
   * @returns undefined if that has happened; a promise if a thread does it
   */
  #read(change?: UsersFileChange): Promise<void> | undefined {
    if (statSync(this.file).size > mostBytesAtOnce) {
      const reading = readInThread({ file: this.file, ...(change !== undefined && { change }) });
      const read = reading.then((found) => this.#use(found));
      this.#running = read.catch(() => undefined).finally(() => (this.#running = undefined));
      return read;
    }
    if (change !== undefined) changeUsersFile(this.file, change);
    this.#readAtOnce();
    return undefined;
  }

  #readAtOnce(): void {
    const { data, modifiedAt } = readUsersFile(this.file);
    const contents = noContents();
    add(contents, data);
    this.#use({ contents, modifiedAt });
  }

  #use({ contents, modifiedAt }: Found): void {
    this.#contents = contents;
    this.#modifiedAt = modifiedAt;
    this.#lookedAt = Date.now();
  }
}

/** The file, with maps for look-ups: every request looks up its user, and a search of 100,000 users takes 7 ms. */
interface Contents {
  data: DirectoryData;
  usersById: Map<string, DirectoryUser>;
  usersByEmail: Map<string, DirectoryUser>;
  organizations: Map<string, DirectoryData['organizations'][number]>;
  applications: Map<string, DirectoryApplication>;
}

/** Contents, and the time of the file's last change. */
interface Found {
  contents: Contents;
  modifiedAt: number;
}

function noContents(): Contents {
  return {
    data: { organizations: [], users: [], applications: [] },
    organizations: new Map(),
    usersById: new Map(),
    usersByEmail: new Map(),
    applications: new Map(),
  };
}

function add(contents: Contents, { organizations = [], users = [], applications = [] }: Partial<DirectoryData>): void {
  for (const organization of organizations) {
    contents.data.organizations.push(organization);
    contents.organizations.set(organization.id, organization);
  }
  for (const user of users) {
    contents.data.users.push(user);
    contents.usersById.set(user.id, user);
    contents.usersByEmail.set(emailKey(user.email), user);
  }
  for (const application of applications) {
    contents.data.applications.push(application);
    contents.applications.set(application.id, application);
  }
}

/** @throws Error if the file cannot be used, or the thread does not end in time */
async function readInThread(task: UsersFileTask): Promise<Found> {
  // From the sources the module ends in .ts, from the build in .js: the same ending as this module.
  const ending = import.meta.url.slice(import.meta.url.lastIndexOf('.'));
  const worker = new Worker(new URL(`./usersFileThread${ending}`, import.meta.url), { workerData: task });
  const signal = AbortSignal.timeout(threadTimeoutMs);
  const contents = noContents();
  try {
    for await (const [slice] of on(worker, 'message', { signal, close: ['exit'] }) as AsyncIterable<[UsersFileSlice]>) {
      if ('modifiedAt' in slice) return { contents, modifiedAt: slice.modifiedAt };
      worker.postMessage('next');
      add(contents, JSON.parse(slice.part) as Partial<DirectoryData>);
      // Each slice has a turn of the event loop of its own, so that requests are answered between them.
      await nextTurn();
    }
    throw new Error(`${task.file} was not read: its thread has ended`);
  } catch (error) {
    throw signal.aborted
      ? new Error(`${task.file} was not read within ${threadTimeoutMs / 1000} s`, { cause: error })
      : error;
  } finally {
    await worker.terminate();
  }
}

/** E-mail address of the user that the first start creates. */
export const firstUserEmail = 'admin@offshoot.local';

export function isPlaceholder({ email }: DirectoryUser): boolean {
  return email === firstUserEmail;
}

function firstDirectory(): DirectoryData {
  const organizationId = randomUUID();
  return {
    organizations: [{ id: organizationId, name: 'My organization' }],
    users: [
      {
        id: randomUUID(),
        email: firstUserEmail,
        givenName: 'Offshoot',
        surname: 'Administrator',
        organizationId,
        organizationAdministrator: true,
      },
    ],
    applications: [{ id: 'offshoot-cli', name: 'Offshoot command line', tier: 'Enterprise' }],
  };
}
