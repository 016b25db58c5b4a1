import { readFileSync } from 'node:fs';
import path from 'node:path';
import { emailKey } from '../domain.ts';
import type { DirectoryUser } from './directory.ts';

/** Properties of an entry, and whether they are required. */
type Properties = Readonly<Record<string, boolean>>;

const organization: Properties = { id: true, name: true };
const application: Properties = { id: true, name: true, tier: true };
const user: Properties = {
  id: true,
  email: true,
  givenName: true,
  surname: true,
  organizationId: false,
  organizationAdministrator: false,
};

/**
 * A user of the users file for whom a token is minted: the first one, or the one with an id or e-mail address. It accepts only files
 * that `Directory` accepts, but not all of them, and needs no schema validator, which takes longer to load than the rest of the
 * command. Undefined if the file needs a closer look, for example because it has a fault: then `Directory` decides.
 */
export function plainUserOf(dataDir: string, idOrEmail?: string): DirectoryUser | undefined {
  let data: unknown;
  try {
    data = JSON.parse(readFileSync(path.join(dataDir, 'users.json'), 'utf8'));
  } catch {
    return undefined;
  }
  if (!isObject(data) || !isList(data['organizations'], organization) || !isList(data['applications'], application))
    return undefined;
  const users: unknown = data['users'];
  if (!isList(users, user) || !isUnique((users as DirectoryUser[]).map(({ email }) => emailKey(email))))
    return undefined;
  const found = users as DirectoryUser[];
  if (idOrEmail === undefined) return found[0];
  return found.find(({ id }) => id === idOrEmail) ?? found.find(({ email }) => emailKey(email) === emailKey(idOrEmail));
}

function isList(value: unknown, properties: Properties): boolean {
  return (
    Array.isArray(value) &&
    value.every((entry) => isEntry(entry, properties)) &&
    isUnique(value.map(({ id }: { id: string }) => id))
  );
}

function isEntry(value: unknown, properties: Properties): boolean {
  return (
    isObject(value) &&
    Object.keys(properties).every((name) => properties[name] === false || Object.hasOwn(value, name)) &&
    Object.entries(value).every(
      ([name, each]) =>
        Object.hasOwn(properties, name) &&
        (name === 'organizationAdministrator'
          ? typeof each === 'boolean'
          : typeof each === 'string' && each.length > 0 && each.length <= 255),
    )
  );
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isUnique(values: readonly string[]): boolean {
  return new Set(values).size === values.length;
}
