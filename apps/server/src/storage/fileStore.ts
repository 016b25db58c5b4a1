import { hash, randomUUID } from 'node:crypto';
import { open, readdir, readFile, rename, rm, stat, type FileHandle } from 'node:fs/promises';
import path from 'node:path';
import { Readable } from 'node:stream';
import {
  ChecksumMismatchError,
  NoSuchObjectError,
  SizeMismatchError,
  UnknownBlockError,
  type BlobStore,
  type ByteRange,
  type CallOptions,
  type CommitOptions,
  type CopyOptions,
  type DropOptions,
  type OpenObject,
  type PutOptions,
  type StoredObject,
} from './blobStore.ts';
import { CheckedWriter } from './checkedWriter.ts';
import type { DiskSpace } from './diskSpace.ts';
import { OpenFile } from './openFile.ts';
import { createFileDurably, makeFolder, syncFolder } from './durable.ts';
import { FileThread } from './fileThread.ts';
import type { HashName, PieceReply, PieceRequest } from './pieceThread.ts';
import type { WholeFile, WholeFileReply } from './wholeFileThread.ts';
import { StagedBlocks, type StagedBlock } from './stagedBlocks.ts';

/** Files up to this size are copied as a whole, in memory; so at most 16 times this, with the usual limit of a transfer. */
const mostCopiedAtOnce = 4 * 2 ** 20;
/** Files up to this size are written as a whole by a thread of their own. Larger ones are written while they arrive. */
const mostWrittenAtOnce = 2 ** 20;

/**
 * Files in one folder: `objects/ab/cd…` by key, `unfinished/` for running uploads, `owner` for the installation they
 * belong to. An object is written to a temporary file, synced and renamed. A key therefore never holds a partial file,
 * and survives a power cut once `put` has returned.
 */
export class FileStore implements BlobStore {
  readonly id: string;
  readonly #objects: string;
  readonly #unfinished: string;
  readonly #owner: string;
  /**
   * Names in `unfinished/` that this process is writing. The file of a slow upload may be unmodified for a long time.
   */
  readonly #writing = new Set<string>();
  readonly #staged = new StagedBlocks({
    list: (upload) => blocksIn(this.#uploadFolder(upload)),
    remove: (upload, name) => rm(path.join(this.#uploadFolder(upload), name), { force: true }),
  });
  readonly #space: DiskSpace | undefined;
  readonly #wholeFiles = new FileThread<WholeFile, WholeFileReply>('wholeFileThread');
  readonly #pieces = new FileThread<PieceRequest, PieceReply>('pieceThread');

  private constructor(id: string, root: string, space: DiskSpace | undefined) {
    this.id = id;
    this.#space = space;
    this.#objects = path.join(root, 'objects');
    this.#unfinished = path.join(root, 'unfinished');
    this.#owner = path.join(root, 'owner');
  }

  /**
   * @param space refuses new files if too little space would be left; if absent, files are accepted until the disk is
   * full
   */
  static async open(id: string, root: string, space?: DiskSpace): Promise<FileStore> {
    const store = new FileStore(id, root, space);
    await makeFolder(store.#objects);
    await makeFolder(store.#unfinished);
    return store;
  }

  async put(key: string, body: Readable, size: number, options: PutOptions = {}): Promise<StoredObject> {
    if (size > 0 && size <= mostWrittenAtOnce) return this.#putWhole(key, body, size, options);
    return this.#write(key, size, options, (writer) => writer.writeAll(body), options.takesChunks);
  }

  async stageBlock(
    upload: string,
    blockId: string,
    body: Readable,
    size: number,
    options: PutOptions = {},
  ): Promise<void> {
    await this.#space?.require();
    const name = blockName(blockId);
    await this.#staged.stage(upload, name, size, options, async () => {
      const target = path.join(this.#uploadFolder(upload), name);
      return this.#writeDurably(target, async (file) => {
        const writer = this.#writer(file, size, [], options, options.takesChunks);
        try {
          await writer.writeAll(body);
        } finally {
          writer.close();
        }
        // The client will not send the block again after the answer, so it must be durable, and its name too.
        await file.datasync();
        return writer.size;
      });
    });
  }

  async stagedBlocks(upload: string): Promise<ReadonlyMap<string, number>> {
    return new Map((await blocksIn(this.#uploadFolder(upload))).map(({ name, size }) => [blockIdOf(name), size]));
  }

  async readBlock(upload: string, blockId: string, { signal }: CallOptions = {}): Promise<Readable> {
    try {
      const file = await open(path.join(this.#uploadFolder(upload), blockName(blockId)), 'r');
      if (signal?.aborted === true) await file.close();
      signal?.throwIfAborted();
      return file.createReadStream({ highWaterMark: 1 << 20 });
    } catch (error) {
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? new UnknownBlockError(blockId) : error;
    }
  }

  async commitBlocks(
    upload: string,
    key: string,
    blockIds: readonly string[],
    size: number,
    options: CommitOptions = {},
  ): Promise<StoredObject> {
    const fill = async (writer: CheckedWriter): Promise<void> => {
      for (const blockId of blockIds) await writer.writeAll(await this.readBlock(upload, blockId, options));
    };
    return this.#write(key, size, options, fill, true);
  }

  async dropBlocks(upload: string): Promise<void> {
    await rm(this.#uploadFolder(upload), { recursive: true, force: true });
    this.#staged.forget(upload);
  }

  async read(key: string, range?: ByteRange, options: CallOptions = {}): Promise<Readable> {
    return (await this.#open(key, options)).createReadStream({ ...range, highWaterMark: 1 << 18 });
  }

  async openObject(key: string, range?: ByteRange, options: CallOptions = {}): Promise<OpenObject> {
    return new OpenFile(await this.#open(key, options), range);
  }

  async #open(key: string, { signal }: CallOptions): Promise<FileHandle> {
    try {
      const file = await open(this.#path(key), 'r');
      if (signal?.aborted === true) await file.close();
      signal?.throwIfAborted();
      return file;
    } catch (error) {
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? new NoSuchObjectError(key) : error;
    }
  }

  /**
   * Copies a small file of another folder in few calls: with a stream, 10,000 files of 100 kB take twice the time. Larger
   * files are left to `put`.
   */
  async copyFrom(
    source: BlobStore,
    sourceKey: string,
    key: string,
    size: number,
    options: CopyOptions = {},
  ): Promise<StoredObject | undefined> {
    if (!(source instanceof FileStore) || size > mostCopiedAtOnce) return undefined;
    await this.#space?.require(size);
    const bytes = await source.#content(sourceKey, size);
    options.signal?.throwIfAborted();
    await this.#writeAside(this.#path(key), async (file) => {
      await file.writeFile(bytes);
      options.signal?.throwIfAborted();
      await file.sync();
    });
    if (options.settledLater !== true) await this.settle([key]);
    return { size, sha256: hash('sha256', bytes, 'hex') };
  }

  /** Syncs each folder once. The files were synced before they were renamed. */
  async settle(keys: readonly string[]): Promise<void> {
    const folders = new Set(keys.map((key) => path.dirname(this.#path(key))));
    await Promise.all([...folders].map(syncFolder));
  }

  /** @throws NoSuchObjectError; SizeMismatchError */
  async #content(key: string, size: number): Promise<Buffer> {
    let file: FileHandle;
    try {
      file = await open(this.#path(key), 'r');
    } catch (error) {
      throw (error as NodeJS.ErrnoException).code === 'ENOENT' ? new NoSuchObjectError(key) : error;
    }
    try {
      // One byte more than expected, which a file that is too long fills.
      const buffer = Buffer.allocUnsafe(size + 1);
      let length = 0;
      for (let read = -1; read !== 0 && length < size; length += read)
        ({ bytesRead: read } = await file.read(buffer, length, size + 1 - length, length));
      if (length !== size) throw new SizeMismatchError(size);
      return buffer.subarray(0, size);
    } finally {
      await file.close();
    }
  }

  async check(): Promise<void> {
    await stat(this.#objects);
    await this.#space?.require();
  }

  async claim(installation: string): Promise<string> {
    const read = () =>
      readFile(this.#owner, 'utf8').catch((error: unknown) => {
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
      });
    const found = await read();
    if (found !== undefined) return found;
    createFileDurably(this.#owner, installation);
    return (await read()) ?? installation;
  }

  async delete(key: string): Promise<void> {
    await rm(this.#path(key), { force: true });
  }

  async *list({ signal }: CallOptions = {}): AsyncIterable<{ key: string; size: number; modifiedAt: number }> {
    for (const shardFolder of await readdir(this.#objects)) {
      for (const key of await readdir(path.join(this.#objects, shardFolder))) {
        signal?.throwIfAborted();
        const found = await stat(path.join(this.#objects, shardFolder, key)).catch(() => undefined);
        if (found !== undefined) yield { key, size: found.size, modifiedAt: found.mtimeMs };
      }
    }
  }

  async dropUnfinished(before: number, { signal, onProgress, isAwaited }: DropOptions = {}): Promise<void> {
    for (const name of await readdir(this.#unfinished)) {
      signal?.throwIfAborted();
      onProgress?.();
      if (this.#writing.has(name)) continue;
      const found = path.join(this.#unfinished, name);
      const about = await stat(found).catch(() => undefined);
      if (about === undefined || about.mtimeMs >= before) continue;
      // Folders contain staged blocks; files are left over from writes that a crash interrupted.
      if (about.isDirectory() && (await isAwaited?.(name)) === true) continue;
      await rm(found, { recursive: true, force: true });
      this.#staged.forget(name);
    }
  }

  async #write(
    key: string,
    size: number,
    options: CommitOptions,
    fill: (writer: CheckedWriter) => Promise<void>,
    takesChunks = false,
  ): Promise<StoredObject> {
    await this.#space?.require(size);
    const target = this.#path(key);
    return this.#writeDurably(target, async (file) => {
      const hashes = options.md5 === undefined ? (['sha256'] as const) : (['sha256', 'md5'] as const);
      const writer = this.#writer(file, size, hashes, options, takesChunks);
      try {
        await fill(writer);
        if (writer.size !== size) throw new SizeMismatchError(size);
        const { sha256 = '', md5 } = await writer.digests();
        if (md5 !== options.md5) throw new ChecksumMismatchError();
        options.signal?.throwIfAborted();
        await file.sync();
        return { size, sha256 };
      } finally {
        writer.close();
      }
    });
  }

  #writer(
    file: FileHandle,
    declared: number,
    hashes: readonly HashName[],
    options: CallOptions,
    takesChunks: boolean | undefined,
  ): CheckedWriter {
    // For a small file a message is no gain.
    const thread = takesChunks === true && declared > mostWrittenAtOnce ? this.#pieces : undefined;
    return new CheckedWriter(file, { ...options, declared, hashes, space: this.#space, thread });
  }

  /** Stores a small file. A thread that hangs on a disk delays no other file, because those are then written by the pool. */
  async #putWhole(key: string, body: Readable, size: number, options: CallOptions): Promise<StoredObject> {
    const target = this.#path(key);
    await this.#space?.require(size);
    const bytes = await wholeBody(body, size, options);
    // While the thread writes another file, the pool can write this one at the same time.
    if (this.#wholeFiles.isBusy)
      return this.#write(key, size, options, (writer) => writer.writeAll(Readable.from([Buffer.from(bytes.buffer)])));
    const name = randomUUID();
    this.#writing.add(name);
    try {
      const file = { bytes, aside: path.join(this.#unfinished, name), target };
      const { sha256 } = await this.#wholeFiles.ask(file, [bytes.buffer]);
      return { size, sha256 };
    } finally {
      this.#writing.delete(name);
    }
  }

  /** Writes a new file, and syncs its folder, which is opened while the file is written. @param write must sync the file */
  async #writeDurably<T>(target: string, write: (file: FileHandle) => Promise<T>): Promise<T> {
    const folder = path.dirname(target);
    // A folder that is missing is made when the file is moved into it.
    const opening = open(folder, 'r').catch(() => undefined);
    try {
      const { written, madeFolder } = await this.#writeAside(target, write);
      const opened = await opening;
      if (opened === undefined || madeFolder) await syncFolder(folder);
      else await opened.sync();
      return written;
    } finally {
      // Nothing needs to wait for it.
      opening.then((opened) => opened?.close()).catch(() => undefined);
    }
  }

  /**
   * Writes a new file in `unfinished/` and renames it to `target` when it is complete. Deletes it if writing fails.
   * @returns also whether the folder of `target` was made
   */
  async #writeAside<T>(
    target: string,
    write: (file: FileHandle) => Promise<T>,
  ): Promise<{ written: T; madeFolder: boolean }> {
    const name = randomUUID();
    const aside = path.join(this.#unfinished, name);
    this.#writing.add(name);
    let file: FileHandle | undefined;
    try {
      file = await open(aside, 'wx', 0o600);
      const written = await write(file);
      // The file is synced, so that closing it can wait for the same turn of the thread pool as the rename.
      const [madeFolder] = await Promise.all([renameInto(aside, target), file.close()]);
      return { written, madeFolder };
    } catch (error) {
      await file?.close().catch(() => undefined);
      await rm(aside, { force: true });
      throw error;
    } finally {
      this.#writing.delete(name);
    }
  }

  #path(key: string): string {
    // The server chooses all keys (random ids). The check ensures that a bug elsewhere cannot access files outside the
    // folder.
    if (!/^[0-9a-f-]{8,64}$/.test(key)) throw new Error(`'${key}' is not a key of this store`);
    return path.join(this.#objects, key.slice(0, 2), key);
  }

  #uploadFolder(upload: string): string {
    if (!/^[0-9a-f-]{8,64}$/.test(upload)) throw new Error(`'${upload}' is not an upload of this store`);
    return path.join(this.#unfinished, upload);
  }
}

/** @throws SizeMismatchError; errors of the body */
async function wholeBody(body: Readable, size: number, { signal }: CallOptions): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(size);
  let length = 0;
  for await (const chunk of body) {
    signal?.throwIfAborted();
    const received = chunk as Buffer;
    if (length + received.length > size) throw new SizeMismatchError(size);
    bytes.set(received, length);
    length += received.length;
  }
  signal?.throwIfAborted();
  if (length !== size) throw new SizeMismatchError(size);
  return bytes;
}

/** Renames a file, and makes the target folder if it does not exist. @returns whether it was made */
async function renameInto(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return false;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    await makeFolder(path.dirname(to));
    await rename(from, to);
    return true;
  }
}

async function blocksIn(folder: string): Promise<StagedBlock[]> {
  const blocks: StagedBlock[] = [];
  for (const name of await readdir(folder).catch(() => [])) {
    // The block may be replaced or dropped concurrently.
    const about = await stat(path.join(folder, name)).catch(() => undefined);
    if (about !== undefined) blocks.push({ name, size: about.size, modifiedAt: about.mtimeMs });
  }
  return blocks;
}

/** Clients choose block ids (base64). Encoded as hex they are safe file names. */
function blockName(blockId: string): string {
  return Buffer.from(blockId).toString('hex');
}

function blockIdOf(name: string): string {
  return Buffer.from(name, 'hex').toString();
}
