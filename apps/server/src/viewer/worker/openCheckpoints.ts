import { once } from 'node:events';
import { connect } from 'node:net';
import { SnapshotDb, V2CheckpointManager } from '@itwin/core-backend';
import { account } from '../../storage/signedLinks.ts';
import type { BackendSettings, ViewCheckpoint } from '../protocol.ts';

/** How often idle checkpoints are looked for, at most, milliseconds. */
const sweepMs = 10_000;
/** How long a request waits until a checkpoint may be opened, milliseconds. */
const roomMs = 10_000;
/** Requests that wait; further ones are refused at once. */
const mostWaiting = 200;

/** The fields of a container that core-backend keeps. */
interface Container {
  accessToken: string;
  isConnected: boolean;
  disconnect(options: { detach: boolean }): void;
}

interface Entry {
  checkpoint: ViewCheckpoint;
  opening: Promise<SnapshotDb>;
  /** Requests that are being answered. */
  users: number;
  usedAt: number;
}

/** A request for a checkpoint that is not open while as many as are allowed are in use. */
interface Waiting {
  key: string;
  checkpoint: ViewCheckpoint;
  admit: (entry: Entry) => void;
}

/** What core-backend needs to attach a checkpoint. */
interface CheckpointAccess {
  accountName: string;
  baseUri: string;
  containerId: string;
  dbName: string;
  sasToken: string;
}

/**
 * The open checkpoints of a back end. A request opens its checkpoint if it is not open, so a back end that was started
 * again answers the next request of any viewer. There are never more of them than allowed, because each takes memory: while
 * all are in use, a request for another one waits until one may be closed.
 */
export class OpenCheckpoints {
  readonly #settings: Pick<BackendSettings, 'idleMs' | 'maxCheckpoints' | 'server'>;
  readonly #onChange: (open: number) => void;
  readonly #entries = new Map<string, Entry>();
  /** Those that have waited longest first. */
  readonly #waiting = new Set<Waiting>();

  constructor(
    settings: Pick<BackendSettings, 'idleMs' | 'maxCheckpoints' | 'server'>,
    onChange: (open: number) => void,
  ) {
    this.#settings = settings;
    this.#onChange = onChange;
    setInterval(() => this.#sweep(), Math.min(sweepMs, settings.idleMs)).unref();
  }

  /**
   * Opens the checkpoint unless it is open, and keeps it open while `work` runs.
   * @param signal aborted when nobody waits for the answer any more
   * @throws CheckpointsInUseError if no other one could be closed within 10 s
   */
  async use(checkpoint: ViewCheckpoint, signal: AbortSignal, work: () => Promise<void>): Promise<void> {
    const key = keyOf(checkpoint.iModelId, checkpoint.changesetId);
    const entry = this.#take(key, checkpoint) ?? (await this.#wait(key, checkpoint, signal));
    try {
      await entry.opening;
      const container = containers().get(checkpoint.container);
      if (container !== undefined && container.accessToken !== checkpoint.token)
        container.accessToken = checkpoint.token;
      await work();
    } finally {
      entry.users--;
      entry.usedAt = performance.now();
      this.#admit();
    }
  }

  /** Answers core-backend. @throws Error for a checkpoint that no request names */
  access({ iModelId, changeset }: { iModelId: string; changeset: { id: string } }): CheckpointAccess {
    const found = this.#entries.get(keyOf(iModelId, changeset.id))?.checkpoint;
    if (found === undefined) throw new Error('no request names this checkpoint');
    return {
      accountName: account,
      baseUri: this.#settings.server === undefined ? found.baseUri : `${this.#settings.server}/${account}`,
      containerId: found.container,
      dbName: found.database,
      sasToken: found.token,
    };
  }

  /** @returns undefined if the checkpoint is not open, and no other one can be closed */
  #take(key: string, checkpoint: ViewCheckpoint): Entry | undefined {
    const { maxCheckpoints } = this.#settings;
    const known = this.#entries.get(key);
    if (known === undefined && this.#entries.size >= maxCheckpoints && !this.#closeOldest()) return undefined;
    const entry = known ?? this.#open(key, checkpoint);
    entry.checkpoint = checkpoint;
    entry.users++;
    return entry;
  }

  #wait(key: string, checkpoint: ViewCheckpoint, signal: AbortSignal): Promise<Entry> {
    return new Promise((resolve, reject) => {
      if (signal.aborted || this.#waiting.size >= mostWaiting) return reject(new CheckpointsInUseError());
      const end = (): void => {
        clearTimeout(timer);
        signal.removeEventListener('abort', refuse);
        this.#waiting.delete(waiting);
      };
      const refuse = (): void => {
        end();
        reject(new CheckpointsInUseError());
      };
      const admit = (entry: Entry): void => {
        end();
        resolve(entry);
      };
      const waiting: Waiting = { key, checkpoint, admit };
      const timer = setTimeout(refuse, roomMs);
      signal.addEventListener('abort', refuse, { once: true });
      this.#waiting.add(waiting);
    });
  }

  /** Gives those that wait what is open now or may be opened. Nothing else can take it in between. */
  #admit(): void {
    for (const { key, checkpoint, admit } of this.#waiting) {
      const entry = this.#take(key, checkpoint);
      if (entry !== undefined) admit(entry);
    }
  }

  #open(key: string, checkpoint: ViewCheckpoint): Entry {
    const entry: Entry = { checkpoint, opening: undefined as never, users: 0, usedAt: performance.now() };
    this.#entries.set(key, entry);
    const { iTwinId, iModelId, changesetId: id, changesetIndex: index } = checkpoint;
    entry.opening = this.#requireServer().then(() =>
      SnapshotDb.openCheckpointFromRpc({ iTwinId, iModelId, changeset: { id, index }, accessToken: '' }),
    );
    entry.opening.then(
      () => this.#onChange(this.#entries.size),
      () => this.#entries.delete(key),
    );
    return entry;
  }

  /** Native code would try to reach the server for a long time, and its error names no cause. @throws ServerUnreachableError */
  async #requireServer(): Promise<void> {
    const { server } = this.#settings;
    const fault = server === undefined ? undefined : await unreachable(server);
    if (fault !== undefined) throw new ServerUnreachableError(`${server}: ${fault}`);
  }

  /** @returns false if all are in use */
  #closeOldest(): boolean {
    const idle = [...this.#entries].filter(([, { users }]) => users === 0);
    idle.sort(([, one], [, other]) => one.usedAt - other.usedAt);
    const [oldest] = idle;
    if (oldest !== undefined) this.#close(...oldest);
    return oldest !== undefined;
  }

  #sweep(): void {
    const before = performance.now() - this.#settings.idleMs;
    for (const [key, entry] of this.#entries) if (entry.users === 0 && entry.usedAt < before) this.#close(key, entry);
  }

  #close(key: string, { checkpoint }: Entry): void {
    this.#entries.delete(key);
    const db = SnapshotDb.tryFindByKey(key);
    db?.close();
    const { container: name } = checkpoint;
    const container = containers().get(name);
    if (container !== undefined && ![...this.#entries.values()].some((other) => other.checkpoint.container === name)) {
      if (container.isConnected) container.disconnect({ detach: true });
      containers().delete(name);
    }
    this.#onChange(this.#entries.size);
  }
}

/** As many checkpoints as are allowed are being read, and the time to wait for one of them is over. */
export class CheckpointsInUseError extends Error {}

/** The server has named a checkpoint, but its blocks cannot be read: the server is not reached from here. */
export class ServerUnreachableError extends Error {}

/** How long a reachable server takes to accept a connection, milliseconds. */
const reachMs = 5000;

/** Why a server cannot be reached; undefined if it accepts connections. Certificates are the matter of iTwin.js. */
export async function unreachable(server: string): Promise<string | undefined> {
  const { hostname, port, protocol } = new URL(server);
  const socket = connect({
    host: hostname.replace(/^\[|\]$/g, ''),
    port: Number(port || (protocol === 'https:' ? 443 : 80)),
  });
  try {
    await once(socket, 'connect', { signal: AbortSignal.timeout(reachMs) });
    return undefined;
  } catch (error) {
    const { code, name, message } = error as NodeJS.ErrnoException;
    return name === 'AbortError' ? `no connection within ${reachMs / 1000} s` : (code ?? message);
  } finally {
    // An error that comes after the time has no listener any more.
    socket.on('error', () => undefined).destroy();
  }
}

/** The key by which core-backend finds an open checkpoint, and front ends name it. */
function keyOf(iModelId: string, changesetId: string): string {
  return `${iModelId}:${changesetId}`;
}

function containers(): Map<string, Container> {
  return (V2CheckpointManager as unknown as { containers: Map<string, Container> }).containers;
}
