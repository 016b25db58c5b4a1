import { readFileSync, statSync } from 'node:fs';
import secureJson from 'secure-json-parse';
import { Type, type Static } from '../jsonSchema.ts';
import { emailKey } from '../domain.ts';
import { onFirstUse, schemaCompiler } from '../schemaChecks.ts';
import { writeFileDurably } from '../storage/durable.ts';

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

/** `save` adds an entry for a user or replaces the properties of the entry with the same id; `remove` removes the entry with this id. */
export type UsersFileChange = { save: DirectoryUser } | { remove: string };

/** What was read, and when the file was changed before, milliseconds since 1970. */
export interface ReadUsersFile {
  data: DirectoryData;
  modifiedAt: number;
}

const ajv = schemaCompiler({ allErrors: true });
const checkData = onFirstUse(() => ajv.compile<DirectoryData>(DirectorySchema));

/** Most faults of a file that an error names. Each entry may have several. */
const mostFaults = 20;

/** @throws Error if the file cannot be read or is invalid */
export function readUsersFile(file: string): ReadUsersFile {
  // Before the contents: a change in between is then found by the next look.
  const modifiedAt = statSync(file).mtimeMs;
  const data: unknown = secureJson.parse(readFileSync(file, 'utf8'));
  requireValid(file, data);
  return { data, modifiedAt };
}

/**
 * Changes the entry of one user. The rest of the file is kept as it is.
 * @throws Error if the file cannot be read or written, is invalid or would become so, for example because another user has the e-mail
 * address; it is not changed then
 */
export function changeUsersFile(file: string, change: UsersFileChange): void {
  const { data } = readUsersFile(file);
  if ('save' in change) {
    const index = data.users.findIndex(({ id }) => id === change.save.id);
    if (index < 0) data.users.push(change.save);
    else data.users[index] = { ...data.users[index], ...change.save };
  } else data.users = data.users.filter(({ id }) => id !== change.remove);
  requireValid(file, data);
  writeFileDurably(file, `${JSON.stringify(data, undefined, 2)}\n`);
}

/**
 * @throws Error for contents that do not follow the schema, and for duplicate entries for a user, organization or application. Only one of
 * them could apply, depending on their order, and a user would lack the permissions of the ignored one.
 */
function requireValid(file: string, data: unknown): asserts data is DirectoryData {
  const check = checkData();
  if (!check(data)) {
    const faults = (check.errors ?? []).map((fault) => ajv.errorsText([fault], { dataVar: 'it' }));
    throw new Error(refusal(file, faults));
  }
  const { organizations, users, applications } = data;
  const repeatedIds = (entries: readonly { id: string }[]): string[] => repeated(entries.map(({ id }) => id));
  const hint = "; to name several organizations, list them in 'organizationAdministrator'";
  const faults = [
    ...repeatedIds(organizations).map((id) => `organization '${id}' has more than one entry`),
    ...repeatedIds(users).map((id) => `user '${id}' has more than one entry${hint}`),
    ...repeated(users.map(({ email }) => emailKey(email))).map(
      (email) => `more than one user has the e-mail '${email}'`,
    ),
    ...repeatedIds(applications).map((id) => `application '${id}' has more than one entry`),
  ];
  if (faults.length > 0) throw new Error(refusal(file, faults));
}

/** The values that several entries have. */
function repeated(values: readonly string[]): string[] {
  const [seen, several] = [new Set<string>(), new Set<string>()];
  for (const value of values) (seen.has(value) ? several : seen).add(value);
  return [...several];
}

function refusal(file: string, faults: readonly string[]): string {
  const more = faults.length - mostFaults;
  const shown = more > 0 ? [...faults.slice(0, mostFaults), `and ${more} more`] : faults;
  return `${file} cannot be used: ${shown.join('; ')}`;
}
