/**
 * What the server and a view back end tell each other. The server sends each request over HTTP with the key of the back
 * end; an own process also exchanges the messages below over IPC.
 */

/** Header with the key of the back end. Without it the back end answers 403: it checks no permissions itself. */
export const keyHeader = 'offshoot-view-key';
/** Header with a `ViewCheckpoint` as JSON in base64url. */
export const checkpointHeader = 'offshoot-view-checkpoint';
/** Answers 204 while the process is responsive. */
export const pingPath = '/ping';

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
