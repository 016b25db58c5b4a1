import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { randomUUID } from 'node:crypto';
import { Ajv } from 'ajv';
import secureJson from 'secure-json-parse';
import { Type, type Static } from '../jsonSchema.ts';
import { emailKey, type User } from '../domain.ts';
import { createFileDurably, writeFileDurably } from '../storage/durable.ts';

const Text = Type.String({ minLength: 1, maxLength: 255 });

const DirectorySchema = Type.Object({
  organizations: Type.Array(Type.Object({ id: Text, name: Text })),
  users: Type.Array(
    Type.Object({
      id: Text,
      email: Text,
      givenName: Text,
      surname: Text,
      /** The issuer whose tokens identify this user by `id`, besides those of `offshoot token`. By default the configured issuer, if there is exactly one. */
      issuer: Type.Optional(Text),
      organizationId: Type.Optional(Text),
      /** `true`: administrator of the user's own organization. A list: of each named organization. */
      organizationAdministrator: Type.Optional(Type.Union([Type.Boolean(), Type.Array(Text, { maxItems: 1000 })])),
    }),
  ),
  applications: Type.Array(Type.Object({ id: Text, name: Text, tier: Text })),
});

export type DirectoryData = Static<typeof DirectorySchema>;
export type DirectoryUser = DirectoryData['users'][number];
export type DirectoryApplication = DirectoryData['applications'][number];

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

/**
 * The users file: organizations, users, and applications with their tiers. The first start creates it with one user, who
 * administers one organization. It is read again when it changes; an invalid file is reported, and the last valid contents stay
 * in force.
 */
export class Directory {
  readonly file: string;
  readonly #onFault: (message: string) => void;
  #contents!: Contents;
  #readAt = 0;
  #modifiedAt = 0;

  private constructor(file: string, onFault: (message: string) => void) {
    this.file = file;
    this.#onFault = onFault;
  }

  /** @throws Error if the file exists but cannot be used */
  static open(dataDir: string, onFault: (message: string) => void): Directory {
    const directory = new Directory(path.join(dataDir, usersFileName), onFault);
    createFileDurably(directory.file, `${JSON.stringify(firstDirectory(), undefined, 2)}\n`);
    directory.#read();
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

  /** Has the next call look whether the file has changed, although the last look was less than a second ago. */
  lookAgain(): void {
    this.#readAt = 0;
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
  saveUser(user: DirectoryUser): void {
    const data = secureJson.parse(readFileSync(this.file, 'utf8')) as DirectoryData;
    const index = data.users.findIndex(({ id }) => id === user.id);
    if (index < 0) data.users.push(user);
    else data.users[index] = { ...data.users[index], ...user };
    this.#save(data);
  }

  /** Removes the entry of a user from the file. */
  removeUser(id: string): void {
    const data = secureJson.parse(readFileSync(this.file, 'utf8')) as DirectoryData;
    this.#save({ ...data, users: data.users.filter((user) => user.id !== id) });
  }

  #save(data: DirectoryData): void {
    contentsOf(this.file, data);
    writeFileDurably(this.file, `${JSON.stringify(data, undefined, 2)}\n`);
    this.#read();
  }

  get data(): DirectoryData {
    return this.#current().data;
  }

  #current(): Contents {
    const now = Date.now();
    if (now - this.#readAt >= lookEveryMs) {
      this.#readAt = now;
      try {
        if (statSync(this.file).mtimeMs !== this.#modifiedAt) this.#read();
      } catch (error) {
        this.#onFault((error as Error).message);
      }
    }
    return this.#contents;
  }

  #read(): void {
    this.#modifiedAt = statSync(this.file).mtimeMs;
    this.#readAt = Date.now();
    const data: unknown = secureJson.parse(readFileSync(this.file, 'utf8'));
    const ajv = new Ajv({ allErrors: true, strict: false });
    if (!ajv.validate(DirectorySchema, data))
      throw new Error(`${this.file} cannot be used: ${ajv.errorsText(undefined, { dataVar: 'it' })}`);
    this.#contents = contentsOf(this.file, data as DirectoryData);
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

/**
 * @throws Error for duplicate entries for a user, organization or application. Only one of them could apply, depending on their order,
 * and a user would lack the permissions of the ignored one.
 */
function contentsOf(file: string, data: DirectoryData): Contents {
  const faults: string[] = [];
  const contents: Contents = {
    data,
    organizations: mapOf(
      data.organizations,
      ({ id }) => id,
      (id) => faults.push(`organization '${id}' has more than one entry`),
    ),
    usersById: mapOf(
      data.users,
      ({ id }) => id,
      (id) =>
        faults.push(
          `user '${id}' has more than one entry; to name several organizations, list them in 'organizationAdministrator'`,
        ),
    ),
    usersByEmail: mapOf(
      data.users,
      ({ email }) => emailKey(email),
      (email) => faults.push(`more than one user has the e-mail '${email}'`),
    ),
    applications: mapOf(
      data.applications,
      ({ id }) => id,
      (id) => faults.push(`application '${id}' has more than one entry`),
    ),
  };
  if (faults.length > 0) throw new Error(`${file} cannot be used: ${faults.join('; ')}`);
  return contents;
}

/** Entries by key. @param onRepeated called once for each key that several entries have */
function mapOf<T>(
  entries: readonly T[],
  keyOf: (entry: T) => string,
  onRepeated: (key: string) => void,
): Map<string, T> {
  const byKey = new Map<string, T>();
  const repeated = new Set<string>();
  for (const entry of entries) {
    const key = keyOf(entry);
    if (byKey.has(key)) repeated.add(key);
    byKey.set(key, entry);
  }
  repeated.forEach((key) => onRepeated(key));
  return byKey;
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
