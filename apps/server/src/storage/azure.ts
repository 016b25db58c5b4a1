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

/** Address and credentials of a container. */
export interface AzureSettings {
  /** Connection string from the Azure portal, including the key of the account. */
  connectionString: string;
  container: string;
  /** Prefix of every blob name. */
  prefix: string;
}

/** Block size for large objects, bytes. Each upload keeps two blocks in memory. */
const blockBytes = 8 * 1024 * 1024;
/** Poll interval of a copy within the service, and lifetime of the signed address of its source, milliseconds. */
const copyPollMs = 200;
const copyLinkMs = 6 * 3_600_000;

/** Objects in one container of Azure Blob Storage. */
export class AzureService implements ObjectService {
  /**
   * Shared access signatures, with which clients access the account directly. Undefined if the connection string has no
   * account key.
   */
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
        // The minimum permission for uploading blocks. It also allows leases, snapshots and changing the tier, because
        // Azure has no narrower permission.
        write: (name, expiresOn) =>
          this.#blob(name).generateSasUrl({ permissions: BlobSASPermissions.from({ write: true }), expiresOn }),
        written: (prefix, options) => this.#written(prefix, options),
        discard: (name, options) => this.#discard(name, options),
      };
  }

  /** Opens the container and creates it if it does not exist. @throws RestError if it cannot be used */
  static async open(
    { connectionString, container, prefix }: AzureSettings,
    options?: CallOptions,
  ): Promise<AzureService> {
    const client = BlobServiceClient.fromConnectionString(connectionString).getContainerClient(container);
    await client.createIfNotExists(abortOptions(options));
    return new AzureService(client, prefix);
  }

  async check(options?: CallOptions): Promise<void> {
    await this.#container.getProperties(abortOptions(options));
  }

  async put(name: string, body: Readable, options?: CallOptions): Promise<void> {
    await this.#blob(name).uploadStream(body, blockBytes, 2, {
      ...abortOptions(options),
      onProgress: () => options?.onProgress?.(),
    });
  }

  async create(name: string, content: Buffer, options?: CallOptions): Promise<void> {
    try {
      // In one request, because of two concurrent uploads in blocks, the first to finish would discard the blocks of
      // the other.
      await this.#blob(name).upload(content, content.length, {
        ...abortOptions(options),
        conditions: { ifNoneMatch: '*' },
      });
    } catch (error) {
      const { statusCode } = error as RestError;
      if (statusCode !== 409 && statusCode !== 412) throw error;
    }
  }

  async replace(name: string, content: Buffer, options?: CallOptions): Promise<void> {
    await this.#blob(name).upload(content, content.length, abortOptions(options));
  }

  async get(name: string, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    try {
      const [offset, count] = range === undefined ? [0, undefined] : [range.start, range.end - range.start + 1];
      const { readableStreamBody } = await this.#blob(name).download(offset, count, abortOptions(options));
      return readableStreamBody as Readable;
    } catch (error) {
      throw toNoSuchObject(error, name);
    }
  }

  async remove(name: string, options?: CallOptions): Promise<void> {
    await this.#unleased(name, options, () =>
      this.#blob(name).deleteIfExists({ ...abortOptions(options), deleteSnapshots: 'include' }),
    );
  }

  /**
   * Uncommitted blocks are not a blob that can be deleted, so an empty blob replaces them first. An archived blob
   * cannot be overwritten and is removed before that.
   */
  async #discard(name: string, options?: CallOptions): Promise<void> {
    await this.remove(name, options);
    await this.#unleased(name, options, () => this.#blob(name).upload('', 0, abortOptions(options)));
    await this.remove(name, options);
  }

  /** Breaks the lease if one prevents the work: anyone who may write a blob may also take an infinite lease. */
  async #unleased(name: string, options: CallOptions | undefined, work: () => Promise<unknown>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if ((error as RestError).statusCode !== 412) throw error;
      await this.#blob(name).getBlobLeaseClient().breakLease(0, abortOptions(options));
      await work();
    }
  }

  async *#written(prefix: string, options: CallOptions = {}): AsyncIterable<WrittenObject> {
    let last: WrittenObject | undefined;
    // Snapshots are listed next to their blob.
    for await (const { name, properties } of this.#container.listBlobsFlat({
      prefix: this.#prefix + prefix,
      includeSnapshots: true,
      includeUncommitedBlobs: true,
      ...abortOptions(options),
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
      const { uncommittedBlocks = [] } = await this.#blob(name).getBlockList('uncommitted', abortOptions(options));
      return uncommittedBlocks.reduce((sum, { size }) => sum + size, 0);
    } catch (error) {
      // The blob was removed, or is of a type without blocks.
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
        abortOptions(options),
      );
      if (blobType !== 'BlockBlob' || accessTier === 'Archive') throw new UnreadableObjectError(sourceName);
      if (contentLength !== size) throw new SizeMismatchError(size);
      // A source in the same account needs no signature.
      const address =
        from.accountName === this.#container.accountName
          ? from.url
          : await source.links?.read(sourceName, '', new Date(Date.now() + copyLinkMs));
      if (address === undefined) return undefined;
      // The condition on the ETag ensures that the size checked above is that of the copy.
      const copying = await this.#blob(name).beginCopyFromURL(address, {
        ...abortOptions(options),
        intervalInMs: copyPollMs,
        // The client may have uploaded it with another tier than the account's default.
        ...(accessTierInferred !== true && accessTier !== undefined && { tier: 'Hot' }),
        sourceConditions: { ...(etag !== undefined && { ifMatch: etag }) },
        // Each poll answer counts as progress.
        onProgress: () => options?.onProgress?.(),
      });
      const { copyStatus } = await copying.pollUntilDone();
      if (copyStatus !== 'success') throw new Error(`the service ended a copy as ${copyStatus ?? 'unknown'}`);
      return {};
    } catch (error) {
      // For example a blob encrypted with a key of the client.
      throw (error as RestError).statusCode === 409
        ? new UnreadableObjectError(sourceName, error)
        : toNoSuchObject(error, sourceName);
    }
  }

  /**
   * Rule of the API: the address of a changeset contains its id, and every address is unique. The signed
   * `Content-Disposition` contains both.
   */
  #readLink(name: string, fileName: string, expiresOn: Date): Promise<string> {
    return this.#blob(name).generateSasUrl({
      permissions: BlobSASPermissions.from({ read: true }),
      expiresOn,
      // Regardless of the content type set by the upload.
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
      ...abortOptions(options),
    }))
      yield {
        name: name.slice(this.#prefix.length),
        size: properties.contentLength ?? 0,
        modifiedAt: properties.lastModified.getTime(),
      };
  }

  async *folders(prefix: string, options?: CallOptions): AsyncIterable<string> {
    const own = this.#prefix + prefix;
    for await (const item of this.#container.listBlobsByHierarchy('/', { prefix: own, ...abortOptions(options) }))
      if (item.kind === 'prefix') yield item.name.slice(own.length, -1);
  }
}

/** The abort signal in the form that the client expects. */
const abortOptions = (options: CallOptions | undefined): { abortSignal?: AbortSignal } =>
  options?.signal === undefined ? {} : { abortSignal: options.signal };

/** 404, and 412 for a blob that a client is overwriting right now. */
function toNoSuchObject(error: unknown, name: string): unknown {
  const { statusCode } = error as RestError;
  return statusCode === 404 || statusCode === 412 ? new NoSuchObjectError(name) : error;
}
