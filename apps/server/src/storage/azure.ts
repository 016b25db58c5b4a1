import type { Readable } from 'node:stream';
import { BlobServiceClient, type ContainerClient, type RestError } from '@azure/storage-blob';
import { NoSuchObjectError, type ByteRange } from './blobStore.ts';
import type { ListedObject, ObjectService } from './objectStore.ts';

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

/** Objects in one container of Azure Blob Storage. */
export class AzureService implements ObjectService {
  readonly #container: ContainerClient;
  readonly #prefix: string;

  private constructor(container: ContainerClient, prefix: string) {
    this.#container = container;
    this.#prefix = prefix;
  }

  /** Makes the container if it is not there. @throws what the service says when it cannot be used */
  static async open({ connectionString, container, prefix }: AzureSettings): Promise<AzureService> {
    const client = BlobServiceClient.fromConnectionString(connectionString).getContainerClient(container);
    await client.createIfNotExists();
    return new AzureService(client, prefix);
  }

  async check(): Promise<void> {
    await this.#container.getProperties();
  }

  async put(name: string, body: Readable): Promise<void> {
    await this.#container.getBlockBlobClient(this.#prefix + name).uploadStream(body, blockBytes, 2);
  }

  async get(name: string, range?: ByteRange): Promise<Readable> {
    try {
      const [offset, count] = range === undefined ? [0, undefined] : [range.start, range.end - range.start + 1];
      const { readableStreamBody } = await this.#container.getBlockBlobClient(this.#prefix + name).download(offset, count);
      return readableStreamBody as Readable;
    } catch (error) {
      throw (error as RestError).statusCode === 404 ? new NoSuchObjectError(name) : error;
    }
  }

  async remove(name: string): Promise<void> {
    await this.#container.getBlockBlobClient(this.#prefix + name).deleteIfExists();
  }

  async *list(prefix: string): AsyncIterable<ListedObject> {
    for await (const { name, properties } of this.#container.listBlobsFlat({ prefix: this.#prefix + prefix }))
      yield { name: name.slice(this.#prefix.length), size: properties.contentLength ?? 0, modifiedAt: properties.lastModified.getTime() };
  }
}
