import { randomUUID } from 'node:crypto';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import type { DirectoryData } from '../../apps/server/src/access/directory.ts';
import { EmbeddedIssuer } from '../../apps/server/src/access/embeddedIssuer.ts';
import { startServer, type RunningServer, type ServerOptions } from '../../apps/server/src/app.ts';
import { loadConfig, type Config, type ConfigInput } from '../../apps/server/src/config.ts';
import { databaseFile } from '../../apps/server/src/db/database.ts';
import type { Engine } from '../../apps/server/src/db/engine.ts';
import type { Permission } from '../../apps/server/src/domain.ts';
import { Api } from './api.ts';
import { recordCoverage } from './coverage.ts';
import { createPostgresDatabase } from './postgres.ts';
import { azuriteConnection } from './stores.ts';

/** Set by `scripts/test.ts`, which starts PostgreSQL for the whole run. */
const postgresUrl = process.env['OFFSHOOT_TEST_POSTGRES'];
if (postgresUrl === undefined && process.env['CI'] !== undefined)
  throw new Error('CI must test on PostgreSQL too: run npm test');

/** The one store to test on, from `--on` of `scripts/test.ts`; undefined: all. It also selects its database. */
const onlyStore = process.env['OFFSHOOT_TEST_ON'];

/**
 * Folder with an embedded database and name of a database on PostgreSQL whose tables have been made, so that a server on a copy has
 * nothing to migrate. Set by `scripts/test.ts`.
 */
const migrated = { folder: process.env['OFFSHOOT_TEST_SQLITE'], name: process.env['OFFSHOOT_TEST_POSTGRES_TEMPLATE'] };

/** The databases, for tests that depend on the database only. */
export const engines: readonly Engine[] = (
  postgresUrl === undefined ? (['sqlite'] as const) : (['sqlite', 'postgres'] as const)
).filter((engine) => onlyStore === undefined || (engine === 'sqlite') === (onlyStore === 'files'));

/** A database with a store. */
export interface Setup {
  engine: Engine;
  store: 'files' | 's3' | 'azure';
}

/** Addresses of an S3 server and of Azurite, which `scripts/test.ts` starts for the whole run. */
const storeAddresses = { s3: process.env['OFFSHOOT_TEST_S3'], azure: process.env['OFFSHOOT_TEST_AZURE'] };

/** The setups on which every suite of the API runs. */
export const setups: readonly Setup[] = (
  [
    { engine: 'sqlite', store: 'files' },
    { engine: 'postgres', store: 's3' },
    { engine: 'postgres', store: 'azure' },
  ] as const
).filter(
  ({ engine, store }) =>
    engines.includes(engine) &&
    (store === 'files' || storeAddresses[store] !== undefined) &&
    (onlyStore === undefined || store === onlyStore),
);

/** One of them for each database. */
export const databases: readonly Setup[] = setups.filter(
  ({ engine }, index) => setups.findIndex((other) => other.engine === engine) === index,
);

/** The configuration of a new store. @param direct whether clients access it directly where the store supports that */
export function storeConfig(store: Setup['store'], direct = true): NonNullable<ConfigInput['store']> {
  if (store === 'files') return { type: 'files' };
  const prefix = `${randomUUID()}/`;
  const address = storeAddresses[store] as string;
  return store === 's3'
    ? {
        type: 's3',
        bucket: 'offshoot',
        endpoint: address,
        accessKeyId: 'S3RVER',
        secretAccessKey: 'S3RVER',
        prefix,
        direct,
      }
    : { type: 'azure', container: 'offshoot', connectionString: azuriteConnection(address), prefix, direct };
}

/** The store of another data center: of another kind than the first, where there is one. */
export function otherStore({ store }: Setup): NonNullable<ConfigInput['store']> {
  if (store === 'files') return { type: 'files', folder: 'west' };
  return { name: 'west', ...storeConfig(store === 's3' ? 'azure' : 's3') };
}

const home = randomUUID();
const elsewhere = randomUUID();

/** The users of the tests: two organizations, an administrator in each and one of both. */
export const people = {
  /** Owns the iTwins that she creates; no administrator. */
  olivia: person('olivia', home),
  /** Has only the roles that a test assigns to him. */
  max: person('max', home),
  /** Organization Administrator of Olivia's organization. */
  admin: person('admin', home, true),
  /** In the users file, but unknown to a server unless a test sends a request as this user. */
  newcomer: person('newcomer', home),
  /** Of another organization. */
  eve: person('eve', elsewhere),
  /** Organization Administrator of the other organization. */
  foreignAdmin: person('foreignadmin', elsewhere, true),
  /** Of the other organization, and Organization Administrator of both. */
  consultant: person('consultant', elsewhere, [home, elsewhere]),
};
export type PersonName = keyof typeof people;

function person(name: string, organizationId: string, organizationAdministrator: boolean | string[] = false) {
  return {
    id: randomUUID(),
    email: `${name}@example.test`,
    givenName: name,
    surname: 'Tester',
    organizationId,
    organizationAdministrator,
  };
}

const directory: DirectoryData = {
  organizations: [
    { id: home, name: 'Home' },
    { id: elsewhere, name: 'Elsewhere' },
  ],
  users: Object.values(people),
  applications: [
    { id: 'suite', name: 'Test suite', tier: 'Unlimited' },
    { id: 'trial-app', name: 'Trial', tier: 'Trial' },
    { id: 'basic-app', name: 'Basic', tier: 'Basic' },
    { id: 'premium-app', name: 'Premium', tier: 'Premium' },
    { id: 'enterprise-app', name: 'Enterprise', tier: 'Enterprise' },
    { id: 'lost-app', name: 'Lost', tier: 'NoSuchTier' },
  ],
};

/** A data folder and a database for one test, on which servers can be started one after the other. */
export class Installation {
  readonly engine: Engine;
  readonly dataDir: string;
  readonly databaseUrl: string | undefined;

  readonly #store: NonNullable<ConfigInput['store']>;

  private constructor({ engine, store }: Setup, dataDir: string, databaseUrl: string | undefined) {
    this.engine = engine;
    this.#store = storeConfig(store);
    this.dataDir = dataDir;
    this.databaseUrl = databaseUrl;
  }

  /**
   * An installation with an empty database.
   * @param on a database alone keeps its files in the data folder
   * @param postgres the server on which to create a database; by default that of the test run
   * @param parent where the data folder is created
   */
  static create(on: Engine | Setup, postgres = postgresUrl, parent = tmpdir()): Promise<Installation> {
    return Installation.#create(on, parent, () => createPostgresDatabase(postgres as string));
  }

  /** An installation whose database has its tables already, where the test run has prepared one. */
  static async createMigrated(on: Engine | Setup): Promise<Installation> {
    const installation = await Installation.#create(on, tmpdir(), () =>
      createPostgresDatabase(postgresUrl as string, { template: migrated.name }),
    );
    if (migrated.folder !== undefined && installation.databaseUrl === undefined)
      copyFileSync(path.join(migrated.folder, databaseFile), path.join(installation.dataDir, databaseFile));
    return installation;
  }

  static async #create(
    on: Engine | Setup,
    parent: string,
    createDatabase: () => Promise<string>,
  ): Promise<Installation> {
    const setup: Setup = typeof on === 'string' ? { engine: on, store: 'files' } : on;
    const dataDir = mkdtempSync(path.join(parent, 'offshoot-test-'));
    mkdirSync(dataDir, { recursive: true });
    writeFileSync(path.join(dataDir, 'users.json'), JSON.stringify(directory));
    return new Installation(setup, dataDir, setup.engine === 'postgres' ? await createDatabase() : undefined);
  }

  config(input: ConfigInput = {}): Config {
    const defaults = loadConfig({}, { env: {} });
    return loadConfig(
      {
        dataDir: this.dataDir,
        store: this.#store,
        ...(this.databaseUrl !== undefined && { databaseUrl: this.databaseUrl }),
        databasePool: 8,
        host: '127.0.0.1',
        port: 0,
        logLevel: 'fatal',
        collector: { intervalSeconds: 0 },
        // Most suites push random bytes, of which no checkpoint can be made.
        checkpoints: { generate: 'off' },
        // Tests of checkpoints count jobs and bytes.
        graphics: { enabled: false },
        briefcases: { perUser: 10_000, perMinute: 10_000 },
        tiers: {
          ...defaults.tiers,
          Unlimited: { general: [{ requests: 1_000_000_000, seconds: 60 }], operations: {} },
        },
        ...input,
      },
      { env: {} },
    );
  }

  async start(input: ConfigInput = {}, options: ServerOptions = {}): Promise<TestServer> {
    return new TestServer(
      this,
      await startServer(this.config(input), { checkResponses: true, ...options }),
      await EmbeddedIssuer.open(this.dataDir),
    );
  }

  remove(): void {
    rmSync(this.dataDir, { recursive: true, force: true });
  }
}

/** A running server with helpers for tests. */
export class TestServer {
  readonly installation: Installation;
  readonly running: RunningServer;
  readonly issuer: EmbeddedIssuer;

  constructor(installation: Installation, running: RunningServer, issuer: EmbeddedIssuer) {
    this.installation = installation;
    this.running = running;
    this.issuer = issuer;
    recordCoverage(running.app.server);
  }

  /** The address on which the server listens, whatever its public address is. */
  get origin(): string {
    return `http://localhost:${(this.running.app.server.address() as AddressInfo).port}`;
  }

  get services(): RunningServer['services'] {
    return this.running.services;
  }

  async token(who: PersonName, applicationId = 'suite', lifeSeconds = 3600): Promise<string> {
    return this.issuer.mint(people[who], { applicationId, scope: 'itwin-platform', lifeSeconds });
  }

  /** Plain HTTP as one user, for requests that the official clients cannot send. */
  async as(who: PersonName, applicationId = 'suite'): Promise<Api> {
    return new Api(this.origin, await this.token(who, applicationId));
  }

  /** A new iTwin owned by a user. */
  async iTwin(
    owner: PersonName = 'olivia',
    name = `iTwin ${randomUUID()}`,
    dataCenterLocation?: string,
  ): Promise<string> {
    const api = await this.as(owner);
    const { body } = await api.post('/itwins', {
      displayName: name,
      class: 'Endeavor',
      subClass: 'Project',
      ...(dataCenterLocation !== undefined && { dataCenterLocation }),
    });
    return (body as { iTwin: { id: string } }).iTwin.id;
  }

  /** Assigns a user a role with these permissions on an iTwin. @returns the id of the role */
  async grant(
    iTwinId: string,
    who: PersonName,
    permissions: readonly Permission[],
    owner: PersonName = 'olivia',
  ): Promise<string> {
    const api = await this.as(owner);
    const created = await api.post(`/accesscontrol/itwins/${iTwinId}/roles`, {
      displayName: `role ${randomUUID()}`,
      permissions,
    });
    const roleId = (created.body as { role: { id: string } }).role.id;
    const added = await api.post(`/accesscontrol/itwins/${iTwinId}/members/users`, {
      members: [{ email: people[who].email, roleIds: [roleId] }],
    });
    if (added.status !== 201) throw new Error(`cannot add ${who}: ${JSON.stringify(added.body)}`);
    return roleId;
  }

  async close(): Promise<void> {
    await this.running.close();
  }
}

/** Starts a server on a new installation, which `close` removes. */
export async function bootServer(
  on: Engine | Setup,
  input: ConfigInput = {},
  options: ServerOptions = {},
): Promise<TestServer> {
  const installation = await Installation.createMigrated(on);
  return installation.start(input, options);
}

/** Stops a server and removes its installation. */
export async function endServer(server: TestServer | undefined): Promise<void> {
  await server?.close();
  server?.installation.remove();
}
