import { createHash, type Hash } from 'node:crypto';
import { pipeline, Readable, Transform, type TransformCallback } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline as pipelineOf } from 'node:stream/promises';
import {
  ChecksumMismatchError,
  NoSuchObjectError,
  SizeMismatchError,
  UnknownBlockError,
  type BlobStore,
  type ByteRange,
  type CallOptions,
  type CommitOptions,
  type DirectAccess,
  type DropOptions,
  type StoredObject,
  type TileObjects,
} from './blobStore.ts';
import { PastFailures } from '../operations/pastFailures.ts';
import { StagedBlocks, type StagedBlock } from './stagedBlocks.ts';
import { tilesOf } from './tileObjects.ts';

/** An object in the listing of a service. */
export interface ListedObject {
  name: string;
  size: number;
  modifiedAt: number;
}

/** An object that a client wrote directly to the service. */
export interface WrittenObject {
  name: string;
  /** Bytes of the object, its uncommitted blocks and its snapshots. */
  bytes: number;
}

/** Creates signed addresses, each valid for one object and a limited time. */
export interface ObjectLinks {
  readonly downloads: DirectAccess['downloads'];
  read: (name: string, fileName: string, expires: Date) => Promise<string>;
  /** This and the following are absent if clients of the API cannot upload to the service. */
  write?: (name: string, expires: Date) => Promise<string>;
  written?: (prefix: string, options?: CallOptions) => AsyncIterable<WrittenObject>;
  /** Removes an object, its uncommitted blocks and its snapshots, if they exist. */
  discard?: (name: string, options?: CallOptions) => Promise<void>;
}

/** The calls in which object services differ. `ObjectStore` implements everything else of a store for all services. */
export interface ObjectService {
  /** Writes one object, visible only when complete. Rejects and leaves nothing if the stream fails. */
  put(name: string, body: Readable, options?: CallOptions): Promise<void>;
  /** Writes a small object unless one with that name exists. Of several concurrent calls, one succeeds. */
  create(name: string, content: Buffer, options?: CallOptions): Promise<void>;
  /** Writes a small object in one request, over an earlier one. */
  replace(name: string, content: Buffer, options?: CallOptions): Promise<void>;
  /** Rejects with NoSuchObjectError. */
  get(name: string, range?: ByteRange, options?: CallOptions): Promise<Readable>;
  /** Rejects if the bucket or container cannot be reached. */
  check(options?: CallOptions): Promise<void>;
  /** Removes an object, if it exists. */
  remove(name: string, options?: CallOptions): Promise<void>;
  list(prefix: string, options?: CallOptions): AsyncIterable<ListedObject>;
  /** The next path segment of the names below a prefix, which ends with `/`; each once. */
  folders(prefix: string, options?: CallOptions): AsyncIterable<string>;
  /** Absent if there is no key to sign addresses with. */
  readonly links?: ObjectLinks | undefined;
  /**
   * Copies one object within the service, or from another service of the same type, completely or not at all.
   * @returns its SHA-256 (hex) if the service reports it; undefined if it cannot copy from that source
   * @throws NoSuchObjectError, SizeMismatchError
   */
  copy(
    source: ObjectService,
    sourceName: string,
    name: string,
    size: number,
    options?: CallOptions,
  ): Promise<{ sha256?: string | undefined } | undefined>;
}

const objects = 'objects/';
const staged = 'staged/';
const uploads = 'uploads/';
const owner = 'owner';

/**
 * A store on an object service. It uses `objects/{key}`, `staged/{upload}/{block}` for blocks of running uploads, which
 * one server may receive and another commit, `uploads/{upload}` for direct uploads, `tiles/{content}/{name}`, and `owner`. Sizes are checked and
 * hashes computed while the bytes pass through the server, or by reading the object afterwards.
 */
export class ObjectStore implements BlobStore {
  readonly id: string;
  readonly direct: DirectAccess | undefined;
  readonly tiles: TileObjects;
  readonly #service: ObjectService;
  readonly #staged = new StagedBlocks({
    list: (upload, options) => this.#blocks(upload, options),
    remove: (upload, name, options) => this.#service.remove(stagedFolder(upload) + name, options),
  });

  /** @param direct whether clients and browsers access the service directly; no effect if the service has no links */
  constructor(id: string, service: ObjectService, direct: { clients: boolean; pages: boolean }) {
    this.id = id;
    this.#service = service;
    this.tiles = tilesOf(service);
    this.direct =
      direct.clients && service.links !== undefined ? this.#directAccess(service.links, direct.pages) : undefined;
  }

  async put(key: string, body: Readable, size: number, options: CommitOptions = {}): Promise<StoredObject> {
    const meter = new Meter(size, size, options.onProgress, options.md5);
    // `pipeline` passes errors of the source and of the meter to the service as a stream error.
    await this.#service.put(
      objects + requireKey(key),
      pipeline(body, meter, () => undefined),
      options,
    );
    return { size, sha256: meter.digest() };
  }

  async stageBlock(
    upload: string,
    blockId: string,
    body: Readable,
    size: number,
    options: CallOptions = {},
  ): Promise<void> {
    const name = blockName(blockId);
    await this.#staged.stage(upload, name, size, options, async () => {
      const meter = new Meter(size, undefined, options.onProgress);
      await this.#service.put(
        stagedFolder(upload) + name,
        pipeline(body, meter, () => undefined),
        options,
      );
      return meter.passed;
    });
  }

  async stagedBlocks(upload: string, options?: CallOptions): Promise<ReadonlyMap<string, number>> {
    return new Map((await this.#blocks(upload, options)).map(({ name, size }) => [blockIdOf(name), size]));
  }

  async readBlock(upload: string, blockId: string, options?: CallOptions): Promise<Readable> {
    return this.#service.get(stagedFolder(upload) + blockName(blockId), undefined, options).catch((error: unknown) => {
      throw error instanceof NoSuchObjectError ? new UnknownBlockError(blockId) : error;
    });
  }

  async commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options: CommitOptions = {},
  ): Promise<StoredObject> {
    const known = await this.stagedBlocks(upload, options);
    const missing = blockIds.find((id) => !known.has(id));
    if (missing !== undefined) throw new UnknownBlockError(missing);
    return this.put(key, Readable.from(this.#joined(upload, blockIds, options), { objectMode: false }), size, options);
  }

  async dropBlocks(upload: string, options: CallOptions = {}): Promise<void> {
    for (const { name } of await this.#blocks(upload, options)) {
      await this.#service.remove(stagedFolder(upload) + name, options);
      options.onProgress?.();
    }
    this.#staged.forget(upload);
  }

  async #blocks(upload: string, options: CallOptions = {}): Promise<StagedBlock[]> {
    const folder = stagedFolder(upload);
    const blocks: StagedBlock[] = [];
    for await (const { name, size, modifiedAt } of this.#service.list(folder, options)) {
      blocks.push({ name: name.slice(folder.length), size, modifiedAt });
      options.onProgress?.();
    }
    return blocks;
  }

  async *#joined(upload: string, blockIds: readonly string[], options: CallOptions): AsyncGenerator<Buffer> {
    for (const id of blockIds)
      for await (const chunk of await this.readBlock(upload, id, options)) yield chunk as Buffer;
  }

  async read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Readable> {
    return this.#service.get(objects + requireKey(key), range, options).catch((error: unknown) => {
      throw error instanceof NoSuchObjectError ? new NoSuchObjectError(key) : error;
    });
  }

  async copyFrom(
    source: BlobStore,
    sourceKey: string,
    key: string,
    size: number,
    options: CallOptions = {},
  ): Promise<StoredObject | undefined> {
    if (!(source instanceof ObjectStore)) return undefined;
    return this.#copy(source.#service, objects + requireKey(sourceKey), key, size, options).catch((error: unknown) => {
      throw error instanceof NoSuchObjectError ? new NoSuchObjectError(sourceKey) : error;
    });
  }

  async #copy(
    from: ObjectService,
    name: string,
    key: string,
    size: number,
    options: CallOptions,
  ): Promise<StoredObject | undefined> {
    const copied = await this.#service.copy(from, name, objects + requireKey(key), size, options);
    if (copied === undefined) return undefined;
    if (copied.sha256 !== undefined) return { size, sha256: copied.sha256 };
    const meter = new Meter(size, size, options.onProgress);
    try {
      await pipelineOf(await this.#service.get(objects + key, undefined, options), meter.resume(), {
        signal: options.signal,
      });
    } catch (error) {
      await this.#service.remove(objects + key);
      throw error;
    }
    return { size, sha256: meter.digest() };
  }

  #directAccess(links: ObjectLinks, pages: boolean): DirectAccess {
    const { write, written, discard } = links;
    const take = async (
      upload: string,
      key: string,
      size: number,
      options: CallOptions = {},
    ): Promise<StoredObject> => {
      const stored = await this.#copy(this.#service, uploads + requireKey(upload), key, size, options);
      if (stored === undefined) throw new Error(`the store '${this.id}' cannot copy within itself`);
      return stored;
    };
    return {
      downloads: links.downloads,
      pages,
      downloadLink: (key, fileName, expires) => links.read(objects + requireKey(key), fileName, new Date(expires)),
      ...(write !== undefined &&
        written !== undefined &&
        discard !== undefined && {
          uploads: {
            link: (upload, expires) => write(uploads + requireKey(upload), new Date(expires)),
            finalize: take,
            async *uploaded(options) {
              for await (const { name, bytes } of written(uploads, options))
                yield { upload: name.slice(uploads.length), bytes };
            },
            drop: (upload, options) => discard(uploads + requireKey(upload), options),
          },
        }),
    };
  }

  async check(options?: CallOptions): Promise<void> {
    await this.#service.check(options);
  }

  async claim(installation: string, options?: CallOptions): Promise<string> {
    const found = await this.#ownerNow(options);
    if (found !== undefined) return found;
    await this.#service.create(owner, Buffer.from(installation), options);
    return (await this.#ownerNow(options)) ?? installation;
  }

  async #ownerNow(options?: CallOptions): Promise<string | undefined> {
    try {
      return await text(await this.#service.get(owner, undefined, options));
    } catch (error) {
      if (error instanceof NoSuchObjectError) return undefined;
      throw error;
    }
  }

  async delete(key: string, options?: CallOptions): Promise<void> {
    await this.#service.remove(objects + requireKey(key), options);
  }

  async *list(options?: CallOptions): AsyncIterable<{ key: string; size: number; modifiedAt: number }> {
    for await (const { name, size, modifiedAt } of this.#service.list(objects, options))
      yield { key: name.slice(objects.length), size, modifiedAt };
  }

  async dropUnfinished(before: number, { isAwaited, ...options }: DropOptions = {}): Promise<void> {
    for (const place of [staged, uploads]) {
      // Blocks of one upload are listed consecutively, so `isAwaited` is called once per upload.
      let asked = { upload: '', awaited: false };
      const failures = new PastFailures(options.signal);
      for await (const { name, modifiedAt } of this.#service.list(place, options)) {
        options.onProgress?.();
        if (modifiedAt >= before) continue;
        const upload = name.slice(place.length).split('/', 1)[0] ?? '';
        if (upload !== asked.upload) asked = { upload, awaited: (await isAwaited?.(upload)) === true };
        if (asked.awaited) continue;
        await failures.pass(() => this.#service.remove(name, options));
        this.#staged.forget(upload);
      }
      failures.end();
    }
  }
}

/**
 * Counts and hashes bytes that pass through. Fails as soon as they exceed the maximum, or at the end on a wrong size or
 * MD5.
 */
class Meter extends Transform {
  /** Bytes so far. Not named `size`, which the S3 client interprets as the length of the whole body. */
  passed = 0;
  readonly #hash = createHash('sha256');
  readonly #most: number;
  readonly #exactly: number | undefined;
  readonly #onProgress: (() => void) | undefined;
  readonly #md5: { expected: string; hash: Hash } | undefined;

  /** @param md5 expected MD5, hex */
  constructor(most: number, exactly: number | undefined, onProgress?: () => void, md5?: string) {
    super();
    this.#most = most;
    this.#exactly = exactly;
    this.#onProgress = onProgress;
    this.#md5 = md5 === undefined ? undefined : { expected: md5, hash: createHash('md5') };
  }

  override _transform(chunk: Buffer, _encoding: string, done: TransformCallback): void {
    this.passed += chunk.length;
    this.#onProgress?.();
    if (this.passed > this.#most) return done(new SizeMismatchError(this.#exactly ?? this.#most));
    this.#hash.update(chunk);
    this.#md5?.hash.update(chunk);
    done(null, chunk);
  }

  override _flush(done: TransformCallback): void {
    if (this.#exactly !== undefined && this.passed !== this.#exactly) return done(new SizeMismatchError(this.#exactly));
    done(
      this.#md5 !== undefined && this.#md5.hash.digest('hex') !== this.#md5.expected
        ? new ChecksumMismatchError()
        : null,
    );
  }

  digest(): string {
    return this.#hash.digest('hex');
  }
}

/**
 * The server chooses all keys and upload ids (random). The check ensures that a bug elsewhere cannot access other
 * objects.
 */
function requireKey(key: string): string {
  if (!/^[0-9a-f-]{8,64}$/.test(key)) throw new Error(`'${key}' is not a key of this store`);
  return key;
}

function stagedFolder(upload: string): string {
  return `${staged}${requireKey(upload)}/`;
}

/** Clients choose block ids (base64). Encoded as hex they are safe names. */
function blockName(blockId: string): string {
  return Buffer.from(blockId).toString('hex');
}

function blockIdOf(name: string): string {
  return Buffer.from(name, 'hex').toString();
}
