import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { administratorClaims, waysToAdminister } from '../access/administrators.ts';
import { Directory, type DirectoryData } from '../access/directory.ts';
import { IssuerUnavailableError, issuerKeys } from '../access/issuerKeys.ts';
import { findIsolation, IsolationError } from '../checkpoints/itwinjs/isolation.ts';
import { isolationLevels } from '../domain.ts';
import { iTwinJsVersion } from '../checkpoints/itwinjs/itwinjsVersion.ts';
import { isITwinJsInstalled } from '../checkpoints/itwinjs/workerProcess.ts';
import type { Config } from '../config.ts';
import { databaseNow, isPostgres } from '../db/clock.ts';
import { databaseFile, EmptyDatabaseError, openDatabase, type Database } from '../db/database.ts';
import { RemoteWorker } from '../checkpoints/itwinjs/service/remoteWorker.ts';
import { ApiError } from '../errors.ts';
import { DiskSpace } from '../storage/diskSpace.ts';
import { openStores, reachStores } from '../storage/stores.ts';
import { countText } from '../terminal.ts';
import { isViewerInstalled } from '../viewer/installed.ts';
import { RemoteBackend } from '../viewer/remoteBackend.ts';

/** The result of one check. `warning`: works, but is not recommended for a server with several users. */
export interface Finding {
  check: string;
  state: 'ok' | 'warning' | 'fault';
  text: string;
  /** How to fix it. */
  remedy?: string;
}

/** Timeout for one check, milliseconds. */
const checkMs = 20_000;
/**
 * Clock difference between server and database that causes a warning, milliseconds. Leases and links are measured in
 * seconds.
 */
const clockMs = 2000;

type Found = Omit<Finding, 'check'> | Omit<Finding, 'check'>[];

const ok = (text: string): Omit<Finding, 'check'> => ({ state: 'ok', text });
const warning = (text: string, remedy: string): Omit<Finding, 'check'> => ({ state: 'warning', text, remedy });
const fault = (text: string, remedy?: string): Omit<Finding, 'check'> => ({
  state: 'fault',
  text,
  ...(remedy !== undefined && { remedy }),
});

/**
 * Checks an installation in the same way as its server would, without changing it. The server may be running.
 * @returns the findings, in the order in which a server needs what was checked
 */
export async function examine(config: Config): Promise<Finding[]> {
  const findings: Finding[] = [];
  const check = async (name: string, run: () => Found | Promise<Found>): Promise<void> => {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<Found>(
      (resolve) => (timer = setTimeout(() => resolve(fault(`No answer within ${checkMs / 1000} s.`)), checkMs)),
    );
    const found = await Promise.race([Promise.resolve().then(run), timeout]).catch((error: unknown) =>
      fault(messageOf(error)),
    );
    clearTimeout(timer);
    for (const each of Array.isArray(found) ? found : [found]) findings.push({ check: name, ...each });
  };
  await check('data folder', () => dataFolder(config));
  await check('disk space', () => diskSpace(config));
  await check('users', () => users(config));
  let database: Database | undefined;
  await check('database', async () => {
    if (config.databaseUrl === undefined && !existsSync(path.join(config.dataDir, databaseFile)))
      return ok('SQLite; created at the first start.');
    try {
      database = await openDatabase(config, 'beside a server');
    } catch (error) {
      if (error instanceof EmptyDatabaseError) return ok('PostgreSQL, empty; the first start creates the tables.');
      throw error;
    }
    return databaseState(database);
  });
  try {
    await check('store', () => stores(config, database));
  } finally {
    await database?.close();
  }
  await check('iTwin.js', () => iTwinJs(config));
  await check('viewers', () => viewers(config));
  await check('address', () => address(config));
  await check('port', () => port(config));
  await check('tokens', () => tokens(config));
  return findings;
}

/** Whether a host name or address is a loopback address. */
function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || host === '[::1]' || host.startsWith('127.');
}

function messageOf(error: unknown): string {
  const { message, cause } = error as Error;
  // Database drivers wrap the actual error in one with an empty message.
  return message !== '' ? message : cause === undefined ? String(error) : messageOf(cause);
}

function dataFolder({ dataDir }: Config): Found {
  const found = statSync(dataDir, { throwIfNoEntry: false });
  if (found === undefined) return ok(`${dataDir}; created at the first start.`);
  if (!found.isDirectory()) return fault(`${dataDir} is not a folder.`, 'Choose a folder with --data.');
  const readable = ['issuer.json', 'users.json', databaseFile].filter(
    (name) => ((statSync(path.join(dataDir, name), { throwIfNoEntry: false })?.mode ?? 0) & 0o077) !== 0,
  );
  if (readable.length > 0)
    return warning(
      `Other users of this machine can read ${readable.join(', ')} in ${dataDir}.`,
      'Start the server once: it restricts the permissions to its own user.',
    );
  return ok(dataDir);
}

async function diskSpace({ dataDir, diskSpace: settings }: Config): Promise<Found> {
  if (!existsSync(dataDir)) return ok('Not checked: the data folder does not exist yet.');
  try {
    await new DiskSpace(dataDir, settings).require(0, true);
    return ok('Above the floor.');
  } catch (error) {
    return fault(messageOf(error), 'Free disk space, or lower diskSpace: below the floor nothing new is stored.');
  }
}

/** With outside issuers only, nobody administers an organization until a role, a claim or an entry says so. */
function administrators(config: Pick<Config, 'issuers'>, listed: DirectoryData['users']): Omit<Finding, 'check'> {
  const ways = waysToAdminister(config, { users: listed });
  return ways.length > 0
    ? ok(`Organization Administrators: ${ways.join('; ')}.`)
    : warning(
        `Nobody is an Organization Administrator, unless a token has the claim ${administratorClaims(config)}.`,
        'Set rolesClaims and administratorRoles of the issuer, or add an administrator to users.json (docs/sign-in.md).',
      );
}

function users({ dataDir, embeddedIssuer, issuers }: Config): Found {
  if (!existsSync(path.join(dataDir, 'users.json')))
    return embeddedIssuer
      ? ok('users.json; created at the first start.')
      : [ok('Managed by the configured issuers.'), administrators({ issuers }, [])];
  try {
    const { users: listed } = Directory.open(dataDir, () => undefined).data;
    const found = ok(`users.json, with ${countText(listed.length, 'user')}.`);
    return embeddedIssuer ? found : [found, administrators({ issuers }, listed)];
  } catch (error) {
    return fault(
      `users.json: ${messageOf(error)}`,
      'Correct the file. A running server keeps the last valid version; a server with an invalid file does not start.',
    );
  }
}

async function stores(config: Config, database: Database | undefined): Promise<Found> {
  try {
    if (database === undefined) return (await reachStores(config)).map((id) => ok(`${id} answers.`));
    const { all } = await openStores(config, database.db);
    return await Promise.all(all.map(async (store) => (await store.check(), ok(`${store.id} answers.`))));
  } catch (error) {
    const text = messageOf(error);
    return fault(
      text,
      /credentials/i.test(text)
        ? 'Set accessKeyId and secretAccessKey of the store, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment of the server.'
        : undefined,
    );
  }
}

async function databaseState({ db }: Database): Promise<Found> {
  if (!isPostgres(db)) return ok('SQLite, with the schema of this version.');
  const before = Date.now();
  const row = await db.selectNoFrom(databaseNow(db).as('now')).executeTakeFirstOrThrow();
  const difference = Math.round(Number(row.now) - (before + Date.now()) / 2);
  if (Math.abs(difference) > clockMs)
    return warning(
      `The clock of PostgreSQL differs from this server's by ${difference} ms.`,
      'Synchronize both clocks with the same time source (NTP).',
    );
  return ok('PostgreSQL, with the schema of this version; its clock matches.');
}

async function iTwinJs({ checkpoints }: Config): Promise<Found> {
  const { generate, service, isolation } = checkpoints;
  if (generate === 'off') return ok('No checkpoints are made (checkpoints.generate).');
  if (service !== undefined) {
    const worker = new RemoteWorker(
      { url: service.url, key: service.key ?? '' },
      isolation,
      checkpoints.workSeconds * 1000,
    );
    try {
      const [version, level] = await Promise.all([worker.version(), worker.level()]);
      const text = `iTwin.js ${version} in the service at ${service.url}; isolation level: ${level}.`;
      return isolationLevels.indexOf(level) < isolationLevels.indexOf(isolation)
        ? fault(text, `Raise the isolation level of the service, or lower checkpoints.isolation ('${isolation}').`)
        : ok(text);
    } finally {
      worker.kill();
    }
  }
  if (generate === 'elsewhere') return ok('Checkpoints are made by another server (checkpoints.generate).');
  if (!isITwinJsInstalled())
    return warning(
      'iTwin.js is not installed: no checkpoints are made, and forks without history and templates stay scheduled.',
      'Install with optional packages and install scripts, or run `offshoot itwinjs` on another machine (checkpoints.service).',
    );
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-doctor-'));
  try {
    const { level } = await findIsolation(folder, isolation);
    const text = `iTwin.js ${iTwinJsVersion()}; isolation level: ${level}.`;
    return level === 'namespaces'
      ? ok(text)
      : warning(
          text,
          'If untrusted users may push or upload: install bubblewrap, or run `offshoot itwinjs` in a separate container.',
        );
  } catch (error) {
    return error instanceof IsolationError ? fault(error.message) : fault(messageOf(error));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function viewers({ viewer }: Config): Promise<Found> {
  if (!viewer.enabled) return ok('Not answered (viewer.enabled).');
  const { service } = viewer;
  if (service === undefined)
    return isViewerInstalled()
      ? ok(`Answered by processes of this server, with iTwin.js ${iTwinJsVersion()}.`)
      : fault(
          'iTwin.js is not installed: no viewer is answered.',
          'Install with optional packages and install scripts, or run `offshoot view-backend` on another machine (viewer.service).',
        );
  try {
    await new RemoteBackend({ url: service.url, key: service.key ?? '' }).check();
    return ok(`The view back end at ${service.url} answers.`);
  } catch (error) {
    if (error instanceof ApiError) return fault(messageOf(error.cause), 'See "A separate back end" in docs/viewer.md.');
    return fault(
      `The view back end at ${service.url} does not answer.`,
      'Start `offshoot view-backend` there, and check viewer.service.url and the network between both.',
    );
  }
}

function address({ host, publicUrl, trustProxy }: Config): Found {
  if (publicUrl !== undefined) {
    const { protocol, hostname } = new URL(publicUrl);
    if (protocol === 'http:' && !isLoopback(hostname))
      return warning(
        `${publicUrl} is not encrypted: tokens and links can be intercepted.`,
        'Use a reverse proxy with TLS, and set publicUrl to its https address.',
      );
    return ok(publicUrl);
  }
  if (isLoopback(host)) return ok(`Reachable from this machine only (${host}).`);
  if (trustProxy) return ok('Links contain the address that the proxy reports.');
  return warning(
    `The server listens on ${host}, and links contain the address that each client used.`,
    'Set publicUrl.',
  );
}

/** Timeout for the question who answers on the port, milliseconds. */
const portMs = 3000;

/** Listens on the port for a moment, unless the server does. */
async function port({ host, port: number }: Config): Promise<Found> {
  if (number === 0) return ok('A free one is selected at each start.');
  const code = await new Promise<string | undefined>((resolve) => {
    const probe = createServer();
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? 'unknown'));
    probe.listen({ host, port: number, exclusive: true }, () => probe.close(() => resolve(undefined)));
  });
  if (code === undefined) return ok(`${number} is free.`);
  if (code === 'EADDRINUSE') {
    const here = { '0.0.0.0': '127.0.0.1', '::': '[::1]' }[host] ?? (host.includes(':') ? `[${host}]` : host);
    const status = await fetch(`http://${here}:${number}/health`, { signal: AbortSignal.timeout(portMs) }).then(
      async (answer) => ((await answer.json()) as { status?: unknown } | null)?.status,
      () => undefined,
    );
    return status === 'ok'
      ? ok(`A server answers on ${number}.`)
      : fault(
          `Another program uses port ${number}.`,
          'End that program, or choose another port (port, OFFSHOOT_PORT or --port).',
        );
  }
  if (code === 'EACCES')
    return fault(
      `This user may not listen on port ${number}.`,
      'Choose a port above 1023, and put a reverse proxy in front.',
    );
  return fault(
    `Nothing can listen on ${host}, port ${number} (${code}).`,
    'Set host to an address of this machine, or to 0.0.0.0 for all of them.',
  );
}

async function tokens({ issuers, embeddedIssuer, host, publicUrl }: Config): Promise<Found> {
  const found = await Promise.all(
    issuers.map(async (issuer) => {
      try {
        await issuerKeys(issuer)({ alg: 'RS256', kid: 'none' }, { payload: '', signature: '' });
      } catch (error) {
        // Any other error means that the issuer provided keys, and none of them has the requested id, as expected.
        if (error instanceof IssuerUnavailableError)
          return fault(
            `${issuer.issuer} provides no keys: ${messageOf(error.cause)}`,
            'Check that this machine can reach the issuer, and that its name is spelled as in its discovery document.',
          );
      }
      return ok(`${issuer.issuer} provides its keys.`);
    }),
  );
  const forOthers = !isLoopback(publicUrl === undefined ? host : new URL(publicUrl).hostname);
  if (embeddedIssuer && forOthers)
    found.push(
      warning(
        'The embedded issuer is on: anyone who can read the data folder can issue tokens for every user.',
        'If that matters, use an OpenID Connect issuer (issuers) and set embeddedIssuer to false.',
      ),
    );
  else if (embeddedIssuer) found.push(ok('Issued with `offshoot token`.'));
  return found;
}
