import { iTwinJsVersion } from '../checkpoints/itwinjs/itwinjsVersion.ts';
import { version } from '../version.ts';

/**
 * What the server and a view back end tell each other. The server sends each request over HTTP with the key of the back
 * end; an own process also exchanges the messages below over IPC.
 */

/** Header with the key of the back end. Without it the back end answers 403: it checks no permissions itself. */
export const keyHeader = 'offshoot-view-key';
/** Header with a `ViewCheckpoint` as JSON in base64url. */
export const checkpointHeader = 'offshoot-view-checkpoint';
/** Header of requests and answers with the release of the sender: see `release`. */
export const releaseHeader = 'offshoot-view-release';
/** Header of an answer by which a back end says why it cannot work for this server: a `Refusal`. */
export const refusalHeader = 'offshoot-view-refusal';
/** `key`: the keys differ. `release`: the releases do not fit. `server`: the back end cannot reach the server. `busy`: try again. */
export type Refusal = 'key' | 'release' | 'server' | 'busy';
/** Answers 204 while the process is responsive. */
export const pingPath = '/ping';

/** Answers 200 without a key, for those who watch a back end that runs on its own. */
export const healthPath = '/health';
/** Raised when a server or a back end could misunderstand the other of an earlier release. */
const protocolVersion = 1;

/** The release of this process: version of the protocol, of Offshoot, and of iTwin.js (empty where it is not installed). */
export function release(): string {
  return `${protocolVersion}/${version}/${iTwinJsVersion()}`;
}

/**
 * Compares the release of the other side with the own one.
 * @param theirs undefined for a release from before releases were compared
 * @returns why they do not fit, as the predicate of a sentence about the other side; undefined if they do
 */
export function misfitOf(theirs: string | undefined): string | undefined {
  const [own, other] = [partsOf(release()), partsOf(theirs ?? '0//')];
  const versions = `it runs Offshoot ${other.offshoot || 'of an earlier version'} with iTwin.js ${other.iTwinJs || '(unknown)'}, and this side Offshoot ${own.offshoot} with iTwin.js ${own.iTwinJs}`;
  if (other.protocol < own.protocol) return `is older: ${versions}`;
  if (other.protocol > own.protocol) return `is newer: ${versions}`;
  // Tiles are kept under the version of iTwin.js. A server that has a back end elsewhere need not have iTwin.js itself.
  const differs = own.iTwinJs !== '' && other.iTwinJs !== '' && own.iTwinJs !== other.iTwinJs;
  return differs ? `has another version of iTwin.js: ${versions}` : undefined;
}

/**
 * The version of iTwin.js in a release.
 * @returns undefined if there is none. Names of files and objects contain it, so it is nothing but a version number.
 */
export function iTwinJsOf(theirs: unknown): string | undefined {
  const { iTwinJs } = partsOf(typeof theirs === 'string' ? theirs : '');
  return /^\d{1,6}\.\d{1,6}\.\d{1,6}(-[0-9A-Za-z.-]{1,32})?$/.test(iTwinJs) ? iTwinJs : undefined;
}

function partsOf(text: string): { protocol: number; offshoot: string; iTwinJs: string } {
  const [protocol = '', offshoot = '', iTwinJs = ''] = text.slice(0, 100).split('/');
  return { protocol: Number.parseInt(protocol, 10) || 0, offshoot, iTwinJs };
}

/** The checkpoint that a request reads, and where its blocks are. */
export interface ViewCheckpoint {
  iTwinId: string;
  iModelId: string;
  /** `""` for the baseline. */
  changesetId: string;
  changesetIndex: number;
  /** Base address of the containers of the server. */
  baseUri: string;
  container: string;
  database: string;
  /** Access to the container, as a query. */
  token: string;
}

/** Settings of a back end. */
export interface BackendSettings {
  key: string;
  /** Checkpoints that nobody has read for this long are closed, milliseconds. */
  idleMs: number;
  /** Maximum number of open checkpoints; those that were read least recently are closed. */
  maxCheckpoints: number;
  /** Maximum size of the cache of blocks, MiB. */
  cacheMiB: number;
  /** Port to listen on; 0 for any. */
  port: number;
  host: string;
  /** Where the server is reached from here; undefined for the address that the server names. */
  server?: string;
}

/** The process tells this when it listens, and when the number of open checkpoints changes. */
export type BackendMessage = { port: number } | { open: number };

/** Maximum size of a request, bytes. Selections of many elements are the largest. */
export const maxRequestBytes = 4 * 2 ** 20;
