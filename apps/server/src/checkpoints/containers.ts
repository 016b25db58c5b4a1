import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { Database } from '../db/database.ts';
import { findChangeset } from '../db/statements/findChangeset.ts';
import type { IModelTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import { readInPieces, type ByteSource } from '../storage/byteSource.ts';
import { databaseName, type Checkpoints } from './checkpoints.ts';
import type { Identity } from './identity.ts';
import { writeManifest } from './manifest.ts';
import { blockBytes, type ModelFile, type ModelFiles } from './modelFiles.ts';

const prefix = 'imodelblocks-';
const manifestName = 'manifest.bcv';
/** Model files whose block lists are kept, which never change: 256 blocks are about 30 KB. */
const keptFiles = 1000;

/** Name of the container of an iModel: iTwin.js tells containers apart by it alone. */
export function containerOf(iModelId: string): string {
  return `${prefix}${iModelId}`;
}

/**
 * One container for each iModel, with every usable checkpoint that it sees as a database. Nothing of it is stored: the
 * manifest is written when it is asked for, and a block is one of the shared ones, with the ids of this iModel over it.
 */
export class Containers {
  readonly #database: Database;
  readonly #checkpoints: Checkpoints;
  readonly #files: ModelFiles;
  readonly #kept = new LRUCache<string, ModelFile>({ max: keptFiles });
  /** Where a block lies in a file that a container shows. Until it is deleted, an iModel never sees less than it did. */
  readonly #places = new LRUCache<string, { fileId: string; position: number }>({ max: 100_000 });

  constructor(database: Database, checkpoints: Checkpoints, files: ModelFiles) {
    this.#database = database;
    this.#checkpoints = checkpoints;
    this.#files = files;
  }

  /** A whole model file for one iModel; undefined when there is no such file or iModel (any more). */
  async file(fileId: string, iModelId: string): Promise<ByteSource | undefined> {
    const imodel = await this.#imodel(iModelId);
    const file = await this.#file(fileId);
    if (imodel === undefined || file === undefined) return undefined;
    const identity = identityOf(imodel);
    return {
      etag: etagOf(fileId, identity),
      size: file.size,
      read: (range) => this.#files.read(file, identity, range),
    };
  }

  /** What a container holds under a name: its manifest, or a block of a checkpoint that its iModel sees. */
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
    const bytes = await this.#files.readBlock(file, place.position, identity);
    // Cloud Backed SQLite reads whole blocks: the last one of a file is filled up.
    const whole = bytes.length === blockBytes ? bytes : Buffer.concat([bytes, Buffer.alloc(blockBytes - bytes.length)]);
    return toByteSource(name.toLowerCase(), whole);
  }

  /** Where a block lies among the checkpoints that an iModel sees: no other block comes out of its container. */
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

  /** One that is not initialized has no container: it may still refer to the files of its source. */
  async #imodel(text: string): Promise<IModelTable | undefined> {
    const id = parseGuid(text);
    if (id === undefined) return undefined;
    return this.#database.db
      .selectFrom('imodel')
      .selectAll()
      .where('id', '=', id)
      .where('deleted_at', 'is', null)
      .where('state', '=', 'initialized')
      .executeTakeFirst();
  }
}

function identityOf(imodel: IModelTable): Identity {
  return { iModelId: imodel.id, iTwinId: imodel.itwin_id };
}

/**
 * Names of a file's blocks in the container of one iModel. A block that holds an id has a name of its own for each iModel:
 * iTwin.js keeps blocks by name alone, whichever container they came from. So the others, which clones share, it fetches
 * once for all of them.
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
    read: (range) => readInPieces(range === undefined ? bytes : bytes.subarray(range.start, range.end + 1)),
  };
}
