import {
  closeSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createHash } from 'node:crypto';
import { homedir } from 'node:os';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { exitCodes, ExitError } from './exit.ts';
import { requestTokens, type TokenAnswer } from './oauth.ts';

/** What `offshoot login` keeps for one server. */
export interface SavedLogin {
  origin: string;
  /** The address of the server, which may have a path. */
  url: string;
  /** Milliseconds since 1970. */
  signedInAt: number;
  issuer: string;
  clientId: string;
  tokenEndpoint: string;
  accessToken: string;
  /** Milliseconds since 1970. */
  expiresAt: number;
  /** Absent if the issuer gave none: the login then ends with the access token. */
  refreshToken?: string;
}

/** A token is renewed this long before it expires, milliseconds, so that it does not expire during a request. */
const renewBeforeMs = 60_000;
/** How long a command waits for another one that renews the same login, and when a lock counts as abandoned, milliseconds. */
const lockWaitMs = 20_000;
const abandonedLockMs = 60_000;

/** The folder of saved logins: in the configuration folder of the user. */
function loginsFolder(): string {
  const { APPDATA, XDG_CONFIG_HOME } = process.env;
  const base =
    process.platform === 'win32' && APPDATA !== undefined
      ? APPDATA
      : XDG_CONFIG_HOME !== undefined && path.isAbsolute(XDG_CONFIG_HOME)
        ? XDG_CONFIG_HOME
        : path.join(homedir(), '.config');
  return path.join(base, 'offshoot', 'logins');
}

/** One file for each server, so that commands for different servers do not wait for each other. */
function fileOf(origin: string): string {
  const name = origin.replace(/[^a-z0-9.-]+/gi, '_').slice(0, 100);
  return path.join(loginsFolder(), `${name}-${createHash('sha256').update(origin).digest('hex').slice(0, 12)}.json`);
}

export function saveLogin(login: SavedLogin): void {
  const file = fileOf(login.origin);
  mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, JSON.stringify(login), { mode: 0o600 });
  renameSync(temporary, file);
}

/** @returns the login that was removed; undefined if there was none */
export function removeLogin(origin: string): SavedLogin | undefined {
  const login = readLogin(origin);
  rmSync(fileOf(origin), { force: true });
  return login;
}

/** The address of the server of the latest login; undefined if there is none. */
export function currentLogin(): string | undefined {
  let latest: SavedLogin | undefined;
  for (const name of fileNames()) {
    if (!name.endsWith('.json')) continue;
    const login = loginIn(path.join(loginsFolder(), name));
    if (login !== undefined && login.signedInAt > (latest?.signedInAt ?? 0)) latest = login;
  }
  return latest?.url;
}

function fileNames(): string[] {
  try {
    return readdirSync(loginsFolder());
  } catch {
    // Without a login there is no folder. One that cannot be read has none either.
    return [];
  }
}

/** The saved login for a server, whose tokens are renewed when needed; undefined if there is none. */
export function savedLogin(origin: string): (() => Promise<string>) | undefined {
  if (readLogin(origin) === undefined) return undefined;
  return async () => {
    const login = readLogin(origin);
    if (login === undefined) throw again(origin, 'it was removed');
    return isFresh(login) ? login.accessToken : renew(origin);
  };
}

function isFresh({ expiresAt }: SavedLogin): boolean {
  return expiresAt - renewBeforeMs > Date.now();
}

/** Issuers revoke a login whose refresh token is used twice, so only one command at a time renews it. @throws ExitError refused */
async function renew(origin: string): Promise<string> {
  const lock = `${fileOf(origin)}.lock`;
  await take(lock);
  try {
    const login = readLogin(origin);
    if (login === undefined) throw again(origin, 'it was removed');
    if (isFresh(login)) return login.accessToken;
    if (login.refreshToken === undefined) throw again(origin, 'it has expired');
    const answer = await requestTokens(login.tokenEndpoint, {
      grant_type: 'refresh_token',
      refresh_token: login.refreshToken,
      client_id: login.clientId,
    });
    if ('error' in answer) throw again(origin, `the issuer did not renew it (${answer.error})`);
    const renewed = { ...login, ...savedTokens(answer, login.refreshToken) };
    saveLogin(renewed);
    return renewed.accessToken;
  } finally {
    rmSync(lock, { force: true });
  }
}

/** The tokens of an answer of the issuer, as they are saved. */
export function savedTokens(
  { access_token, expires_in, refresh_token }: TokenAnswer,
  earlier?: string,
): Pick<SavedLogin, 'accessToken' | 'expiresAt' | 'refreshToken'> {
  const refreshToken = refresh_token ?? earlier;
  return {
    accessToken: access_token,
    expiresAt: Date.now() + (expires_in ?? 300) * 1000,
    ...(refreshToken !== undefined && { refreshToken }),
  };
}

async function take(lock: string): Promise<void> {
  const until = Date.now() + lockWaitMs;
  for (;;) {
    try {
      closeSync(openSync(lock, 'wx', 0o600));
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      const held = statSync(lock, { throwIfNoEntry: false });
      if (held !== undefined && held.mtimeMs < Date.now() - abandonedLockMs) rmSync(lock, { force: true });
      if (Date.now() > until)
        throw new ExitError(exitCodes.failed, `another command is renewing the login; if none runs, delete ${lock}`);
      await pause(50);
    }
  }
}

function again(origin: string, reason: string): ExitError {
  return new ExitError(exitCodes.refused, `the login for ${origin} cannot be used: ${reason}. Run offshoot login`);
}

function readLogin(origin: string): SavedLogin | undefined {
  const login = loginIn(fileOf(origin));
  // The name of the file is a hash: the content says for which server the token is.
  return login?.origin === origin ? login : undefined;
}

function loginIn(file: string): SavedLogin | undefined {
  try {
    const login = JSON.parse(readFileSync(file, 'utf8')) as Partial<SavedLogin>;
    return typeof login.accessToken === 'string' && typeof login.origin === 'string'
      ? (login as SavedLogin)
      : undefined;
  } catch (error) {
    if (error instanceof SyntaxError || (error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
