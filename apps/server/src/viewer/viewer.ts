import { createHash } from 'node:crypto';
import type { Readable } from 'node:stream';
import { promisify } from 'node:util';
import { createGunzip, gzip } from 'node:zlib';
import { BoundedCache } from '../boundedCache.ts';
import {
  slotAt,
  checkpointAt,
  databaseName,
  type Checkpoints,
  type CheckpointSlot,
} from '../checkpoints/checkpoints.ts';
import { containerOf } from '../checkpoints/containers.ts';
import { minContainerSeconds, type Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import type { IModelTable } from '../db/schema.ts';
import type { Caller } from '../domain.ts';
import { ApiError } from '../errors.ts';
import { account, type SignedLinks } from '../storage/signedLinks.ts';
import { traced } from '../traces/traces.ts';
import { AnswerMemory, AnswersFullError, type HeldMemory } from './answerMemory.ts';
import { BackendLostError, type Backend, type BackendAnswer, type BackendRequest } from './backend.ts';
import { removeOrphanTiles } from './orphanTiles.ts';
import { checkpointHeader, refusalHeader, type ViewCheckpoint } from './protocol.ts';
import { parametersText, pathOf, type RpcCall } from './rpcCall.ts';
import type { KeptAnswer } from './keptAnswer.ts';
import type { StoredTiles } from './storedTiles.ts';
import type { TileCache } from './tileCache.ts';

/** An answer to a viewer, in the form of the RPC protocol of iTwin.js. */
export interface ViewAnswer {
  status: number;
  headers: Record<string, string>;
  body: Buffer | string | Readable;
}

/** What a request of a viewer says besides its call. */
export interface ViewRequest {
  caller: Caller;
  imodel: IModelTable;
  /** Store of the files of the iModel. */
  store: string;
  call: RpcCall;
  /** Headers of the RPC protocol that the back end reads. */
  headers: Record<string, string>;
  acceptsGzip: boolean;
  /** Aborted when the client has gone. */
  signal: AbortSignal;
  /** Memory of the answer, from `hold`. */
  memory: HeldMemory;
}

export interface ViewerParts {
  config: Config;
  database: Database;
  checkpoints: Checkpoints;
  signedLinks: SignedLinks;
  tiles: TileCache;
  /** The tiles in each store that holds some, by the id of the store. */
  storedTiles: ReadonlyMap<string, StoredTiles>;
  /** Empty if this server answers no viewers. */
  backends: readonly Backend[];
}

/** A checkpoint that can be opened, and the content that it has. */
interface Located {
  index: number;
  slot: CheckpointSlot;
}

/** Number of checkpoints of iModels that are remembered as usable: a usable one stays usable. */
const remembered = 10_000;
/** A token for a container is given to the back end for this share of its life. */
const tokenShare = 0.25;
/** Wait of a client before it asks again for what is not ready, seconds. */
const retrySeconds = 2;
/** Attempts at one request if the back end ends before it answers. */
const attempts = 2;

const compress = promisify(gzip);

/**
 * Answers viewers. The route has checked the caller; this finds the checkpoint, answers tiles that another iModel with the
 * same content has been shown already, and passes everything else to a back end.
 */
export class Viewer {
  readonly #parts: ViewerParts;
  readonly #located = new BoundedCache<string, Located>(remembered);
  readonly #tokens: BoundedCache<string, string>;
  /** Requests of each user that are being answered. */
  readonly #busy = new Map<string, number>();
  /** Where the server itself is reached by its back ends. */
  #ownOrigin = '';
  /** Tiles that a back end made, and those that came from the folder of the server or from the store. */
  readonly counts = { made: 0, kept: 0 };
  /** Memory of the answers that are read or sent now. */
  readonly memory: AnswerMemory;

  constructor(parts: ViewerParts) {
    this.#parts = parts;
    this.memory = new AnswerMemory(parts.config.viewer.answersMiB * 2 ** 20);
    this.#tokens = new BoundedCache(remembered, { ttl: minContainerSeconds * 1000 * tokenShare });
  }

  get available(): boolean {
    return this.#parts.backends.length > 0;
  }

  /** Ends the processes, and what is written to the stores. */
  async stop(): Promise<void> {
    const { backends, storedTiles } = this.#parts;
    await Promise.all([...backends, ...storedTiles.values()].map((each) => each.stop()));
  }

  get backends(): readonly Backend[] {
    return this.#parts.backends;
  }

  /**
   * Removes the tiles of contents that the collector has removed, and keeps the tiles in the stores within their limit. Servers
   * without back ends do it in the stores too: nobody else may be left to do it.
   * @param run.thorough whether to examine everything
   * @param run.removed whether contents may have been removed since the last run
   */
  async tidyTiles(run: { thorough: boolean; removed: boolean }, signal: AbortSignal): Promise<void> {
    const { database, tiles, storedTiles, backends } = this.#parts;
    if (this.available && (run.thorough || run.removed))
      await removeOrphanTiles(database.scans, tiles, backends[0]?.iTwinJs, signal);
    for (const stored of storedTiles.values()) await stored.tidy(database.scans, run, signal);
  }

  get tiles(): TileCache {
    return this.#parts.tiles;
  }

  get storedTiles(): ReadonlyMap<string, StoredTiles> {
    return this.#parts.storedTiles;
  }

  /** Tells where the server listens, once it does. @param origin `http://host:port` */
  listensAt(origin: string): void {
    this.#ownOrigin = origin;
  }

  /** @throws ApiError ViewerNotAvailable, ChangesetNotFound, CheckpointNotUsable, Unavailable */
  async answer(request: ViewRequest): Promise<ViewAnswer> {
    if (!this.available) throw new ApiError('ViewerNotAvailable');
    return this.#asOneOf(request.caller, async () => {
      const located = await this.#locate(request);
      if (located === undefined) return pending('The checkpoint is being made.');
      const { kind } = request.call;
      if (kind === 'tileTree') return this.#kept(request, located, ['tree', textOf(request.call.rest[0])]);
      if (kind === 'generateTile') return this.#generate(request, located);
      if (kind === 'retrieveTile') return this.#retrieve(request, located);
      return toAnswer(await this.#call(request, request.call, located), request.acceptsGzip);
    });
  }

  /** Limits the requests of one user, so that nobody occupies the back ends alone. */
  async #asOneOf({ user }: Caller, work: () => Promise<ViewAnswer>): Promise<ViewAnswer> {
    const before = this.#busy.get(user.id) ?? 0;
    if (before >= this.#parts.config.viewer.requestsPerUser) throw busy();
    this.#busy.set(user.id, before + 1);
    try {
      return await work();
    } catch (error) {
      throw error instanceof AnswersFullError ? busy(error) : error;
    } finally {
      const now = (this.#busy.get(user.id) ?? 1) - 1;
      if (now === 0) this.#busy.delete(user.id);
      else this.#busy.set(user.id, now);
    }
  }

  /** The changeset of a call, if its checkpoint is usable; undefined while it is being made. */
  async #locate({ imodel, call, caller }: ViewRequest): Promise<Located | undefined> {
    const key = `${imodel.id}/${call.changesetId}`;
    const known = this.#located.get(key);
    if (known !== undefined) return known;
    const { database, checkpoints } = this.#parts;
    const { db } = database;
    const index = call.changesetId === '' ? 0 : (await findChangeset(db, imodel, { id: call.changesetId }))?.index;
    const slot = index === undefined ? undefined : await slotAt(db, imodel, index);
    if (index === undefined || slot === undefined) throw new ApiError('ChangesetNotFound');
    const checkpoint = await checkpointAt(db, slot);
    if (checkpoint?.state === 'successful') {
      const located = { index, slot };
      this.#located.set(key, located);
      return located;
    }
    if (checkpoint?.state === 'scheduled') return undefined;
    if (checkpoint === undefined && (await this.#schedule(imodel, index, caller))) return undefined;
    throw new ApiError(
      'CheckpointNotUsable',
      checkpoints.enabled && checkpoint?.failure_reason != null ? { message: checkpoint.failure_reason } : {},
    );
  }

  /**
   * Schedules the checkpoint of the newest changeset, the one that viewers open unless they ask for another. A viewer need
   * not be able to write, so it cannot have a checkpoint made of each changeset of the past.
   */
  async #schedule(imodel: IModelTable, index: number, { user }: Caller): Promise<boolean> {
    const { database, checkpoints } = this.#parts;
    if (index !== imodel.head_index) return false;
    return database.db
      .transaction()
      .execute((tx) => checkpoints.ensureScheduled(tx, imodel, index, { when: 'now', userId: user.id }));
  }

  /** An answer that depends on the content alone, from the cache or the back end. */
  async #kept(request: ViewRequest, located: Located, what: readonly string[]): Promise<ViewAnswer> {
    const kept = await this.#find(request, located, what);
    if (kept !== undefined) return ofKept(kept, request.acceptsGzip);
    const answer = await this.#call(request, request.call, located);
    if (answer.status === 200) await this.#keep(request, located, what, answer);
    return toAnswer(answer, request.acceptsGzip);
  }

  async #generate(request: ViewRequest, located: Located): Promise<ViewAnswer> {
    const [treeId, contentId] = request.call.rest;
    // The viewer retrieves the tile next: from here, as the answer `0` of `TileContentSource.Backend` says.
    const what = tileOf(treeId, contentId);
    if ((await this.#has(request, located, what)) || (await this.#find(request, located, what)) !== undefined)
      return { status: 200, headers: { 'content-type': 'text/plain', 'cache-control': 'no-store' }, body: '0' };
    const answer = await this.#call(request, request.call, located);
    return toAnswer(answer, request.acceptsGzip);
  }

  async #retrieve(request: ViewRequest, located: Located): Promise<ViewAnswer> {
    const { treeId, contentId, guid } = (request.call.rest[0] ?? {}) as Record<string, unknown>;
    const what = tileOf(treeId, contentId);
    const kept = await this.#find(request, located, what);
    if (kept !== undefined) {
      this.counts.kept++;
      return ofKept(kept, request.acceptsGzip);
    }
    let answer = await this.#call(request, request.call, located);
    if (answer.status >= 400) {
      // A back end that was started again has lost the tile that it made.
      const generate = { ...request.call, operation: 'generateTileContent', rest: [treeId, contentId, guid] };
      const made = await this.#call(request, generate, located);
      if (made.status === 200) answer = await this.#call(request, request.call, located);
    }
    if (answer.status === 200) {
      this.counts.made++;
      await this.#keep(request, located, what, answer);
    }
    return toAnswer(answer, request.acceptsGzip);
  }

  /** A kept answer, from the folder of this server or else from the store, which other servers write to as well. */
  async #find(
    { imodel, store, signal, memory }: ViewRequest,
    located: Located,
    what: readonly string[],
  ): Promise<KeptAnswer | undefined> {
    const { tiles, storedTiles } = this.#parts;
    const content = contentOf(located, this.#backendOf(imodel).iTwinJs);
    if (content === undefined) return undefined;
    const stored = storedTiles.get(store);
    const kept = await tiles.find(content, what, (bytes) => memory.reserve(bytes, signal));
    if (kept !== undefined) {
      stored?.used(content);
      return kept;
    }
    const found = await stored?.find(content, what, signal, memory.reserveNow);
    if (found !== undefined) await tiles.keep(content, what, found);
    return found;
  }

  /** Whether the folder of this server has an answer. */
  async #has({ imodel }: ViewRequest, located: Located, what: readonly string[]): Promise<boolean> {
    const content = contentOf(located, this.#backendOf(imodel).iTwinJs);
    return content !== undefined && (await this.#parts.tiles.has(content, what));
  }

  async #keep({ store }: ViewRequest, located: Located, what: readonly string[], answer: BackendAnswer): Promise<void> {
    const { tiles, storedTiles } = this.#parts;
    const content = contentOf(located, answer.iTwinJs);
    if (content === undefined) return;
    const body = answer.headers['content-encoding'] === 'gzip' ? answer.body : await compress(answer.body);
    const kept = { contentType: answer.headers['content-type'] ?? 'text/plain', body };
    storedTiles.get(store)?.keep(content, what, kept);
    await tiles.keep(content, what, kept);
  }

  /** All iModels of one family have the same back end. */
  #backendOf({ id, lineage_id }: IModelTable): Backend {
    const { backends } = this.#parts;
    return backends[numberOf(lineage_id ?? id) % backends.length] as Backend;
  }

  /** Sends a call to the back end of its iModel. @throws ApiError Unavailable */
  async #call(request: ViewRequest, call: RpcCall, { index }: Located): Promise<BackendAnswer> {
    const { config } = this.#parts;
    const { imodel, memory } = request;
    const backend = this.#backendOf(imodel);
    const sent: BackendRequest = {
      path: pathOf(call),
      body: parametersText(call, index),
      reserve: memory.reserve,
      headers: {
        ...request.headers,
        'content-type': 'text/plain',
        'accept-encoding': 'gzip',
        [checkpointHeader]: Buffer.from(JSON.stringify(this.#checkpointOf(imodel, call, index))).toString('base64url'),
      },
    };
    const late = AbortSignal.timeout(config.viewer.requestSeconds * 1000);
    const signal = AbortSignal.any([request.signal, late]);
    return traced(`view ${call.interfaceName}.${call.operation}`, { 'offshoot.imodel': imodel.id }, async () => {
      for (let attempt = 1; ; attempt++)
        try {
          memory.release();
          return requireNotBusy(await backend.call(sent, signal));
        } catch (error) {
          if (late.aborted) throw new ApiError('ViewerTimeout', { cause: error });
          if (!(error instanceof BackendLostError)) throw error;
          if (attempt === attempts) throw busy(error);
        }
    });
  }

  #checkpointOf(imodel: IModelTable, call: RpcCall, index: number): ViewCheckpoint {
    const container = containerOf(imodel.id);
    let token = this.#tokens.get(container);
    if (token === undefined) {
      token = this.#parts.signedLinks.containerToken(container, minContainerSeconds);
      this.#tokens.set(container, token);
    }
    return {
      iTwinId: imodel.itwin_id,
      iModelId: imodel.id,
      changesetId: call.changesetId,
      changesetIndex: index,
      baseUri: `${this.#ownOrigin}/${account}`,
      container,
      database: databaseName({ index, id: call.changesetId }),
      token,
    };
  }
}

/**
 * Name of the content of a checkpoint, the same for every iModel that sees the changeset.
 * @param iTwinJs version of iTwin.js: another one may make other tiles. Nothing is kept or found while it is not known.
 */
function contentOf({ slot, index }: Located, iTwinJs: string | undefined): string | undefined {
  if (iTwinJs === undefined) return undefined;
  return `${slot.baseline_id === null ? `s-${slot.segment_id}` : `b-${slot.baseline_id}`}-${index}-${iTwinJs}`;
}

/** What identifies a tile within its content. */
function tileOf(treeId: unknown, contentId: unknown): readonly string[] {
  return ['tile', textOf(treeId), textOf(contentId)];
}

function textOf(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value ?? null);
}

function numberOf(id: string): number {
  return createHash('sha256').update(id).digest().readUInt32BE(0);
}

/** @throws ApiError Unavailable */
function requireNotBusy(answer: BackendAnswer): BackendAnswer {
  if (answer.headers[refusalHeader] !== 'busy') return answer;
  throw busy(new Error('all checkpoints that the view back end may open are in use (viewer.maxCheckpoints)'));
}

function busy(cause?: unknown): ApiError {
  return new ApiError('Unavailable', { headers: { 'retry-after': String(retrySeconds) }, cause });
}

/** The answer after which a viewer asks again. Front ends of 4.x and 5.x read it in the same form. */
function pending(message: string): ViewAnswer {
  return {
    status: 202,
    headers: { 'content-type': 'text/plain', 'cache-control': 'no-store' },
    body: JSON.stringify({ iTwinRpcCoreResponse: true, managedStatus: 'pending', responseValue: message }),
  };
}

function ofKept({ contentType, body }: KeptAnswer, acceptsGzip: boolean): ViewAnswer {
  const headers = { 'content-type': contentType, 'cache-control': 'private, no-store' };
  return acceptsGzip
    ? { status: 200, headers: { ...headers, 'content-encoding': 'gzip' }, body }
    : { status: 200, headers, body: decompressed(body) };
}

/** An answer for a client that does not want it compressed. As a stream, because it may be a thousand times as large. */
function decompressed(body: Buffer): Readable {
  const unzip = createGunzip();
  unzip.end(body);
  return unzip;
}

/** Headers of the back end that viewers read. */
const passedOn = ['content-type', 'x-protocol-version', 'retry-after'] as const;

function toAnswer({ status, headers, body }: BackendAnswer, acceptsGzip: boolean): ViewAnswer {
  const passed: Record<string, string> = { 'cache-control': 'private, no-store' };
  for (const name of passedOn) {
    const value = headers[name];
    if (typeof value === 'string') passed[name] = value;
  }
  if (headers['content-encoding'] !== 'gzip') return { status, headers: passed, body };
  return acceptsGzip
    ? { status, headers: { ...passed, 'content-encoding': 'gzip' }, body }
    : { status, headers: passed, body: decompressed(body) };
}
