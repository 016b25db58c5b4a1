import { randomUUID } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';

/** Options of `startOffshoot`. */
export interface OffshootOptions {
  /**
   * E-mail addresses of further users, who have no permissions until a test gives them roles. A name without `@` stands for an
   * address below `offshoot.test`. The first user, `admin`, always exists and administers the organization.
   */
  users?: readonly string[];
  /**
   * Settings of the server, as in `offshoot.json`, such as `{ checkpoints: { generate: 'off' } }`. They are merged with those
   * for tests: no rate limits, no limits on briefcases, no collector, no graphics and no minimum of free disk space.
   */
  settings?: Readonly<Record<string, unknown>>;
  /** Folder in which the data folder is created; by default that for temporary files. */
  parentFolder?: string;
  /** Writes the log of the server to stderr. Default: false; errors contain the end of the log in any case. */
  showLog?: boolean;
  /** Longest time to wait until the server is ready, milliseconds. Default: 60,000. */
  startTimeoutMs?: number;
}

/** The folder of a server. */
export interface Installation {
  /** Holds the configuration and the data folder. */
  folder: string;
  dataDir: string;
  configFile: string;
  /** The e-mail addresses of its users. */
  users: readonly string[];
  remove(): void;
}

const organizationId = randomUUID();
const unlimited = 1_000_000_000;

/** Settings for tests. A test suite sends more requests in a minute than any user, and its data need no upkeep. */
const testSettings: Readonly<Record<string, unknown>> = {
  host: '127.0.0.1',
  port: 0,
  logLevel: 'warn',
  tiers: { Test: { general: [{ requests: unlimited, seconds: 60 }], operations: {} } },
  defaultTier: 'Test',
  rateLimits: { refused: { requests: unlimited, seconds: 60 }, links: { requests: unlimited, seconds: 60 } },
  briefcases: { perUser: 10_000, perMinute: 10_000 },
  collector: { intervalSeconds: 0 },
  // Drawing takes CPU time from the test after each checkpoint.
  graphics: { enabled: false },
  diskSpace: { floorMiB: 0 },
  shutdownSeconds: 1,
};

/** Writes the configuration and the users of a new server into a new folder. */
export function installationOf({ users = [], settings = {}, parentFolder = tmpdir() }: OffshootOptions): Installation {
  const emails = ['admin', ...users].map(emailOf);
  const folder = mkdtempSync(path.join(parentFolder, 'offshoot-testing-'));
  const remove = (): void => rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  try {
    const configFile = path.join(folder, 'offshoot.json');
    writeFileSync(configFile, JSON.stringify(merged(testSettings, settings)));
    const dataDir = path.join(folder, 'data');
    mkdirSync(dataDir, { mode: 0o700 });
    writeFileSync(path.join(dataDir, 'users.json'), JSON.stringify(directoryOf(emails)), { mode: 0o600 });
    return { folder, dataDir, configFile, users: emails, remove };
  } catch (error) {
    remove();
    throw error;
  }
}

/** The e-mail address of a user whom a test calls by name or by address. */
export function emailOf(user: string): string {
  return user.includes('@') ? user : `${user}@offshoot.test`;
}

function directoryOf(emails: readonly string[]): object {
  return {
    organizations: [{ id: organizationId, name: 'Test organization' }],
    users: emails.map((email, index) => ({
      id: randomUUID(),
      email,
      givenName: email.slice(0, email.indexOf('@')),
      surname: 'Test',
      organizationId,
      organizationAdministrator: index === 0,
    })),
    applications: [],
  };
}

/** Settings, of which those of the second argument have precedence, section by section. */
function merged(
  first: Readonly<Record<string, unknown>>,
  second: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const result: Record<string, unknown> = { ...first };
  for (const [name, value] of Object.entries(second)) {
    const before = result[name];
    result[name] = isSection(before) && isSection(value) ? merged(before, value) : value;
  }
  return result;
}

function isSection(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
