import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { ErrorObject } from 'ajv';
import secureJson from 'secure-json-parse';
import { Type, type Static } from './jsonSchema.ts';
import { isNetwork } from './http/addresses.ts';
import { isolationLevels } from './domain.ts';
import { fileReason } from './fileReasons.ts';
import { checkOf } from './schemaChecks.ts';

/** Shortest lifetime of a container token, seconds: iTwin.js renews one hour before it expires, or one hour after it was issued. */
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
    general: Type.Array(Window, {
      description: 'Windows over all requests of one application; the strictest applies.',
    }),
    operations: Type.Record(Type.String(), Window, {
      description: 'Separate windows for individual operations, by operation id.',
    }),
  },
  { additionalProperties: false },
);

/** A name of a claim, or a dotted path to it. */
const claimName = (description: string) => Type.String({ minLength: 1, maxLength: 255, description });

const Issuer = Type.Object(
  {
    issuer: Type.String({
      minLength: 1,
      description: 'The `iss` claim of its tokens; the discovery document is read below this URL.',
    }),
    audience: Type.Union([Type.String({ minLength: 1 }), Type.Array(Type.String({ minLength: 1 }), { minItems: 1 })], {
      description: 'Required `aud` claim of its tokens; of a list, one is enough.',
    }),
    algorithms: Type.Array(
      Type.Enum(['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'ES512', 'EdDSA']),
      {
        minItems: 1,
        default: ['RS256', 'PS256', 'ES256'],
        description: 'Signature algorithms that its tokens may use.',
      },
    ),
    jwksUri: Type.Optional(Type.String({ minLength: 1, description: 'URL of its keys; skips discovery.' })),
    organizationClaim: Type.String({
      default: 'org',
      description:
        'Claim with the organization of the user, or a list of organizations; iTwins that the user creates belong to the first.',
    }),
    administratorClaim: Type.String({
      default: 'org_admin',
      description:
        'Claim that is true for Organization Administrators, or that lists the organizations the user administers.',
    }),
    organization: Type.Optional(
      Type.String({ minLength: 1, maxLength: 255, description: 'Organization of users whose tokens name none.' }),
    ),
    userIdClaim: Type.Optional(
      claimName(
        'Claim that identifies a user at this issuer, such as `oid` of Entra; `sub` by default. Users must not be able to change it, and it must never be reassigned.',
      ),
    ),
    emailClaim: Type.Optional(
      claimName(
        'Claim with the e-mail address; `email` by default. Any other counts as verified only with `emailsVerified`.',
      ),
    ),
    givenNameClaim: Type.Optional(claimName('Claim with the given name; `given_name` by default.')),
    surnameClaim: Type.Optional(claimName('Claim with the surname; `family_name` by default.')),
    nameClaim: Type.Optional(
      claimName(
        'Claim with the name that is shown for a user without other names; by default `name`, else `preferred_username`.',
      ),
    ),
    scopeClaims: Type.Optional(
      Type.Array(claimName('A claim.'), {
        minItems: 1,
        maxItems: 10,
        description:
          'Claims that may contain `requiredScope`; by default `scope`, else `scp`. Application permissions of Entra are in `roles`.',
      }),
    ),
    rolesClaims: Type.Optional(
      Type.Array(claimName('A claim.'), {
        minItems: 1,
        maxItems: 10,
        description:
          'Claims with the roles and groups of a user: names or dotted paths, such as `realm_access.roles` of Keycloak, or `roles` and `groups` of Entra.',
      }),
    ),
    administratorRoles: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 255 }), {
        maxItems: 100,
        description:
          'Roles or groups whose members are Organization Administrators of their own organizations. Needs `rolesClaims`.',
      }),
    ),
    tierRoles: Type.Optional(
      Type.Record(Type.String({ minLength: 1, maxLength: 255 }), Type.String({ minLength: 1 }), {
        description:
          'Tiers by role or group, `{ "role": "Premium" }`: the rate limits of requests with its tokens, unless the users file gives the application a tier. The first role that a token has counts. Needs `rolesClaims`.',
      }),
    ),
    emailsVerified: Type.Optional(
      Type.Boolean({
        default: false,
        description: 'Treat every `email` claim as verified. By default only when `email_verified` is true.',
      }),
    ),
    tokenType: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 255,
        description:
          'Required `typ` header of its access tokens, such as at+jwt. By default at+jwt, JWT or none is accepted.',
      }),
    ),
    console: Type.Optional(
      Type.Object(
        {
          clientId: Type.String({
            minLength: 1,
            maxLength: 255,
            description:
              'Public client of the console at the issuer, with the redirect addresses `/console/signin-callback` and `/console/` of this server.',
          }),
          scope: Type.Optional(
            Type.String({
              minLength: 1,
              maxLength: 1000,
              description: 'Scopes to ask for; by default `openid profile email offline_access` and `requiredScope`.',
            }),
          ),
          name: Type.Optional(
            Type.String({
              minLength: 1,
              maxLength: 100,
              description: 'Shown to users; the host of the issuer by default.',
            }),
          ),
        },
        { additionalProperties: false, description: 'Lets users sign in to the console at this issuer.' },
      ),
    ),
    claimsEarlierUsers: Type.Optional(
      Type.Boolean({
        description:
          'Users stored by earlier versions, which identified them by subject alone, belong to this issuer. By default true for the only entry of `issuers`.',
      }),
    ),
  },
  { additionalProperties: false },
);

const Client = Type.Object(
  {
    id: Type.String({
      pattern: '^[\\w.~-]{1,100}$',
      description: 'Client id; also the application id whose tier applies.',
    }),
    name: Type.Optional(
      Type.String({ minLength: 1, maxLength: 100, description: 'Shown to users; the id by default.' }),
    ),
    secret: Type.Optional(
      Type.String({
        minLength: 20,
        maxLength: 255,
        description: 'Secret of a confidential client. Without a secret the client is public and must use PKCE.',
      }),
    ),
    secretHash: Type.Optional(
      Type.String({
        pattern: '^[0-9a-f]{64}$',
        description: 'SHA-256 of the secret in hexadecimal, instead of `secret`.',
      }),
    ),
    redirectUris: Type.Array(Type.String({ minLength: 1, maxLength: 1000 }), {
      default: [],
      maxItems: 50,
      description:
        'Addresses to which users return after sign-in. For a client that has only loopback addresses or custom schemes, any port of a loopback address is accepted.',
    }),
    postLogoutRedirectUris: Type.Array(Type.String({ minLength: 1, maxLength: 1000 }), {
      default: [],
      maxItems: 50,
      description: 'Addresses to which users return after signing out.',
    }),
    grantTypes: Type.Optional(
      Type.Array(Type.Enum(['authorization_code', 'refresh_token', 'client_credentials', 'device_code']), {
        minItems: 1,
        description:
          'By default authorization_code and refresh_token with redirect addresses, client_credentials without.',
      }),
    ),
    consent: Type.Boolean({
      default: true,
      description: 'Ask each user once before the first sign-in; false for applications of the operator.',
    }),
    organizationId: Type.Optional(
      Type.String({
        minLength: 1,
        maxLength: 255,
        description: 'client_credentials: organization of the client, unless the users file has an entry with its id.',
      }),
    ),
  },
  { additionalProperties: false },
);

const storeSettings = {
  type: Type.Enum(['files', 's3', 'azure'], {
    default: 'files',
    description: 'Where files are stored: in the data folder, an S3 bucket or an Azure container.',
  }),
  name: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 200,
      description:
        'Recorded with each file. By default derived from type and location; set it when two stores would otherwise share a name.',
    }),
  ),
  folder: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'files: path relative to the data folder; `blobs` by default. Required for additional data centers.',
    }),
  ),
  bucket: Type.Optional(
    Type.String({ minLength: 1, description: 's3: bucket name. The bucket is created if it does not exist.' }),
  ),
  region: Type.String({ minLength: 1, default: 'us-east-1', description: 's3: AWS region.' }),
  endpoint: Type.Optional(
    Type.String({ pattern: '^https?://', description: 's3: URL of an S3-compatible server other than AWS.' }),
  ),
  accessKeyId: Type.Optional(
    Type.String({ minLength: 1, description: 's3: by default found by the standard AWS credential chain.' }),
  ),
  secretAccessKey: Type.Optional(
    Type.String({ minLength: 1, description: 's3: the secret that belongs to `accessKeyId`.' }),
  ),
  container: Type.Optional(
    Type.String({
      minLength: 3,
      maxLength: 63,
      description: 'azure: container name. The container is created if it does not exist.',
    }),
  ),
  connectionString: Type.Optional(
    Type.String({
      minLength: 1,
      description: 'azure: connection string with the account key. By default $AZURE_STORAGE_CONNECTION_STRING.',
    }),
  ),
  direct: Type.Optional(
    Type.Boolean({
      description:
        's3, azure: clients transfer files directly to and from the storage service, not through this server. By default true for azure, and for s3 without `endpoint`.',
    }),
  ),
  directForPages: Type.Boolean({
    default: false,
    description:
      's3, azure: browsers also use direct links; the bucket or account needs a CORS rule for them. Otherwise this server serves them.',
  }),
  prefix: Type.String({
    default: '',
    maxLength: 200,
    description: 'Prefix of every object name in the bucket or container.',
  }),
};

/** Minimum length in characters: 24 random bytes in base64. */
export const shortestServiceKey = 32;

/** Schema of the configuration file; `docs/configuration.md` is generated from it. */
export const ConfigSchema = Type.Object(
  {
    dataDir: Type.String({
      minLength: 1,
      default: 'offshoot-data',
      description: 'Folder for the database, files, keys and users.',
    }),
    host: Type.String({
      minLength: 1,
      default: 'localhost',
      description:
        'Address to listen on. `localhost` accepts connections from this machine only; 0.0.0.0 and :: listen on all interfaces.',
    }),
    port: Type.Integer({
      minimum: 0,
      maximum: 65535,
      default: 4700,
      description: 'Port of the API; 0 picks a free port.',
    }),
    publicUrl: Type.Optional(
      Type.String({
        pattern: '^https?://[^\\s?#]+[^\\s?#/]$',
        description: 'Base URL of the links in responses; by default taken from the request.',
      }),
    ),
    trustProxy: Type.Union(
      [Type.Boolean(), Type.Array(Type.String({ minLength: 1, maxLength: 64 }), { minItems: 1, maxItems: 100 })],
      {
        default: false,
        description:
          'Trust X-Forwarded-* headers: `true` from any peer (behind a single proxy), or a list of the addresses and networks of every proxy in the chain.',
      },
    ),
    databaseUrl: Type.Optional(
      Type.String({
        pattern: '^postgres(ql)?://',
        description: 'PostgreSQL connection URL; by default SQLite in the data folder.',
      }),
    ),
    databasePool: Type.Integer({
      minimum: 2,
      maximum: 200,
      default: 16,
      description:
        'Size of the PostgreSQL connection pool; one more connection is used for health checks. One organization may use at most three quarters of the pool at a time, one user or one iModel at most half.',
    }),
    databaseWaitSeconds: Type.Number({
      minimum: 0.1,
      maximum: 60,
      default: 10,
      description: 'How long a request waits for a PostgreSQL connection before it is answered 503.',
    }),
    databaseLockSeconds: Type.Number({
      minimum: 0.1,
      maximum: 60,
      default: 5,
      description: 'How long a PostgreSQL statement waits for a locked row before its request is answered 503.',
    }),
    databasePrepares: Type.Boolean({
      default: true,
      description:
        'Use prepared statements on PostgreSQL. Set to false behind a transaction-mode pooler that does not support them (PgBouncer before 1.21).',
    }),
    store: Type.Object(storeSettings, {
      additionalProperties: false,
      default: {},
      description: 'Where the files of iModels are stored.',
    }),
    dataCenter: Type.String({
      minLength: 1,
      maxLength: 100,
      default: 'East US',
      description: 'Default data center of new iTwins; its files are in `store`.',
    }),
    dataCenters: Type.Record(
      Type.String({ minLength: 1, maxLength: 100 }),
      Type.Object(storeSettings, { additionalProperties: false }),
      { default: {}, description: 'Additional data centers, each with its store.' },
    ),
    storeTimeoutSeconds: Type.Number({
      minimum: 0.1,
      maximum: 3600,
      default: 60,
      description:
        'Idle timeout of store calls, regardless of file size: a call that transfers no byte and gets no response for this long fails and is retried.',
    }),
    logLevel: Type.Enum(['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'], {
      default: 'info',
      description: 'Lowest level that is logged; `debug` logs every request.',
    }),
    logPretty: Type.Boolean({
      default: false,
      description: 'Print readable lines instead of JSON, as `offshoot start` does on a terminal.',
    }),
    tracesUrl: Type.Optional(
      Type.String({
        pattern: '^https?://',
        description:
          'OpenTelemetry endpoint that receives spans (OTLP over HTTP), such as http://localhost:4318/v1/traces.',
      }),
    ),
    tracesRatio: Type.Number({
      minimum: 0,
      maximum: 1,
      default: 1,
      description:
        'Fraction of requests that are traced; a request with a trace context follows the decision of its sender.',
    }),
    metrics: Type.Boolean({
      default: false,
      description: 'Serve Prometheus metrics at /metrics, without authentication.',
    }),
    metricsPort: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: 65535,
        description: 'Serve /metrics on this port instead of the API port; 0 picks a free port.',
      }),
    ),
    corsOrigins: Type.Array(Type.String({ minLength: 1 }), {
      default: ['*'],
      description: 'Origins of web pages that may call the API; `*` allows all.',
    }),
    embeddedIssuer: Type.Boolean({
      default: true,
      description: 'Accept tokens minted by `offshoot token`, and serve sign-in below /auth (OpenID Connect).',
    }),
    signIn: Type.Object(
      {
        allowHttp: Type.Boolean({
          default: false,
          description:
            'Allow sign-in at a public address without https. Passwords and tokens are then readable on the network.',
        }),
        sessionDays: Type.Number({
          minimum: 0.01,
          maximum: 365,
          default: 14,
          description: 'How long a browser stays signed in, and how long an unused refresh token is valid.',
        }),
        tokenMinutes: Type.Number({
          minimum: 1,
          maximum: 1440,
          default: 60,
          description: 'Lifetime of access tokens.',
        }),
        failures: Type.Object(Window.properties, {
          additionalProperties: false,
          default: { requests: 10, seconds: 900 },
          description:
            'Wrong passwords for one user, after which sign-in as this user is refused for the rest of the window; three times as many from one address.',
        }),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'Sign-in of the embedded issuer: pages, sessions and tokens.',
      },
    ),
    clients: Type.Array(Client, {
      default: [],
      maxItems: 1000,
      description: 'Applications that use sign-in of the embedded issuer, besides those that the server knows itself.',
    }),
    issuers: Type.Array(Issuer, {
      default: [],
      description: 'Trusted OpenID Connect issuers. Users are identified by issuer and subject.',
    }),
    requiredScope: Type.Union([Type.String({ minLength: 1 }), Type.Null()], {
      default: 'itwin-platform',
      description: 'Scope that every token must have; `null` requires none.',
    }),
    defaultTier: Type.String({
      default: 'Enterprise',
      description: 'Tier of applications that the users file does not list.',
    }),
    tiers: Type.Record(Type.String({ minLength: 1 }), Tier, {
      description:
        'Rate limits of applications, by name of the tier. Setting it replaces all tiers, so `defaultTier` must be among them.',
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
            'Fraction of each application window that is reserved for each user, even after other users have exhausted the window.',
        }),
        refused: Type.Object(Window.properties, {
          additionalProperties: false,
          default: { requests: 600, seconds: 60 },
          description:
            'Requests with a rejected token from one address; beyond that, only tokens that were verified before are accepted from it.',
        }),
        links: Type.Object(Window.properties, {
          additionalProperties: false,
          default: { requests: 12_000, seconds: 60 },
          description: 'Requests from one address to signed links that this server serves.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Limits that apply besides the tiers.' },
    ),
    signedLinkSeconds: Type.Integer({
      minimum: 10,
      maximum: 86_400,
      default: 3600,
      description: 'Lifetime of upload and download links.',
    }),
    downloads: Type.Object(
      {
        simultaneous: Type.Integer({
          minimum: 1,
          maximum: 1024,
          default: 256,
          description:
            'Concurrent downloads served by this server. At the limit, the slowest download below 64 KiB/s is ended in favor of the new one; if there is none, the new one is answered 503.',
        }),
        perLink: Type.Integer({
          minimum: 1,
          maximum: 1024,
          default: 64,
          description: 'Concurrent downloads through one link, or with one container token.',
        }),
        stallSeconds: Type.Number({
          minimum: 0.1,
          maximum: 3600,
          default: 60,
          description: 'A download whose client reads less than 4 KiB/s for this long is ended.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Limits on downloads that this server serves.' },
    ),
    verifyChangesets: Type.Enum(['all', 'recognized', 'off'], {
      default: 'recognized',
      description:
        'Reject a push when its id does not match the content of its file, or when the file contains statements that no iModel schema needs. `recognized`: check files with the header of iTwin.js changesets and store others unchecked. `all`: reject files without that header.',
    }),
    pushLeaseSeconds: Type.Integer({
      minimum: 1,
      default: 600,
      description: 'How long an unfinished push blocks other pushes.',
    }),
    shutdownSeconds: Type.Number({
      minimum: 0,
      default: 10,
      description: 'How long a shutdown waits for requests in progress.',
    }),
    briefcases: Type.Object(
      {
        perUser: Type.Integer({
          minimum: 1,
          default: 100,
          description: 'Maximum number of briefcases of one user on one iModel.',
        }),
        perMinute: Type.Integer({
          minimum: 1,
          default: 5,
          description:
            'Maximum number of briefcases that one user may acquire on one iModel in a minute, not counting released ones.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Limits on the briefcases of one user.' },
    ),
    checkpoints: Type.Object(
      {
        generate: Type.Enum(['auto', 'here', 'elsewhere', 'off'], {
          default: 'auto',
          description:
            '`auto`: generate on this server if iTwin.js is installed. `elsewhere`: schedule here; another server on the same database generates them.',
        }),
        everyChangesets: Type.Integer({
          minimum: 0,
          default: 100,
          description:
            'Generate a checkpoint at the newest changeset when the last one is this many changesets behind; 0 generates them for named versions only.',
        }),
        delaySeconds: Type.Number({
          minimum: 0,
          default: 1,
          description: 'Delay before a checkpoint is generated, so that a burst of pushes and versions results in one.',
        }),
        attempts: Type.Integer({
          minimum: 1,
          maximum: 100,
          default: 4,
          description: 'Maximum attempts when the iTwin.js process ends unexpectedly; faulty files are not retried.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 2,
          description: 'Delay before the second attempt; each further delay is twice as long, a minute at most.',
        }),
        slots: Type.Integer({
          minimum: 1,
          maximum: 32,
          default: 3,
          description:
            'Files that iTwin.js processes concurrently, each in a separate process that may use `memoryMiB`; an idle process is ended after a minute. From three slots on, no user can block the other users of its organization, and no organization can block others.',
        }),
        memoryMiB: Type.Integer({
          minimum: 128,
          default: 4096,
          description: 'Memory limit of an iTwin.js process, which is ended when it exceeds it.',
        }),
        silenceSeconds: Type.Integer({
          minimum: 1,
          default: 600,
          description: 'Timeout for applying one changeset.',
        }),
        workSeconds: Type.Integer({
          minimum: 1,
          default: 3600,
          description: 'Timeout for one task of the iTwin.js process: one file and at most 500 changesets.',
        }),
        isolation: Type.Enum([...isolationLevels], {
          default: 'process',
          description:
            'Minimum isolation of the iTwin.js process; no checkpoint is generated below it. The strongest available level is always used: `namespaces` (bubblewrap), `user` (when the server runs as root), `process`.',
        }),
        service: Type.Optional(
          Type.Object(
            {
              url: Type.String({
                pattern: '^https?://[^/]',
                maxLength: 2000,
                description:
                  'URL of the iTwin.js service (`offshoot itwinjs`), which runs iTwin.js instead of this server.',
              }),
              key: Type.Optional(
                Type.String({
                  minLength: shortestServiceKey,
                  maxLength: 1000,
                  description:
                    'Secret shared with the service; may also be set in the environment as `OFFSHOOT_ITWINJS_KEY`.',
                }),
              ),
            },
            {
              additionalProperties: false,
              description: 'The iTwin.js service that runs iTwin.js instead of this server. By default none.',
            },
          ),
        ),
        tokenSeconds: Type.Integer({
          minimum: minContainerSeconds,
          maximum: 604_800,
          default: minContainerSeconds,
          description:
            'Maximum lifetime of checkpoint access tokens. They expire with the access token of the request, but not before two hours: iTwin.js renews them after one hour, or one hour before they expire.',
        }),
      },
      {
        additionalProperties: false,
        default: {},
        description:
          'Where and when checkpoints are generated, and the limits of the iTwin.js processes that generate them.',
      },
    ),
    graphics: Type.Object(
      {
        enabled: Type.Boolean({
          default: true,
          description:
            'Draw each checkpoint for viewers, and a thumbnail. Requires iTwin.js on the server that makes checkpoints; with `checkpoints.service`, nothing is drawn.',
        }),
        maxTriangles: Type.Integer({
          minimum: 1000,
          maximum: 50_000_000,
          default: 5_000_000,
          description: 'Triangles and line segments of one drawing; the smallest elements are left out beyond it.',
        }),
        maxElements: Type.Integer({
          minimum: 1000,
          maximum: 5_000_000,
          default: 500_000,
          description: 'Elements of one drawing; the smallest ones are left out beyond it.',
        }),
        slots: Type.Integer({
          minimum: 1,
          maximum: 32,
          default: 1,
          description:
            'Drawings at the same time, each in a separate process with the memory and isolation of `checkpoints`.',
        }),
        attempts: Type.Integer({
          minimum: 1,
          maximum: 100,
          default: 2,
          description: 'Maximum attempts when the process ends unexpectedly.',
        }),
        workSeconds: Type.Integer({ minimum: 1, default: 900, description: 'Timeout for one drawing.' }),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'Graphics and thumbnails that are drawn from checkpoints.',
      },
    ),
    viewer: Type.Object(
      {
        enabled: Type.Boolean({
          default: false,
          description:
            'Answer viewers that are built on iTwin.js, at `/viewer/rpc`. Requires iTwin.js on this server; its processes start with the first request of a viewer.',
        }),
        processes: Type.Integer({
          minimum: 1,
          maximum: 64,
          default: 1,
          description: 'Processes that answer viewers. All iModels of one family use the same one.',
        }),
        memoryMiB: Type.Integer({
          minimum: 128,
          default: 2048,
          description: 'Maximum memory of one process; beyond it the process is started again. Measured on Linux only.',
        }),
        requestSeconds: Type.Integer({
          minimum: 1,
          maximum: 3600,
          default: 120,
          description: 'Timeout of one request.',
        }),
        requestsPerUser: Type.Integer({
          minimum: 1,
          maximum: 10_000,
          default: 64,
          description: 'Requests of one user at the same time; further ones are told to try again.',
        }),
        answersMiB: Type.Integer({
          minimum: 32,
          maximum: 1_000_000,
          default: 512,
          description:
            'Memory of this server for answers to viewers, until they are sent. One user has a quarter of it, or one answer; further requests wait for 10 s, then are told to try again.',
        }),
        idleSeconds: Type.Integer({
          minimum: 1,
          maximum: 86_400,
          default: 600,
          description:
            'Checkpoints that nobody reads for this long are closed. A process ends after twice the time without requests.',
        }),
        maxCheckpoints: Type.Integer({
          minimum: 1,
          maximum: 10_000,
          default: 50,
          description:
            'Open checkpoints of one process; the one that was read least recently is closed. A request for another one waits while all are being read.',
        }),
        cacheMiB: Type.Integer({
          minimum: 64,
          maximum: 1_000_000,
          default: 2048,
          description: 'Disk space of one process for blocks of checkpoints.',
        }),
        tilesMiB: Type.Integer({
          minimum: 0,
          maximum: 1_000_000,
          default: 4096,
          description: 'Disk space of this server for tiles, which iModels with the same content share; 0 keeps none.',
        }),
        sharedTilesMiB: Type.Integer({
          minimum: 0,
          maximum: 100_000_000,
          default: 20_480,
          description:
            'Tiles in each S3 or Azure store, which all servers share; the checkpoints that were viewed least recently lose theirs first. 0 removes all. The same on every server.',
        }),
        service: Type.Optional(
          Type.Object(
            {
              url: Type.String({
                pattern: '^https?://[^/]',
                maxLength: 2000,
                description:
                  'URL of the view back end (`offshoot view-backend`), which runs iTwin.js instead of this server.',
              }),
              key: Type.Optional(
                Type.String({
                  minLength: shortestServiceKey,
                  maxLength: 1000,
                  description:
                    'Secret shared with the view back end; may also be set in the environment as `OFFSHOOT_VIEWER_KEY`.',
                }),
              ),
            },
            {
              additionalProperties: false,
              description:
                'The view back end that answers viewers in place of processes of this server. By default none.',
            },
          ),
        ),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'The back end for viewers that are built on iTwin.js.',
      },
    ),
    jobs: Type.Object(
      {
        here: Type.Boolean({
          default: true,
          description:
            'Run jobs on this server: checkpoints, transfers to other data centers, webhooks. If false, they wait for other processes, such as `offshoot work`.',
        }),
        progressSeconds: Type.Number({
          minimum: 1,
          default: 300,
          description: 'How long a job may go without progress before it is abandoned and retried.',
        }),
        leaseSeconds: Type.Number({
          minimum: 1,
          default: 30,
          description:
            'Lease of a claimed job: if it is not renewed for this long, another server takes the job over. Renewed every third of this time.',
        }),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'Background work: checkpoints, transfers to other data centers, webhooks.',
      },
    ),
    transfers: Type.Object(
      {
        slots: Type.Integer({
          minimum: 0,
          maximum: 100,
          default: 4,
          description: 'Concurrent transfers to other data centers on this server; 0 leaves them to other servers.',
        }),
        parallelFiles: Type.Integer({
          minimum: 1,
          maximum: 256,
          default: 16,
          description: 'Files that each transfer copies concurrently.',
        }),
        bytesPerSecond: Type.Integer({
          minimum: 0,
          default: 0,
          description: 'Bandwidth limit over all transfers of this server; 0 means no limit.',
        }),
        attemptsWithoutProgress: Type.Integer({
          minimum: 1,
          default: 10,
          description: 'Consecutive attempts without progress after which a transfer fails.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 1,
          description: 'Delay before the second attempt; each further delay is twice as long, a minute at most.',
        }),
        share: Type.Enum(['organization', 'store'], {
          default: 'organization',
          description:
            'Whose files a transfer may reuse when the target store already has them: those of the same organization, or all. `store` is faster, but its timing reveals that another organization has the same file.',
        }),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'Copies of derived iModels into the store of another data center.',
      },
    ),
    webhooks: Type.Object(
      {
        here: Type.Boolean({
          default: true,
          description:
            'Deliver webhook messages from this server if it runs jobs. If false, other servers deliver them, such as those with outbound network access.',
        }),
        allowPrivateAddresses: Type.Boolean({
          default: false,
          description: 'Allow deliveries to loopback and private network addresses, and over unencrypted HTTP.',
        }),
        attempts: Type.Integer({
          minimum: 1,
          maximum: 100,
          default: 10,
          description: 'Maximum attempts before a message is listed as failed.',
        }),
        firstRetrySeconds: Type.Number({
          minimum: 0,
          default: 10,
          description: 'Delay before the second attempt; each further delay is twice as long, an hour at most.',
        }),
        pauseAfter: Type.Integer({
          minimum: 1,
          default: 5,
          description:
            'Consecutive failed deliveries after which a webhook is paused; after the pause, one message probes it.',
        }),
        pauseSeconds: Type.Number({
          minimum: 0.1,
          maximum: 300,
          default: 30,
          description: 'First pause; each further pause is twice as long, 5 minutes at most.',
        }),
        perUser: Type.Integer({
          minimum: 0,
          maximum: 100_000,
          default: 100,
          description: 'Maximum number of webhooks that one user may create, over all iTwins.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Delivery of events to webhooks.' },
    ),
    quotas: Type.Object(
      {
        baselineGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 256,
          description: 'Maximum size of a baseline file. 0 means no limit, here and below.',
        }),
        changesetGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 32,
          description: 'Maximum size of a changeset file.',
        }),
        iTwinGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 16_384,
          description:
            'Storage of one iTwin: pending and stored files, and deleted files until the collector removes them. Files that clones share count once, for the iTwin that uploaded them.',
        }),
        organizationGiB: Type.Number({
          minimum: 0,
          maximum: 8_000_000,
          default: 131_072,
          description: 'The same for one organization, or for one user when an iTwin has no organization.',
        }),
        iTwinIModels: Type.Integer({
          minimum: 0,
          default: 100_000,
          description: 'Maximum number of iModels of one iTwin, including failed creations.',
        }),
        organizationIModels: Type.Integer({
          minimum: 0,
          default: 1_000_000,
          description: 'The same for one organization, or for one user when an iTwin has no organization.',
        }),
        webhooks: Type.Integer({ minimum: 0, default: 100, description: 'Maximum number of webhooks of one iTwin.' }),
        repositories: Type.Integer({
          minimum: 0,
          default: 500,
          description: 'Maximum number of repositories of one iTwin, which are listed without paging.',
        }),
        shares: Type.Integer({
          minimum: 0,
          default: 1000,
          description: 'Maximum number of unexpired shares of one iModel.',
        }),
        briefcases: Type.Integer({
          minimum: 0,
          default: 10_000,
          description: 'Maximum number of unreleased briefcases of one iModel, over all users.',
        }),
        namedVersions: Type.Integer({
          minimum: 0,
          default: 10_000,
          description: 'Maximum number of named versions of one iModel.',
        }),
      },
      {
        additionalProperties: false,
        default: {},
        description: 'Limits on what an iTwin, an organization or an iModel may store; 0 means no limit.',
      },
    ),
    requests: Type.Object(
      {
        headersSeconds: Type.Number({
          minimum: 1,
          maximum: 600,
          default: 30,
          description: 'Timeout for receiving the headers of a request; then the connection is closed.',
        }),
        bodySeconds: Type.Number({
          minimum: 1,
          maximum: 600,
          default: 60,
          description:
            'Timeout for receiving the body of an API request; then it is answered 408. Also limits how long the remainder of a rejected body is read before the connection is closed.',
        }),
        uploadStallSeconds: Type.Number({
          minimum: 1,
          maximum: 3600,
          default: 120,
          description: 'A file upload that sends less than 64 KiB in this time is answered 408.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Timeouts for receiving requests.' },
    ),
    diskSpace: Type.Object(
      {
        floorMiB: Type.Number({
          minimum: 0,
          default: 1024,
          description:
            'Free space in the data folder and in stores of type files below which the server rejects writes; reading and deleting still work. 0 disables the check.',
        }),
        floorPercent: Type.Number({
          minimum: 0,
          maximum: 50,
          default: 5,
          description: 'The same as a percentage of the file system. The smaller of the two applies.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'Free disk space below which nothing new is stored.' },
    ),
    audit: Type.Object(
      {
        keepDays: Type.Number({
          minimum: 0,
          default: 400,
          description: 'Retention of audit log entries; 0 keeps them forever.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'The audit log.' },
    ),
    seedFile: Type.Optional(
      Type.String({
        minLength: 1,
        description:
          'iModel file used as the baseline of new empty iModels instead of the bundled one; validated at startup.',
      }),
    ),
    changesetGroupHours: Type.Number({
      minimum: 0,
      default: 168,
      description: 'A changeset group without a new changeset for this long is closed.',
    }),
    collector: Type.Object(
      {
        intervalSeconds: Type.Number({
          minimum: 0,
          default: 60,
          description: 'Interval between runs; 0 disables the collector.',
        }),
        graceSeconds: Type.Number({
          minimum: 0,
          default: 7200,
          description:
            'How long the files of a deletion are kept before they are removed; longer than the lifetime of any link.',
        }),
      },
      { additionalProperties: false, default: {}, description: 'The collector, which removes what nothing refers to.' },
    ),
  },
  { additionalProperties: false },
);

/** Environment variable with the key of the iTwin.js service. */
export const serviceKeyName = 'OFFSHOOT_ITWINJS_KEY';
/** Environment variable with the key of the view back end. */
export const viewerKeyName = 'OFFSHOOT_VIEWER_KEY';
/** Environment variable with the connection string of stores of type azure. */
const connectionStringName = 'AZURE_STORAGE_CONNECTION_STRING';

/** Environment variables of nested settings, which apply only if the setting is absent from the file. */
export const nestedEnvironment: Readonly<Record<string, string>> = {
  [connectionStringName]: 'store.connectionString',
  [serviceKeyName]: 'checkpoints.service.key',
  [viewerKeyName]: 'viewer.service.key',
};

/** The complete configuration: defaults, file, environment and command line merged. */
export type Config = Static<typeof ConfigSchema>;
/** Sections whose settings a config file, a test or an embedder may each omit. */
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
  | 'graphics'
  | 'viewer'
  | 'transfers'
  | 'webhooks'
  | 'signIn'
  | 'store';
export type ConfigInput = Partial<Omit<Config, Nested | 'dataCenters' | 'clients'>> & {
  [K in Nested]?: Partial<Config[K]>;
} & {
  clients?: (Pick<ClientConfig, 'id'> & Partial<ClientConfig>)[];
  dataCenters?: Record<string, Partial<Config['store']>>;
};
export type IssuerConfig = Static<typeof Issuer>;
export type ClientConfig = Static<typeof Client>;

/** Rule of the API: clone and fork have separate windows of the same size, create has a wider one; all are far below the general window. */
function tierOf(general: Static<typeof Window>[], clones: number, creations: number): Static<typeof Tier> {
  const perMinute = (requests: number) => ({ requests, seconds: 60 });
  return {
    general,
    operations: {
      // Clone rule: 5 requests a minute in the lowest tier, 20 in the others.
      'clone-imodel': perMinute(clones),
      'fork-imodel': perMinute(clones),
      'create-imodel': perMinute(creations),
      // Rule of this server: a checkpoint is made by a job, as an iModel may be.
      'make-changeset-checkpoint': perMinute(creations),
      'make-changeset-graphics': perMinute(creations),
    },
  };
}

/** Lists every fault of a configuration. */
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

/** Environment variables of settings. */
export const environment: Record<string, { key: keyof Config; kind: 'text' | 'number' | 'boolean' | 'proxies' }> = {
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
 * Merges the configuration, later sources taking precedence: defaults, the file (`offshoot.json`, or the one named by
 * `OFFSHOOT_CONFIG` or the command line), the environment, `overrides`.
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

/** Parses `true`, `false`, or a comma-separated list of addresses and networks. */
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
    if (named !== undefined || !missing)
      faults.push(`cannot read ${path.resolve(file)}: ${fileReason(error) ?? (error as Error).message}`);
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

const checkSettings = checkOf<Config>(ConfigSchema, { allErrors: true, useDefaults: true });

function checkConfig(value: Record<string, unknown>, env: NodeJS.ProcessEnv, faults: string[]): Config {
  const config = structuredClone(value) as unknown as Config;
  acceptEarlierNames(config, faults);
  const check = checkSettings();
  if (!check(config)) faults.push(...withoutAlternatives(check.errors ?? []).map(describeFault));
  else {
    // AWS clients read their keys from the environment; this does the same for Azure, so that no file has to hold secrets.
    const connectionString = env[connectionStringName];
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
    if (config.viewer.service !== undefined) {
      config.viewer.service.key ??= env[viewerKeyName] ?? '';
      if (config.viewer.service.key.length < shortestServiceKey)
        faults.push(
          `${viewerKeyName} is missing or shorter than ${shortestServiceKey} characters: viewer.service needs it`,
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
      faults.push(`metricsPort (${config.metricsPort}) must differ from port`);
    if (config.metricsPort !== undefined && !config.metrics) faults.push('metricsPort is set, but metrics is false');
    faults.push(...issuerFaults(config));
    faults.push(...clientFaults(config));
    if (!config.embeddedIssuer && config.issuers.length === 0)
      faults.push('no issuer of tokens: configure issuers or enable embeddedIssuer');
  }
  if (faults.length > 0) throw new ConfigError(faults);
  return { ...config, dataDir: path.resolve(config.dataDir) };
}

function issuerFaults({ issuers, tiers }: Config): string[] {
  const faults: string[] = [];
  const claiming = issuers.filter(({ claimsEarlierUsers }) => claimsEarlierUsers === true);
  if (claiming.length > 1)
    faults.push(`issuers: more than one has claimsEarlierUsers: ${claiming.map(({ issuer }) => issuer).join(', ')}`);
  for (const [n, { rolesClaims, administratorRoles, tierRoles }] of issuers.entries()) {
    if (rolesClaims === undefined && (administratorRoles ?? tierRoles) !== undefined)
      faults.push(`issuers.${n}.rolesClaims is missing: administratorRoles and tierRoles are looked up there`);
    for (const [role, tier] of Object.entries(tierRoles ?? {}))
      if (!Object.hasOwn(tiers, tier))
        faults.push(`issuers.${n}.tierRoles gives the role '${role}' the tier '${tier}', which is not among the tiers`);
  }
  return faults;
}

/** Checks what a schema cannot express about clients. */
function clientFaults({ clients, embeddedIssuer }: Config): string[] {
  const faults: string[] = [];
  const ids = new Set<string>();
  if (clients.length > 0 && !embeddedIssuer) faults.push('clients need embeddedIssuer, which is false');
  for (const { id, secret, secretHash, redirectUris, grantTypes } of clients) {
    if (ids.has(id)) faults.push(`clients: '${id}' is listed twice`);
    ids.add(id);
    const isPublic = secret === undefined && secretHash === undefined;
    if (secret !== undefined && secretHash !== undefined)
      faults.push(`clients.${id}: use one of secret and secretHash`);
    const grants = grantTypes ?? [redirectUris.length > 0 ? 'authorization_code' : 'client_credentials'];
    if (isPublic && grants.includes('client_credentials'))
      faults.push(`clients.${id}: a client without redirectUris, or with client_credentials, needs a secret`);
    if (grants.includes('authorization_code') && redirectUris.length === 0)
      faults.push(`clients.${id}: authorization_code needs redirectUris`);
  }
  return faults;
}

/** Checks that each store has the settings its type requires, and that no two stores share an id. */
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
      faults.push(`${place}: another store has the id '${id}' too; set 'name' for this one`);
    known.set(id, text);
  }
  return faults;
}

/**
 * A setting of several kinds has a fault for each kind that its value is not. If it is of one of them, what is wrong inside is
 * kept; if it is of none, one fault that names them all.
 */
function withoutAlternatives(errors: readonly ErrorObject[]): ErrorObject[] {
  const kept = new Set(errors);
  for (const union of errors.filter(({ keyword }) => keyword === 'anyOf')) {
    const inside = errors.filter(
      ({ schemaPath, instancePath }) =>
        schemaPath.startsWith(`${union.schemaPath}/`) && `${instancePath}/`.startsWith(`${union.instancePath}/`),
    );
    const types = inside.filter((each) => each.keyword === 'type' && each.instancePath === union.instancePath);
    for (const each of types) kept.delete(each);
    if (inside.length > types.length) kept.delete(union);
    else
      union.message = `must be ${types.map(({ params }) => String((params as { type: unknown }).type)).join(' or ')}`;
  }
  return [...kept];
}

function describeFault(error: ErrorObject): string {
  const place = error.instancePath.slice(1).replaceAll('/', '.') || 'the configuration';
  if (error.keyword === 'additionalProperties')
    return `${place}: there is no setting '${(error.params as { additionalProperty: string }).additionalProperty}'`;
  if (error.keyword === 'enum')
    return `${place} must be one of ${(error.params as { allowedValues: unknown[] }).allowedValues.map(String).join(', ')}`;
  return `${place} ${error.message ?? 'is not valid'}`;
}

/** Id of a store, which is recorded with each of its blobs. */
export function storeId({ type, name, folder, bucket, container }: Config['store']): string {
  if (name !== undefined) return name;
  const place = { files: folder, s3: bucket, azure: container }[type];
  return place === undefined ? type : `${type}:${place}`;
}
