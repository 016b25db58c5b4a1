import { createHash } from 'node:crypto';
import { sql } from 'kysely';
import { BoundedCache } from '../boundedCache.ts';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Database } from '../db/database.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import type { IModelTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import type { OpenObject } from '../storage/blobStore.ts';
import type { ByteSource } from '../storage/byteSource.ts';
import { databaseName, type Checkpoints } from './checkpoints.ts';
import type { Identity } from './identity.ts';
import { writeManifest } from './manifest.ts';
import { blockBytes, type ModelFile, type ModelFiles } from './modelFiles.ts';

const prefix = 'imodelblocks-';
const manifestName = 'manifest.bcv';
/** Number of model files whose block lists are cached. The lists never change; 256 blocks take about 30 KB. */
const keptFiles = 1000;

/** Name of the container of an iModel. iTwin.js distinguishes containers by this name alone. */
export function containerOf(iModelId: string): string {
  return `${prefix}${iModelId}`;
}

/**
 * One container for each iModel, with every usable checkpoint that the iModel can see as a database. Containers are not
 * stored: the manifest is generated on request, and a block is a shared block with the ids of this iModel written over
 * it.
 */
export class Containers {
  readonly #database: Database;
  readonly #checkpoints: Checkpoints;
  readonly #files: ModelFiles;
  readonly #kept = new BoundedCache<string, ModelFile>(keptFiles);
  /**
   * Position of each block in its model file. Entries stay valid, because an iModel never loses checkpoints until it is
   * deleted.
   */
  readonly #places = new BoundedCache<string, { fileId: string; position: number }>(100_000);

  constructor(database: Database, checkpoints: Checkpoints, files: ModelFiles) {
    this.#database = database;
    this.#checkpoints = checkpoints;
    this.#files = files;
  }

  /** A whole model file for one iModel; undefined if the file or the iModel does not exist. */
  async file(fileId: string, iModelId: string): Promise<ByteSource | undefined> {
    const imodel = await this.#imodel(iModelId);
    const file = await this.#file(fileId);
    if (imodel === undefined || file === undefined) return undefined;
    const identity = identityOf(imodel);
    return {
      etag: etagOf(fileId, identity),
      size: file.size,
      open: (range) => this.#files.open(file, identity, range),
    };
  }

  /** The object with a name in a container: the manifest, or a block of a checkpoint that the iModel can see. */
  async find(container: string, name: string): Promise<ByteSource | undefined> {
    const imodel = container.startsWith(prefix) ? await this.#imodel(container.slice(prefix.length)) : undefined;
    if (imodel === undefined) return undefined;
    if (name === manifestName) return this.#manifest(imodel);
    const block = /^([0-9A-F]{32})\.bcv$/i.exec(name)?.[1]?.toUpperCase();
    return block === undefined ? undefined : this.#block(imodel, block);
  }

  async #manifest(imodel: IModelTable): Promise<ByteSource> {
    const databases = [];
    for (const { changeset_index: index, file_id } of await this.#checkpoints.usable(imodel)) {
      const id = index === 0 ? '' : (await findChangeset(this.#database.db, imodel, { index }))?.id;
      const file = file_id === null ? undefined : await this.#file(file_id);
      if (id !== undefined && file !== undefined)
        databases.push({ name: databaseName({ index, id }), blockIds: namesFor(file, identityOf(imodel)) });
    }
    const manifest = writeManifest(databases, blockBytes);
    return toByteSource(createHash('sha256').update(manifest).digest('hex').slice(0, 32), manifest);
  }

  async #block(imodel: IModelTable, name: string): Promise<ByteSource | undefined> {
    const place = await this.#place(imodel, name);
    const file = place === undefined ? undefined : await this.#file(place.fileId);
    if (place === undefined || file === undefined) return undefined;
    const identity = identityOf(imodel);
    const start = place.position * blockBytes;
    const length = Math.min(blockBytes, file.size - start);
    return {
      etag: name.toLowerCase(),
      // Cloud Backed SQLite reads whole blocks, so the last block of a file is padded with zeros.
      size: blockBytes,
      open: async (range = { start: 0, end: blockBytes - 1 }) => {
        const stored = { start: start + range.start, end: start + Math.min(range.end, length - 1) };
        const object = await this.#files.open(file, identity, stored);
        const padding = range.end + 1 - Math.max(range.start, length);
        return padding <= 0 ? object : padded(object, padding);
      },
    };
  }

  /** Finds a block among the checkpoints that the iModel can see. Its container serves no other blocks. */
  async #place(imodel: IModelTable, name: string): Promise<{ fileId: string; position: number } | undefined> {
    const key = `${imodel.id}/${name}`;
    const kept = this.#places.get(key);
    if (kept !== undefined) return kept;
    for (const { file_id } of await this.#checkpoints.usable(imodel)) {
      const file = file_id === null ? undefined : await this.#file(file_id);
      if (file !== undefined)
        namesFor(file, identityOf(imodel)).forEach((name, position) =>
          this.#places.set(`${imodel.id}/${name}`, { fileId: file.id, position }),
        );
    }
    return this.#places.get(key);
  }

  async #file(id: string): Promise<ModelFile | undefined> {
    const kept = this.#kept.get(id);
    if (kept !== undefined) return kept;
    const file = await this.#files.find(id);
    if (file !== undefined) this.#kept.set(id, file);
    return file;
  }

  /** An iModel that is not initialized has no container, because it may still refer to the files of its source. */
  async #imodel(text: string): Promise<IModelTable | undefined> {
    const id = parseGuid(text);
    return id === undefined ? undefined : initializedIModel.first(this.#database.db, { id });
  }
}

const initializedIModel = compiledQuery((db, { id }: { id: string }) =>
  db
    .selectFrom('imodel')
    .selectAll()
    .where('id', '=', id)
    .where('deleted_at', 'is', null)
    .where('state', '=', sql.lit('initialized')),
);

function identityOf(imodel: IModelTable): Identity {
  return { iModelId: imodel.id, iTwinId: imodel.itwin_id };
}

/**
 * Names of a file's blocks in the container of one iModel. iTwin.js caches blocks by name, regardless of their
 * container. A block that contains an id therefore has a different name for each iModel, while the other blocks have
 * the same names for all clones and are fetched once.
 */
function namesFor(file: ModelFile, identity: Identity): string[] {
  const own = new Set(
    [file.iModelIdOffset, file.iModelIdOffset + 15, file.iTwinIdOffset, file.iTwinIdOffset + 15].map((offset) =>
      Math.floor(offset / blockBytes),
    ),
  );
  return file.blocks.map(({ id }, position) => (own.has(position) ? etagOf(id, identity).toUpperCase() : id));
}

function etagOf(what: string, { iModelId, iTwinId }: Identity): string {
  return createHash('sha256').update(`${what}/${iModelId}/${iTwinId}`).digest('hex').slice(0, 32);
}

function toByteSource(etag: string, bytes: Buffer): ByteSource {
  return {
    etag,
    size: bytes.length,
    open: (range = { start: 0, end: bytes.length - 1 }) =>
      Promise.resolve({
        pour: (sink) => sink(bytes.subarray(range.start, range.end + 1)),
        close: () => Promise.resolve(),
      }),
  };
}

/** An object with zeros after its bytes. */
function padded(object: OpenObject, zeros: number): OpenObject {
  return {
    pour: async (sink) => {
      await object.pour(sink);
      await sink(Buffer.alloc(zeros));
    },
    close: () => object.close(),
  };
}
