import { readFileSync } from 'node:fs';
import path from 'node:path';
import { Ajv, type ErrorObject } from 'ajv';
import secureJson from 'secure-json-parse';
import { Type, type Static } from 'typebox';
import { isNetwork } from './http/addresses.ts';
import { isolationLevels } from './domain.ts';

/** Shortest life of a container token, seconds: iTwin.js renews one an hour before its end, and an hour after it was given out. */
export const minContainerSeconds = 7200;

const Window = Type.Object(
  {
    requests: Type.Integer({ minimum: 1, description: 'Requests allowed in one window.' }),
    seconds: Type.Integer({ minimum: 1, description: 'Length of the window.' }),
  },
  { additionalProperties: false },
);

const Tier = Type.Object(
  {
    general: Type.Array(Window, { description: 'Windows over all requests of one application; the strictest counts.' }),
    operations: Type.Record(Type.String(), Window, {
      description: 'Own windows of single operations, by operation id.',
    }),
  },
  { additionalProperties: false },
);

const Issuer = Type.Object(
  {
    issuer: Type.String({ minLength: 1, description: 'The `iss` of its tokens; discovery is read below this URL.' }),
    audience: Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }), { minItems: 1 })]),
    algorithms: Type.Array(
      Type.Enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']),
      {
        minItems: 1,
        default: ['RS256', 'PS256', 'ES256'],
      },
    ),
    jwksUri: Type.Optional(Type.String({ minLength: 1, description: 'Skips discovery.' })),
    organizationClaim: Type.String({
      default: 'org',
      description:
        'Claim that names the organization of the user, or lists several; iTwins that the user creates belong to the first.',
    }),
    administratorClaim: Type.String({
      default: 'org_admin',
      description:
        'Claim that is true for Organization Administrators, or lists the organizations that the user administers.',
    }),
    emailsVerified: Type.Optional(
      Type.Boolean({
        default: false,
        description: 'Every `email` in its tokens is verified. By default those beside which `email_verified` is true.',
      }),
    ),
    tokenType: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 255,
        description: 'The `typ` in the header of its access tokens, such as at+jwt. By default at+jwt, JWT or none.',
      }),
    ),
    claimsEarlierUsers: Type.Optional(
      Type.Boolean({
        description:
          'Users of a version that knew them by subject alone are its own. By default if it is the only one of `issuers`.',
      }),
    ),
  },
  { additionalProperties: false },
);

const storeSettings = {
  type: Type.Enum(['files', 's3', 'azure'], {
    default: 'files',
    description: 'Where files are kept: in the data folder, in a bucket, in a container.',
  }),
  name: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 200,
      description: 'Kept beside each file. By default type and place; give one where two stores would have the same.',
    }),
  ),
  folder: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'files: where, from the data folder; `blobs` by default. Needed for further data centers.',
    }),
  ),
  bucket: Type.Optional(Type.String({ minLength: 1, description: 's3: its name. It is made if it is not there.' })),
  region: Type.String({ minLength: 1, default: 'us-east-1', description: 's3.' }),
  endpoint: Type.Optional(
    Type.String({ pattern: '^https?://', description: 's3: address of a server that is not AWS.' }),
  ),
  accessKeyId: Type.Optional(Type.String({ minLength: 1, description: 's3: by default from where AWS clients look.' })),
  secretAccessKey: Type.Optional(Type.String({ minLength: 1 })),
  container: Type.Optional(
    Type.String({ minLength: 3, maxLength: 63, description: 'azure: its name. It is made if it is not there.' }),
  ),
  connectionString: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'azure: with the key of the account. By default $AZURE_STORAGE_CONNECTION_STRING.',
    }),
  ),
  direct: Type.Optional(
    Type.Boolean({
      description:
        's3, azure: clients go to the service itself, so that their bytes do not pass through the server. By default with azure, and with s3 that has no `endpoint`.',
    }),
  ),
  directForPages: Type.Boolean({
    default: false,
    description:
      's3, azure: pages in a browser go there too; the bucket or account needs a CORS rule for them. Else they are served by the server.',
  }),
  prefix: Type.String({ default: '', maxLength: 200, description: 'Put before every name in bucket or container.' }),
};

/** Characters; a random key of 24 bytes in base64. */
export const shortestServiceKey = 32;

const ConfigSchema = Type.Object(
  {
    dataDir: Type.String({
      minLength: 1,
      default: 'offshoot-data',
      description: 'Folder of database, files, keys and users.',
    }),
    host: Type.String({
      minLength: 1,
      default: 'localhost',
      description: '`localhost` is this machine only; 0.0.0.0 and :: are every address.',
    }),
    port: Type.Integer({ minimum: 0, maximum: 65535, default: 4700, description: '0 takes a free one.' }),
    publicUrl: Type.Optional(
      Type.String({
        pattern: '^https?://[^\\s?#]+[^\\s?#/]$',
        description: 'Address in links; by default that of the request.',
      }),
    ),
    trustProxy: Type.Union(
      [Type.Boolean(), Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { minItems: 1, maxItems: 100 })],
      {
        default: false,
        description:
          'Believe X-Forwarded-* headers: `true` those of whoever connects, as behind one proxy; or the addresses and networks of all proxies in a row.',
      },
    ),
    databaseUrl: Type.Optional(
      Type.String({ pattern: '^postgres(ql)?://', description: 'PostgreSQL; by default SQLite in the data folder.' }),
    ),
    databasePool: Type.Integer({
      minimum: 2,
      maximum: 200,
      default: 16,
      description:
        'Connections to PostgreSQL; one more tells whether it answers. At most three quarters of them serve one organization at a time, a half one user, a half one iModel.',
    }),
    databaseWaitSeconds: Type.Number({
      minimum: 0.1,
      maximum: 60,
      default: 10,
      description:
        'How long a request waits for a connection to PostgreSQL, when all are taken or none can be had; then it is answered 503.',
    }),
    databaseLockSeconds: Type.Number({
      minimum: 0.1,
      maximum: 60,
      default: 5,
      description:
        'How long a statement on PostgreSQL waits for a row that another one has locked; then its request is answered 503.',
    }),
    databasePrepares: Type.Boolean({
      default: true,
      description:
        'Let PostgreSQL prepare statements. Not behind a pooler that gives each transaction another connection and knows none of them (PgBouncer before 1.21).',
    }),
    store: Type.Object(storeSettings, { additionalProperties: false, default: {} }),
    dataCenter: Type.String({
      minLength: 1,
      maxLength: 100,
      default: 'East US',
      description: 'Data center of new iTwins that name none; its files are in `store`.',
    }),
    dataCenters: Type.Record(
      Type.String({ minLength: 1, maxLength: 100 }),
      Type.Object(storeSettings, { additionalProperties: false }),
      { default: {}, description: 'Further data centers and the store of each.' },
    ),
    storeTimeoutSeconds: Type.Number({
      minimum: 0.1,
      maximum: 3600,
      default: 60,
      description:
        'Longest time in which a store moves no byte and gives no answer; then the call fails and is tried again, however large the file.',
    }),
    logLevel: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], { default: 'info' }),
    logPretty: Type.Boolean({ default: false }),
    tracesUrl: Type.Optional(
      Type.String({
        pattern: '^https?://',
        description: 'OpenTelemetry: where spans go (OTLP over HTTP), such as http://localhost:4318/v1/traces.',
      }),
    ),
    tracesRatio: Type.Number({
      minimum: 0,
      maximum: 1,
      default: 1,
      description: 'Share of requests that are traced; one that comes with a trace follows its sender.',
    }),
    metrics: Type.Boolean({
      default: false,
      description: 'Serve /metrics for Prometheus, to everyone who reaches the port.',
    }),
    metricsPort: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 65535,
        description: 'Serve /metrics here, and not on the port of the API; 0 takes a free one.',
      }),
    ),
    corsOrigins: Type.Array(Type.String({ minLength: 1 }), { default: ['*'] }),
    embeddedIssuer: Type.Boolean({ default: true, description: 'Accept tokens minted by `offshoot token`.' }),
    issuers: Type.Array(Issuer, { default: [], description: 'A subject is a user of the issuer that names it.' }),
    requiredScope: Type.Union([Type.String({ minLength: 1 }), Type.Null()], { default: 'itwin-platform' }),
    defaultTier: Type.String({
      default: 'Enterprise',
      description: 'Tier of applications that the users file does not name.',
    }),
    tiers: Type.Record(Type.String({ minLength: 1 }), Tier, {
      default: {
        Trial: tierOf(
          [
            { requests: 500, seconds: 60 },
            { requests: 5000, seconds: 3600 },
          ],
          5,
          5,
        ),
        Basic: tierOf([{ requests: 5000, seconds: 60 }], 20, 50),
        Premium: tierOf([{ requests: 5000, seconds: 60 }], 20, 50),
        Enterprise: tierOf([{ requests: 5000, seconds: 60 }], 20, 50),
      },
    }),
    rateLimits: Type.Object(
      {
        userShare: Type.Number({
          minimum: 0,
          maximum: 1,
          default: 0.1,
          description:
            'Share of each window of an application that each of its users has in any case, also when others have used the window up.',
        }),
        refused: Type.Object(Window.properties, {
          additionalProperties: false,
          default: { requests: 600, seconds: 60 },
          description:
            'Requests of one address whose token is refused; then its tokens are not looked at any more, but for those that were good before.',
        }),
        links: Type.Object(Window.properties, {
          additionalProperties: false,
          default: { requests: 12_000, seconds: 60 },
          description: 'Requests of one address through links, to files that this server hands out or takes.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    signedLinkSeconds: Type.Integer({
      minimum: 10,
      maximum: 86_400,
      default: 3600,
      description: 'Life of upload and download links.',
    }),
    downloads: Type.Object(
      {
        simultaneous: Type.Integer({
          minimum: 1,
          maximum: 1024,
          default: 256,
          description:
            'Downloads that this server sends at a time. When all places are taken, the slowest one below 64 KiB a second gives way, else a new one is answered 503.',
        }),
        perLink: Type.Integer({
          minimum: 1,
          maximum: 1024,
          default: 64,
          description: 'Downloads at a time through one link, or with the token of one container.',
        }),
        stallSeconds: Type.Number({
          minimum: 0.1,
          maximum: 3600,
          default: 60,
          description: 'A download whose client takes less than 4 KiB a second for so long is ended.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    verifyChangesets: Type.Enum(['all', 'recognized', 'off'], {
      default: 'recognized',
      description:
        'Whether a push is refused when the bytes of its file do not give its id, or hold statements that no schema of an iModel needs. `recognized`: of files that begin as changesets of iTwin.js; others are kept as they are. `all`: others are refused.',
    }),
    pushLeaseSeconds: Type.Integer({
      minimum: 1,
      default: 600,
      description: 'How long an unfinished push keeps others out.',
    }),
    shutdownSeconds: Type.Number({
      minimum: 0,
      default: 10,
      description: 'How long requests under way may still take when the server is told to end.',
    }),
    briefcases: Type.Object(
      {
        perUser: Type.Integer({ minimum: 1, default: 100, description: 'Briefcases of one user on one iModel.' }),
        perMinute: Type.Integer({
          minimum: 1,
          default: 5,
          description: 'Unreleased ones that one user may acquire on one iModel in a minute.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    checkpoints: Type.Object(
      {
        generate: Type.Enum(['auto', 'here', 'elsewhere', 'off'], {
          default: 'auto',
          description:
            '`auto`: on this server if iTwin.js is installed. `elsewhere`: ordered here, made by another server on the same database.',
        }),
        everyChangesets: Type.Integer({
          minimum: 0,
          default: 100,
          description: 'The newest changeset gets one when the last is this far behind; 0 leaves it to named versions.',
        }),
        delaySeconds: Type.Number({
          minimum: 0,
          default: 1,
          description: 'Wait before one is made, so that a flurry of pushes and versions is over.',
        }),
        attempts: Type.Integer({
          minimum: 1,
          maximum: 100,
          default: 4,
          description:
            'Until one is given up because the iTwin.js process ended; a fault of the files is not tried again.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 2,
          description: 'Wait before the second attempt; each further wait is twice as long, a minute at most.',
        }),
        slots: Type.Integer({
          minimum: 1,
          maximum: 32,
          default: 3,
          description:
            'Files that iTwin.js works on at a time, each in a process of its own. With three, the work of one user leaves a place to another user of its organization, and that of one organization a place to another one. Each may take `memoryMiB`; an idle process is ended after a minute.',
        }),
        memoryMiB: Type.Integer({
          minimum: 128,
          default: 4096,
          description: 'Memory above which an iTwin.js process is ended.',
        }),
        silenceSeconds: Type.Integer({
          minimum: 1,
          default: 600,
          description: 'Longest time that one changeset may take to apply.',
        }),
        workSeconds: Type.Integer({
          minimum: 1,
          default: 3600,
          description: 'Longest time for one piece of work of the iTwin.js process: a file and at most 500 changesets.',
        }),
        isolation: Type.Enum([...isolationLevels], {
          default: 'process',
          description:
            'Level of isolation of the iTwin.js process below which no checkpoint is made. The strongest level that works is always used: `namespaces` (bubblewrap), `user` (where the server runs as root), `process`.',
        }),
        service: Type.Optional(
          Type.Object(
            {
              url: Type.String({
                pattern: '^https?://[^/]',
                maxLength: 2000,
                description:
                  'Address of the iTwin.js service (`offshoot itwinjs`), which runs iTwin.js in place of this server.',
              }),
              key: Type.Optional(
                Type.String({
                  minLength: shortestServiceKey,
                  maxLength: 1000,
                  description: 'Secret that the service knows too; or in the environment, `OFFSHOOT_ITWINJS_KEY`.',
                }),
              ),
            },
            { additionalProperties: false },
          ),
        ),
        tokenSeconds: Type.Integer({
          minimum: minContainerSeconds,
          maximum: 604_800,
          default: minContainerSeconds,
          description:
            'Longest life of the tokens that open checkpoints. They end with the token that they were given for, but not before two hours: iTwin.js renews them after one hour, or an hour before their end.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    jobs: Type.Object(
      {
        here: Type.Boolean({
          default: true,
          description:
            'Run jobs on this server: checkpoints, copies into other data centers, webhooks. With false they wait for others, such as `offshoot work`.',
        }),
        progressSeconds: Type.Number({
          minimum: 1,
          default: 300,
          description: 'Longest time that a job may make no progress; then it is abandoned and tried again.',
        }),
        leaseSeconds: Type.Number({
          minimum: 1,
          default: 30,
          description:
            'How long a job that a server took may be silent until another takes it over; renewed every third of it.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    transfers: Type.Object(
      {
        slots: Type.Integer({
          minimum: 0,
          maximum: 100,
          default: 4,
          description: 'iModels that this server copies into another data center at a time; 0 leaves it to others.',
        }),
        parallelFiles: Type.Integer({
          minimum: 1,
          maximum: 256,
          default: 16,
          description: 'Files of each that are copied at a time.',
        }),
        bytesPerSecond: Type.Integer({
          minimum: 0,
          default: 0,
          description: 'Limit over all copies of this server; 0 is none.',
        }),
        attemptsWithoutProgress: Type.Integer({
          minimum: 1,
          default: 10,
          description: 'Attempts in a row that bring nothing over until a copy is given up.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 1,
          description: 'Wait before the second attempt; each further wait is twice as long, a minute at most.',
        }),
        share: Type.Enum(['organization', 'store'], {
          default: 'organization',
          description:
            'Whose files a copy takes as they are where the store has them already: those of its own organization, or of everybody. The latter is faster, and by its time tells whoever asks for the copy that somebody else has the same file.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    webhooks: Type.Object(
      {
        here: Type.Boolean({
          default: true,
          description:
            'Send messages from this server, where it runs jobs. With false others do, such as those that may call addresses outside.',
        }),
        allowPrivateAddresses: Type.Boolean({
          default: false,
          description: 'Also post to addresses of this machine and its private networks, and without encryption.',
        }),
        attempts: Type.Integer({
          minimum: 1,
          maximum: 100,
          default: 10,
          description: 'Until a message is put on the list of those given up.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 10,
          description: 'Wait before the second attempt; each further wait is twice as long, an hour at most.',
        }),
        pauseAfter: Type.Integer({
          minimum: 1,
          default: 5,
          description:
            'Deliveries to one webhook that fail in a row until nothing is sent to it for a while; then one message tries it.',
        }),
        pauseSeconds: Type.Number({
          minimum: 0.1,
          maximum: 300,
          default: 30,
          description: 'The first such pause; each further one is twice as long, 5 minutes at most.',
        }),
        perUser: Type.Integer({
          minimum: 0,
          maximum: 100_000,
          default: 100,
          description: 'Webhooks that one user has made, on all iTwins together.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    quotas: Type.Object(
      {
        baselineGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 256,
          description: 'Largest baseline file. 0 is no limit, here and below.',
        }),
        changesetGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 32,
          description: 'Largest file of a changeset.',
        }),
        iTwinGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 16_384,
          description:
            'Bytes on the account of one iTwin: announced, stored, and deleted ones until the collector has taken them away. What clones share counts once, for whoever had it stored.',
        }),
        organizationGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 131_072,
          description: 'The same of one organization, or of one user for iTwins of no organization.',
        }),
        iTwinIModels: Type.Integer({
          minimum: 0,
          default: 100_000,
          description: 'iModels of one iTwin, failed creations included.',
        }),
        organizationIModels: Type.Integer({
          minimum: 0,
          default: 1_000_000,
          description: 'The same of one organization, or of one user for iTwins of no organization.',
        }),
        webhooks: Type.Integer({ minimum: 0, default: 100, description: 'Webhooks of one iTwin.' }),
        repositories: Type.Integer({
          minimum: 0,
          default: 500,
          description: 'Repositories of one iTwin, which are listed in one piece.',
        }),
        shares: Type.Integer({ minimum: 0, default: 1000, description: 'Shares of one iModel that have not expired.' }),
        briefcases: Type.Integer({
          minimum: 0,
          default: 10_000,
          description: 'Briefcases of one iModel that are not released, of all users together.',
        }),
        namedVersions: Type.Integer({ minimum: 0, default: 10_000, description: 'Named versions of one iModel.' }),
      },
      { additionalProperties: false, default: {} },
    ),
    requests: Type.Object(
      {
        headersSeconds: Type.Number({
          minimum: 1,
          maximum: 600,
          default: 30,
          description: 'Longest time in which the head of a request arrives; then the connection is closed.',
        }),
        bodySeconds: Type.Number({
          minimum: 1,
          maximum: 600,
          default: 60,
          description:
            'Longest time in which the body of a request to the API arrives; then it is answered 408. Also for the rest of a body that was refused; then the connection is closed.',
        }),
        uploadStallSeconds: Type.Number({
          minimum: 1,
          maximum: 3600,
          default: 120,
          description: 'Longest time in which an upload of a file brings less than 64 KiB; then it is answered 408.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    diskSpace: Type.Object(
      {
        floorMiB: Type.Number({
          minimum: 0,
          default: 1024,
          description:
            'Free space in the data folder, and in stores of type files, below which nothing new is stored; reading and deleting go on. 0 switches it off.',
        }),
        floorPercent: Type.Number({
          minimum: 0,
          maximum: 50,
          default: 5,
          description: 'The same as a share of the file system. The smaller of the two counts.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    audit: Type.Object(
      {
        keepDays: Type.Number({
          minimum: 0,
          default: 400,
          description: 'How long entries of the audit log are kept; 0 keeps them for ever.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
    seedFile: Type.Optional(
      Type.String({
        minLength: 1,
        description: 'iModel file that new empty iModels begin with, in place of the shipped one; checked at start.',
      }),
    ),
    changesetGroupHours: Type.Number({
      minimum: 0,
      default: 168,
      description: 'A changeset group that no changeset joined for so long is closed.',
    }),
    collector: Type.Object(
      {
        intervalSeconds: Type.Number({ minimum: 0, default: 60, description: '0 switches the collector off.' }),
        graceSeconds: Type.Number({
          minimum: 0,
          default: 7200,
          description: 'Least age of a deletion before its files go; longer than any link lives.',
        }),
      },
      { additionalProperties: false, default: {} },
    ),
  },
  { additionalProperties: false },
);

/** Where the key of the iTwin.js service is looked for. */
export const serviceKeyName = 'OFFSHOOT_ITWINJS_KEY';

/** The configuration, complete, after defaults, file, environment and command line. */
export type Config = Static<typeof ConfigSchema>;
/** What a config file, a test or an embedder may leave out: everything. */
type Nested =
  | 'rateLimits'
  | 'collector'
  | 'quotas'
  | 'downloads'
  | 'requests'
  | 'diskSpace'
  | 'audit'
  | 'jobs'
  | 'briefcases'
  | 'checkpoints'
  | 'transfers'
  | 'webhooks'
  | 'store';
export type ConfigInput = Partial<Omit<Config, Nested | 'dataCenters'>> & { [K in Nested]?: Partial<Config[K]> } & {
  dataCenters?: Record<string, Partial<Config['store']>>;
};
export type IssuerConfig = Static<typeof Issuer>;

/** Rule of the API: clone has a window of its own, fork the same, create a wider one; all far below the general one. */
function tierOf(general: Static<typeof Window>[], clones: number, creations: number): Static<typeof Tier> {
  const perMinute = (requests: number) => ({ requests, seconds: 60 });
  return {
    general,
    operations: {
      // Clone rule: 5 requests a minute in the lowest tier, 20 in the others.
      'clone-imodel': perMinute(clones),
      'fork-imodel': perMinute(clones),
      'create-imodel': perMinute(creations),
    },
  };
}

/** Faults of a configuration, all of them at once. */
export class ConfigError extends Error {
  readonly faults: readonly string[];
  constructor(faults: readonly string[]) {
    super(
      `The configuration has ${faults.length === 1 ? 'a fault' : `${faults.length} faults`}:\n${faults.map((fault) => `  - ${fault}`).join('\n')}`,
    );
    this.name = 'ConfigError';
    this.faults = faults;
  }
}

const environment: Record<string, { key: keyof Config; kind: 'text' | 'number' | 'boolean' | 'proxies' }> = {
  OFFSHOOT_DATA: { key: 'dataDir', kind: 'text' },
  OFFSHOOT_HOST: { key: 'host', kind: 'text' },
  OFFSHOOT_PORT: { key: 'port', kind: 'number' },
  OFFSHOOT_METRICS_PORT: { key: 'metricsPort', kind: 'number' },
  OFFSHOOT_PUBLIC_URL: { key: 'publicUrl', kind: 'text' },
  OFFSHOOT_TRUST_PROXY: { key: 'trustProxy', kind: 'proxies' },
  OFFSHOOT_DATABASE_URL: { key: 'databaseUrl', kind: 'text' },
  OFFSHOOT_DATA_CENTER: { key: 'dataCenter', kind: 'text' },
  OFFSHOOT_TRACES_URL: { key: 'tracesUrl', kind: 'text' },
  OFFSHOOT_LOG_LEVEL: { key: 'logLevel', kind: 'text' },
};

/**
 * Puts a configuration together: defaults, then the file (`offshoot.json`, or the one that `OFFSHOOT_CONFIG` or the
 * command line names), then the environment, then `overrides`.
 * @throws ConfigError with every fault found
 */
export function loadConfig(
  overrides: ConfigInput = {},
  options: { file?: string; env?: NodeJS.ProcessEnv } = {},
): Config {
  const env = options.env ?? process.env;
  const faults: string[] = [];
  const fromFile = readConfigFile(options.file ?? env['OFFSHOOT_CONFIG'], faults);
  const fromEnv: Record<string, unknown> = {};
  for (const [name, { key, kind }] of Object.entries(environment)) {
    const text = env[name];
    if (text === undefined || text === '') continue;
    if (kind === 'number' && !/^\d+$/.test(text)) faults.push(`${name} must be a whole number, not '${text}'`);
    else if (kind === 'boolean' && !/^(true|false)$/.test(text))
      faults.push(`${name} must be true or false, not '${text}'`);
    else if (
      kind === 'proxies' &&
      ![proxiesIn(text)].flat().every((entry) => typeof entry === 'boolean' || isNetwork(entry))
    )
      faults.push(`${name} must be true, false, or addresses and networks of proxies, not '${text}'`);
    else
      fromEnv[key] =
        kind === 'number'
          ? Number(text)
          : kind === 'boolean'
            ? text === 'true'
            : kind === 'proxies'
              ? proxiesIn(text)
              : text;
  }
  const given = Object.fromEntries(Object.entries(overrides).filter(([, value]) => value !== undefined));
  return checkConfig({ ...fromFile, ...fromEnv, ...given }, env, faults);
}

/** `true`, `false`, or addresses and networks with commas between them. */
function proxiesIn(text: string): Config['trustProxy'] {
  return text === 'true' || text === 'false' ? text === 'true' : text.split(',').map((entry) => entry.trim());
}

function readConfigFile(named: string | undefined, faults: string[]): Record<string, unknown> {
  const file = named ?? 'offshoot.json';
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    const missing = (error as NodeJS.ErrnoException).code === 'ENOENT';
    if (named !== undefined || !missing) faults.push(`cannot read ${path.resolve(file)}: ${(error as Error).message}`);
    return {};
  }
  try {
    const value: unknown = secureJson.parse(text);
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    faults.push(`${path.resolve(file)} must hold one JSON object`);
  } catch (error) {
    faults.push(`${path.resolve(file)} is not valid JSON: ${(error as Error).message}`);
  }
  return {};
}

/** Settings that were renamed in the current release. Their earlier names are accepted, with a warning, until the next one. */
const renamedSettings = [
  { section: 'transfers', earlier: 'fruitlessAttempts', name: 'attemptsWithoutProgress' },
] as const;

function acceptEarlierNames(value: Record<string, unknown>, faults: string[]): void {
  for (const { section, earlier, name } of renamedSettings) {
    const settings = value[section];
    if (typeof settings !== 'object' || settings === null || !Object.hasOwn(settings, earlier)) continue;
    const { [earlier]: setting, ...others } = settings as Record<string, unknown>;
    if (Object.hasOwn(others, name))
      faults.push(`${section}.${earlier} is the earlier name of ${section}.${name}; use one`);
    value[section] = { [name]: setting, ...others };
    process.emitWarning(
      `The setting ${section}.${earlier} is now ${section}.${name}. The next release rejects the earlier name.`,
      {
        type: 'DeprecationWarning',
        code: 'OFFSHOOT_RENAMED_SETTING',
      },
    );
  }
}

function checkConfig(value: Record<string, unknown>, env: NodeJS.ProcessEnv, faults: string[]): Config {
  const ajv = new Ajv({ allErrors: true, useDefaults: true, strict: false });
  const config = structuredClone(value) as unknown as Config;
  acceptEarlierNames(config, faults);
  if (!ajv.validate(ConfigSchema, config)) faults.push(...(ajv.errors ?? []).map(describeFault));
  else {
    // As AWS clients look for their keys by themselves, Azure's find theirs here: secrets need not stand in a file.
    const connectionString = env['AZURE_STORAGE_CONNECTION_STRING'];
    if (connectionString !== undefined)
      for (const store of [config.store, ...Object.values(config.dataCenters)])
        if (store.type === 'azure') store.connectionString ??= connectionString;
    const { service } = config.checkpoints;
    if (service !== undefined) {
      service.key ??= env[serviceKeyName] ?? '';
      if (service.key.length < shortestServiceKey)
        faults.push(
          `${serviceKeyName} is missing or shorter than ${shortestServiceKey} characters: checkpoints.service needs it`,
        );
    }
    if (!(config.defaultTier in config.tiers))
      faults.push(`defaultTier '${config.defaultTier}' is not among the tiers`);
    if (config.collector.graceSeconds > 0 && config.collector.graceSeconds <= config.signedLinkSeconds)
      faults.push(
        `collector.graceSeconds (${config.collector.graceSeconds}) must be longer than signedLinkSeconds (${config.signedLinkSeconds})`,
      );
    if (typeof config.trustProxy !== 'boolean')
      faults.push(
        ...config.trustProxy
          .filter((entry) => !isNetwork(entry))
          .map((entry) => `trustProxy: '${entry}' is neither an address nor a network such as 10.0.0.0/8`),
      );
    faults.push(...storeFaults(config));
    if (config.metricsPort !== undefined && config.metricsPort !== 0 && config.metricsPort === config.port)
      faults.push(`metricsPort (${config.metricsPort}) must be another one than port`);
    if (config.metricsPort !== undefined && !config.metrics) faults.push('metricsPort is set, but metrics is false');
    const claiming = config.issuers.filter(({ claimsEarlierUsers }) => claimsEarlierUsers === true);
    if (claiming.length > 1)
      faults.push(`issuers: more than one has claimsEarlierUsers: ${claiming.map(({ issuer }) => issuer).join(', ')}`);
    if (!config.embeddedIssuer && config.issuers.length === 0)
      faults.push('no issuer of tokens: configure issuers or leave embeddedIssuer on');
  }
  if (faults.length > 0) throw new ConfigError(faults);
  return { ...config, dataDir: path.resolve(config.dataDir) };
}

/** What each type of store needs, and that no two places go by one name. */
function storeFaults({ store, dataCenter, dataCenters }: Config): string[] {
  const faults: string[] = [];
  if (dataCenter in dataCenters) faults.push(`dataCenters.${dataCenter}: the store of this data center is 'store'`);
  const known = new Map<string, string>();
  for (const [place, settings] of [
    ['store', store] as const,
    ...Object.entries(dataCenters).map(([name, each]) => [`dataCenters.${name}`, each] as const),
  ]) {
    const needed = {
      files: place === 'store' ? [] : (['folder'] as const),
      s3: ['bucket'] as const,
      azure: ['container', 'connectionString'] as const,
    }[settings.type];
    for (const key of needed)
      if (settings[key] === undefined)
        faults.push(
          `${place}.${key} is missing: a store of type ${settings.type} needs it${settings.type === 'files' ? ' here' : ''}`,
        );
    const id = storeId(settings);
    const text = JSON.stringify(settings);
    if ((known.get(id) ?? text) !== text)
      faults.push(`${place}: another store goes by '${id}' too; give this one a name`);
    known.set(id, text);
  }
  return faults;
}

function describeFault(error: ErrorObject): string {
  const place = error.instancePath.slice(1).replaceAll('/', '.') || 'the configuration';
  if (error.keyword === 'additionalProperties')
    return `${place}: there is no setting '${(error.params as { additionalProperty: string }).additionalProperty}'`;
  return `${place} ${error.message ?? 'is not valid'}`;
}

/** Id of a store, which is recorded with each of its blobs. */
export function storeId({ type, name, folder, bucket, container }: Config['store']): string {
  if (name !== undefined) return name;
  const place = { files: folder, s3: bucket, azure: container }[type];
  return place === undefined ? type : `${type}:${place}`;
}
