import { statSync } from 'node:fs';
import path from 'node:path';
import { ownOrigins } from '../wiring/ownAddresses.ts';
import { hasIssuer } from '../wiring/dataFolder.ts';
import { exitCodes, ExitError } from './exit.ts';

/** Address of a server that runs with the default settings. */
const defaultUrl = 'http://localhost:4700';
const defaultFolder = 'offshoot-data';

/** What a command line says about the server to call. */
export interface ServerOptions {
  url?: string;
  data?: string;
}

/** The server that a command calls. */
export interface FoundServer {
  url: string;
  /** Where the address comes from, for messages: `the address is from …`. */
  from: string;
  /** Data folder from which tokens may be minted. */
  data: string;
}

/**
 * Finds the server to call: `--url`, `OFFSHOOT_URL`, `OFFSHOOT_PORT`, `--data`, the login, the default data folder, and
 * at last the default address.
 * @param login the server of the current login; its token is used with its address only
 * @throws ExitError usage for an invalid port, and for a data folder on which no server was started
 */
export function findServer(
  options: ServerOptions,
  { env = process.env, login }: { env?: NodeJS.ProcessEnv; login?: string | undefined } = {},
): FoundServer {
  const data = options.data ?? env['OFFSHOOT_DATA'] ?? defaultFolder;
  const found = (url: string, from: string): FoundServer => ({ url, from, data });
  if (options.url !== undefined) return found(options.url, '--url');
  if (given(env['OFFSHOOT_URL'])) return found(env['OFFSHOOT_URL'], 'OFFSHOOT_URL');
  if (given(env['OFFSHOOT_PORT'])) return found(`http://localhost:${portOf(env['OFFSHOOT_PORT'])}`, 'OFFSHOOT_PORT');
  if (options.data !== undefined) {
    const [origin] = ownOrigins(options.data);
    if (origin === undefined) throw new ExitError(exitCodes.usage, faultOf(options.data));
    return found(origin, `the server that was last started on the data folder ${path.resolve(data)}`);
  }
  if (login !== undefined) return found(login, 'the login');
  const [origin] = ownOrigins(data);
  return origin === undefined
    ? found(defaultUrl, `the default: no server was started on the data folder ${path.resolve(data)}`)
    : found(origin, `the server that was last started on the data folder ${path.resolve(data)}`);
}

/** Why a folder is not the data folder of a server. */
export function faultOf(data: string): string {
  const folder = path.resolve(data);
  const found = statSync(folder, { throwIfNoEntry: false });
  if (found === undefined) return `the data folder ${folder} does not exist`;
  if (!found.isDirectory()) return `the data folder ${folder} is a file`;
  return hasIssuer(data)
    ? `no server has been started on the data folder ${folder}`
    : `${folder} is not the data folder of a server with an issuer of tokens`;
}

function given(text: string | undefined): text is string {
  return text !== undefined && text !== '';
}

/** @throws ExitError usage */
function portOf(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : NaN;
  if (port >= 1 && port <= 65_535) return port;
  throw new ExitError(exitCodes.usage, `OFFSHOOT_PORT must be a port from 1 to 65535, not '${text}'; or give --url`);
}
