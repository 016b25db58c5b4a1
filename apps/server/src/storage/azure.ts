import { randomBytes } from 'node:crypto';
import type { Readable } from 'node:stream';
import {
  BlobSASPermissions,
  BlobServiceClient,
  StorageSharedKeyCredential,
  type BlockBlobClient,
  type ContainerClient,
  type RestError,
} from '@azure/storage-blob';
import {
  NoSuchObjectError,
  SizeMismatchError,
  UnreadableObjectError,
  type ByteRange,
  type CallOptions,
} from './blobStore.ts';
import type { ListedObject, ObjectLinks, ObjectService, WrittenObject } from './objectStore.ts';

/** Where a container is and who may use it. */
export interface AzureSettings {
  /** As the portal gives it, with the key of the account. */
  connectionString: string;
  container: string;
  /** Put before every name. */
  prefix: string;
}

/** Blocks of large objects, bytes: two in memory for each upload. */
const blockBytes = 8 * 1024 * 1024;
/** How often a copy that the service makes is looked after, and how long the address of its source is good. */
const copyPollMs = 200;
const copyLinkMs = 6 * 3_600_000;

/** Objects in one container of Azure Blob Storage. */
export class AzureService implements ObjectService {
  /** Shared access signatures: clients go straight to the account. Undefined where the connection string has no key of it. */
  readonly links: ObjectLinks | undefined;
  readonly #container: ContainerClient;
  readonly #prefix: string;

  private constructor(container: ContainerClient, prefix: string) {
    this.#container = container;
    this.#prefix = prefix;
    if (container.credential instanceof StorageSharedKeyCredential)
      this.links = {
        downloads: 'link',
        read: (name, fileName, expiresOn) => this.#readLink(name, fileName, expiresOn),
        // The least that blocks need. It lets its holder take leases, make snapshots and choose a tier as well, which Azure has no permission for.
        write: (name, expiresOn) =>
          this.#blob(name).generateSasUrl({ permissions: BlobSASPermissions.from({ write: true }), expiresOn }),
        written: (prefix, options) => this.#written(prefix, options),
        discard: (name, options) => this.#discard(name, options),
      };
  }

  /** Makes the container if it is not there. @throws what the service says when it cannot be used */
  static async open(
    { connectionString, container, prefix }: AzureSettings,
    options?: CallOptions,
  ): Promise<AzureService> {
    const client = BlobServiceClient.fromConnectionString(connectionString).getContainerClient(container);
    await client.createIfNotExists(ending(options));
    return new AzureService(client, prefix);
  }

  async check(options?: CallOptions): Promise<void> {
    await this.#container.getProperties(ending(options));
  }

  async put(name: string, body: Readable, options?: CallOptions): Promise<void> {
    await this.#blob(name).uploadStream(body, blockBytes, 2, {
      ...ending(options),
      onProgress: () => options?.onProgress?.(),
    });
  }

  async create(name: string, content: Buffer, options?: CallOptions): Promise<void> {
    try {
      // In one request: of two that are put in blocks at once, the first to end discards the blocks of the other.
      await this.#blob(name).upload(content, content.length, { ...ending(options), conditions: { ifNoneMatch: '*' } });
    } catch (error) {
      const { statusCode } = error as RestError;
      if (statusCode !== 409 && statusCode !== 412) throw error;
    }
  }

  async get(name: string, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    try {
      const [offset, count] = range === undefined ? [0, undefined] : [range.start, range.end - range.start + 1];
      const { readableStreamBody } = await this.#blob(name).download(offset, count, ending(options));
      return readableStreamBody as Readable;
    } catch (error) {
      throw orMissing(error, name);
    }
  }

  async remove(name: string, options?: CallOptions): Promise<void> {
    await this.#unleased(name, options, () =>
      this.#blob(name).deleteIfExists({ ...ending(options), deleteSnapshots: 'include' }),
    );
  }

  /** Blocks that were not put together are no blob that can be deleted: an empty one takes their place. An archived one has to go before. */
  async #discard(name: string, options?: CallOptions): Promise<void> {
    await this.remove(name, options);
    await this.#unleased(name, options, () => this.#blob(name).upload('', 0, ending(options)));
    await this.remove(name, options);
  }

  /** Does what a lease keeps from being done: whoever may write a blob may also take a lease that never ends. */
  async #unleased(name: string, options: CallOptions | undefined, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if ((error as RestError).statusCode !== 412) throw error;
      await this.#blob(name).getBlobLeaseClient().breakLease(0, ending(options));
      await work();
    }
  }

  async *#written(prefix: string, options: CallOptions = {}): AsyncIterable<WrittenObject> {
    let last: WrittenObject | undefined;
    // Snapshots come right beside what they are of.
    for await (const { name, properties } of this.#container.listBlobsFlat({
      prefix: this.#prefix + prefix,
      includeSnapshots: true,
      includeUncommitedBlobs: true,
      ...ending(options),
    })) {
      options.onProgress?.();
      const own = name.slice(this.#prefix.length);
      if (last !== undefined && last.name !== own)
        yield { name: last.name, bytes: last.bytes + (await this.#uncommittedBytes(last.name, options)) };
      last = { name: own, bytes: (last?.name === own ? last.bytes : 0) + (properties.contentLength ?? 0) };
    }
    if (last !== undefined)
      yield { name: last.name, bytes: last.bytes + (await this.#uncommittedBytes(last.name, options)) };
  }

  async #uncommittedBytes(name: string, options: CallOptions): Promise<number> {
    try {
      const { uncommittedBlocks = [] } = await this.#blob(name).getBlockList('uncommitted', ending(options));
      return uncommittedBlocks.reduce((sum, { size }) => sum + size, 0);
    } catch (error) {
      // It is gone, or of a kind that has no blocks.
      if ([400, 404, 409].includes((error as RestError).statusCode ?? 0)) return 0;
      throw error;
    }
  }

  async copy(
    source: ObjectService,
    sourceName: string,
    name: string,
    size: number,
    options?: CallOptions,
  ): Promise<{ sha256?: string } | undefined> {
    if (!(source instanceof AzureService)) return undefined;
    const from = source.#blob(sourceName);
    try {
      const { contentLength, etag, blobType, accessTier, accessTierInferred } = await from.getProperties(
        ending(options),
      );
      if (blobType !== 'BlockBlob' || accessTier === 'Archive') throw new UnreadableObjectError(sourceName);
      if (contentLength !== size) throw new SizeMismatchError(size);
      // The own account needs no signature, another one does.
      const address =
        from.accountName === this.#container.accountName
          ? from.url
          : await source.links?.read(sourceName, '', new Date(Date.now() + copyLinkMs));
      if (address === undefined) return undefined;
      // If it is written anew meanwhile, the size may be another.
      const copying = await this.#blob(name).beginCopyFromURL(address, {
        ...ending(options),
        intervalInMs: copyPollMs,
        // Whoever uploaded it may have chosen another tier than the account's own.
        ...(accessTierInferred !== true && accessTier !== undefined && { tier: 'Hot' }),
        sourceConditions: { ...(etag !== undefined && { ifMatch: etag }) },
        // Each answer about the copy is progress: the account works on it and says so.
        onProgress: () => options?.onProgress?.(),
      });
      const { copyStatus } = await copying.pollUntilDone();
      if (copyStatus !== 'success') throw new Error(`the service ended a copy as ${copyStatus ?? 'unknown'}`);
      return {};
    } catch (error) {
      // Such as one that is encrypted with a key of the client's.
      throw (error as RestError).statusCode === 409
        ? new UnreadableObjectError(sourceName, error)
        : orMissing(error, sourceName);
    }
  }

  /** Rule of the API: the address of a changeset contains its id, and each is a new one. Both stand in the signed name of the download. */
  #readLink(name: string, fileName: string, expiresOn: Date): Promise<string> {
    return this.#blob(name).generateSasUrl({
      permissions: BlobSASPermissions.from({ read: true }),
      expiresOn,
      // Whatever an upload claimed to be.
      contentType: 'application/octet-stream',
      contentDisposition: `attachment; filename="${fileName}"; nonce=${randomBytes(9).toString('base64url')}`,
    });
  }

  #blob(name: string): BlockBlobClient {
    return this.#container.getBlockBlobClient(this.#prefix + name);
  }

  async *list(prefix: string, options?: CallOptions): AsyncIterable<ListedObject> {
    for await (const { name, properties } of this.#container.listBlobsFlat({
      prefix: this.#prefix + prefix,
      ...ending(options),
    }))
      yield {
        name: name.slice(this.#prefix.length),
        size: properties.contentLength ?? 0,
        modifiedAt: properties.lastModified.getTime(),
      };
  }
}

/** The client's way to say when a request ends. */
const ending = (options: CallOptions | undefined): { abortSignal?: AbortSignal } =>
  options?.signal === undefined ? {} : { abortSignal: options.signal };

/** 404, and 412: what a client is just writing anew is not there yet. */
function orMissing(error: unknown, name: string): unknown {
  const { statusCode } = error as RestError;
  return statusCode === 404 || statusCode === 412 ? new NoSuchObjectError(name) : error;
}
