import type { Readable } from 'node:stream';
import type {
  BlobStore,
  ByteRange,
  CallOptions,
  CommitOptions,
  CopyOptions,
  DirectAccess,
  DropOptions,
  PutOptions,
  StoredObject,
  TileObjects,
} from './blobStore.ts';
import { traced } from '../traces/traces.ts';

/** A store whose calls are recorded as spans. Keys are not recorded. */
export class TracedStore implements BlobStore {
  readonly id: string;
  readonly direct: DirectAccess | undefined;
  readonly tiles: TileObjects | undefined;
  readonly openObject?: NonNullable<BlobStore['openObject']>;
  readonly #store: BlobStore;

  constructor(store: BlobStore) {
    this.id = store.id;
    this.#store = store;
    const openObject = store.openObject?.bind(store);
    // The span ends when the object is open, as for `read`.
    if (openObject !== undefined)
      this.openObject = (key, range, options) => this.#span('store.read', {}, () => openObject(key, range, options));
    const { direct, tiles } = store;
    this.tiles = tiles && {
      ...tiles,
      read: (content, name, options) => this.#span('store.readTile', {}, () => tiles.read(content, name, options)),
      put: (content, name, bytes, options) =>
        this.#span('store.putTile', { 'offshoot.bytes': bytes.length }, () => tiles.put(content, name, bytes, options)),
    };
    const uploads = direct?.uploads;
    this.direct =
      direct === undefined || uploads === undefined
        ? direct
        : {
            ...direct,
            uploads: {
              ...uploads,
              finalize: (upload, key, size, options) =>
                this.#span('store.finalize', { 'offshoot.bytes': size }, () =>
                  uploads.finalize(upload, key, size, options),
                ),
            },
          };
  }

  put(key: string, body: Readable, size: number, options?: PutOptions): Promise<StoredObject> {
    return this.#span('store.put', { 'offshoot.bytes': size }, () => this.#store.put(key, body, size, options));
  }

  stageBlock(upload: string, blockId: string, body: Readable, size: number, options?: PutOptions): Promise<void> {
    return this.#span('store.stageBlock', {}, () => this.#store.stageBlock(upload, blockId, body, size, options));
  }

  stagedBlocks(upload: string, options?: CallOptions): Promise<ReadonlyMap<string, number>> {
    return this.#span('store.stagedBlocks', {}, () => this.#store.stagedBlocks(upload, options));
  }

  readBlock(upload: string, blockId: string, options?: CallOptions): Promise<Readable> {
    return this.#span('store.readBlock', {}, () => this.#store.readBlock(upload, blockId, options));
  }

  commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options?: CommitOptions,
  ): Promise<StoredObject> {
    return this.#span('store.commitBlocks', { 'offshoot.bytes': size }, () =>
      this.#store.commitBlocks(upload, key, blockIds, size, options),
    );
  }

  dropBlocks(upload: string, options?: CallOptions): Promise<void> {
    return this.#span('store.dropBlocks', {}, () => this.#store.dropBlocks(upload, options));
  }

  /** The span ends when the stream opens, not when it ends. */
  read(key: string, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    return this.#span('store.read', {}, () => this.#store.read(key, range, options));
  }

  async copyFrom(
    source: BlobStore,
    sourceKey: string,
    key: string,
    size: number,
    options?: CopyOptions,
  ): Promise<StoredObject | undefined> {
    const from = source instanceof TracedStore ? source.#store : source;
    return this.#span('store.copyFrom', { 'offshoot.bytes': size }, async () =>
      this.#store.copyFrom?.(from, sourceKey, key, size, options),
    );
  }

  async settle(keys: readonly string[], options?: CallOptions): Promise<void> {
    await this.#store.settle?.(keys, options);
  }

  check(options?: CallOptions): Promise<void> {
    return this.#store.check(options);
  }

  claim(installation: string, options?: CallOptions): Promise<string> {
    return this.#store.claim(installation, options);
  }

  delete(key: string, options?: CallOptions): Promise<void> {
    return this.#span('store.delete', {}, () => this.#store.delete(key, options));
  }

  list(options?: CallOptions): AsyncIterable<{ key: string; size: number; modifiedAt: number }> {
    return this.#store.list(options);
  }

  dropUnfinished(before: number, options?: DropOptions): Promise<void> {
    return this.#store.dropUnfinished(before, options);
  }

  #span<T>(name: string, attributes: Record<string, number>, work: () => Promise<T>): Promise<T> {
    return traced(name, { 'offshoot.store': this.id, ...attributes }, work, { kind: 'CLIENT' });
  }
}
