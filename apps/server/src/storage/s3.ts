import type { Readable } from 'node:stream';
import {
  CopyObjectCommand,
  CreateBucketCommand,
  DeleteObjectCommand,
  GetObjectCommand,
  HeadBucketCommand,
  HeadObjectCommand,
  ListObjectsV2Command,
  NotFound,
  PutObjectCommand,
  S3Client,
  type ListObjectsV2CommandOutput,
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { NoSuchObjectError, SizeMismatchError, type ByteRange, type CallOptions } from './blobStore.ts';
import type { ListedObject, ObjectLinks, ObjectService } from './objectStore.ts';

/** Address and credentials of a bucket. Without credentials, the default credential chain of AWS clients applies. */
export interface S3Settings {
  bucket: string;
  region: string;
  /** Endpoint of an S3-compatible server; AWS if absent. */
  endpoint?: string | undefined;
  accessKeyId?: string | undefined;
  secretAccessKey?: string | undefined;
  /** Prefix of every object name. */
  prefix: string;
}

/**
 * Maximum number of connections: twice the downloads that a server may send at a time (`downloads.simultaneous`). Each
 * download uses a connection for as long as its client takes, so this leaves enough for uploads and jobs. The default
 * of the library is 50.
 */
const connections = 2048;
/** Maximum number of connections of the client for health checks. */
const checkConnections = 4;

/** Part size for large objects, bytes. Each upload keeps two parts in memory. */
const partBytes = 8 * 1024 * 1024;
/** Rule of S3: maximum size of a copy in one call, bytes. */
const longestCopy = 5 * 1024 ** 3;

/** Objects in one S3 bucket. */
export class S3Service implements ObjectService {
  /**
   * Presigned addresses. Downloads are redirected to them. Uploads are not, because the clients of the API upload in
   * ways that S3 refuses (Azure's block protocol, or without a length).
   */
  readonly links: ObjectLinks = {
    downloads: 'redirect',
    read: (name, fileName, expires) =>
      getSignedUrl(
        this.#client,
        new GetObjectCommand({
          ...this.#at(name),
          ResponseContentType: 'application/octet-stream',
          ResponseContentDisposition: `attachment; filename="${fileName}"`,
        }),
        { expiresIn: Math.max(1, Math.ceil((expires.getTime() - Date.now()) / 1000)) },
      ),
  };
  readonly #client: S3Client;
  /** Client for health checks, which must not wait for other requests. */
  readonly #checks: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  /** Endpoint and credentials. Services with equal values can copy from each other. */
  readonly #account: string;

  private constructor(settings: S3Settings) {
    this.#client = clientOf(settings, connections);
    this.#checks = clientOf(settings, checkConnections);
    this.#bucket = settings.bucket;
    this.#prefix = settings.prefix;
    this.#account = JSON.stringify([settings.endpoint ?? 'aws', settings.accessKeyId ?? 'default']);
  }

  /** Opens the bucket and creates it if it does not exist. @throws the error of the S3 server if it cannot be used */
  static async open(settings: S3Settings, options?: CallOptions): Promise<S3Service> {
    const service = new S3Service(settings);
    try {
      await service.check(options);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
      // Another server may create it at the same time.
      await service.#client
        .send(new CreateBucketCommand({ Bucket: settings.bucket }), abortOptions(options))
        .catch(() => service.check(options));
    }
    return service;
  }

  async check(options?: CallOptions): Promise<void> {
    await this.#checks.send(new HeadBucketCommand({ Bucket: this.#bucket }), abortOptions(options));
  }

  async put(name: string, body: Readable, { signal, onProgress }: CallOptions = {}): Promise<void> {
    signal?.throwIfAborted();
    const upload = new Upload({
      client: this.#client,
      params: { ...this.#at(name), Body: body },
      partSize: partBytes,
      queueSize: 2,
      leavePartsOnError: false,
    });
    upload.on('httpUploadProgress', () => onProgress?.());
    const onAbort = (): void => void upload.abort();
    signal?.addEventListener('abort', onAbort, { once: true });
    try {
      await upload.done();
    } finally {
      signal?.removeEventListener('abort', onAbort);
    }
  }

  async replace(
    name: string,
    content: Buffer,
    options?: CallOptions,
    condition: { IfNoneMatch?: string } = {},
  ): Promise<void> {
    await this.#client.send(
      new PutObjectCommand({ ...this.#at(name), Body: content, ...condition }),
      abortOptions(options),
    );
  }

  async create(name: string, content: Buffer, options?: CallOptions): Promise<void> {
    try {
      await this.replace(name, content, options, { IfNoneMatch: '*' });
    } catch (error) {
      const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
      // An S3 server may not implement the condition. Then the object is written without it, and the last of several
      // writers wins.
      if (status === 501) await this.replace(name, content, options);
      else if (status !== 409 && status !== 412) throw error;
    }
  }

  async get(name: string, range?: ByteRange, options?: CallOptions): Promise<Readable> {
    try {
      const { Body, ContentRange } = await this.#client.send(
        new GetObjectCommand({
          ...this.#at(name),
          ...(range !== undefined && { Range: `bytes=${range.start}-${range.end}` }),
        }),
        abortOptions(options),
      );
      // An S3 server that ignores ranges returns the whole object.
      if (range !== undefined && range.start > 0 && ContentRange?.startsWith(`bytes ${range.start}-`) !== true) {
        (Body as Readable).on('error', () => undefined).destroy();
        throw new Error(`the service answered '${ContentRange ?? 'the whole object'}' for a range from ${range.start}`);
      }
      return Body as Readable;
    } catch (error) {
      throw toNoSuchObject(error, name);
    }
  }

  async copy(
    source: ObjectService,
    sourceName: string,
    name: string,
    size: number,
    options?: CallOptions,
  ): Promise<{ sha256?: string | undefined } | undefined> {
    if (!(source instanceof S3Service) || source.#account !== this.#account || size > longestCopy) return undefined;
    const from = source.#at(sourceName);
    try {
      const { ContentLength, ETag } = await source.#client.send(new HeadObjectCommand(from), abortOptions(options));
      if (ContentLength !== size) throw new SizeMismatchError(size);
      const { CopyObjectResult } = await this.#client.send(
        new CopyObjectCommand({
          ...this.#at(name),
          CopySource: `${from.Bucket}/${from.Key}`.split('/').map(encodeURIComponent).join('/'),
          CopySourceIfMatch: ETag,
          ChecksumAlgorithm: 'SHA256',
        }),
        abortOptions(options),
      );
      const checksum = CopyObjectResult?.ChecksumSHA256;
      // The checksum of a multipart object (`…-3`) is a checksum of checksums. Servers without checksums return none.
      return {
        sha256:
          checksum === undefined || checksum.includes('-')
            ? undefined
            : Buffer.from(checksum, 'base64').toString('hex'),
      };
    } catch (error) {
      throw toNoSuchObject(error, sourceName);
    }
  }

  async remove(name: string, options?: CallOptions): Promise<void> {
    await this.#client.send(new DeleteObjectCommand(this.#at(name)), abortOptions(options));
  }

  async *list(prefix: string, options?: CallOptions): AsyncIterable<ListedObject> {
    for await (const { Contents = [] } of this.#pages(prefix, {}, options))
      for (const { Key = '', Size = 0, LastModified } of Contents)
        yield { name: Key.slice(this.#prefix.length), size: Size, modifiedAt: LastModified?.getTime() ?? 0 };
  }

  async *folders(prefix: string, options?: CallOptions): AsyncIterable<string> {
    const own = this.#prefix + prefix;
    for await (const { CommonPrefixes = [] } of this.#pages(prefix, { Delimiter: '/' }, options))
      for (const { Prefix = '' } of CommonPrefixes) yield Prefix.slice(own.length, -1);
  }

  async *#pages(
    prefix: string,
    how: { Delimiter?: string },
    options: CallOptions | undefined,
  ): AsyncIterable<ListObjectsV2CommandOutput> {
    let after: string | undefined;
    do {
      const page: ListObjectsV2CommandOutput = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#bucket,
          Prefix: this.#prefix + prefix,
          ...how,
          ...(after !== undefined && { ContinuationToken: after }),
        }),
        abortOptions(options),
      );
      yield page;
      after = page.IsTruncated === true ? page.NextContinuationToken : undefined;
    } while (after !== undefined);
  }

  #at(name: string): { Bucket: string; Key: string } {
    return { Bucket: this.#bucket, Key: this.#prefix + name };
  }
}

function clientOf({ endpoint, accessKeyId, secretAccessKey, region }: S3Settings, maxSockets: number): S3Client {
  return new S3Client({
    region,
    requestHandler: { httpAgent: { maxSockets }, httpsAgent: { maxSockets } },
    ...(endpoint !== undefined && { endpoint, forcePathStyle: true }),
    ...(accessKeyId !== undefined &&
      secretAccessKey !== undefined && { credentials: { accessKeyId, secretAccessKey } }),
    // Not every S3 server supports the newer checksums. The database has its own hashes.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

/** The abort signal in the form that the client expects. */
const abortOptions = (options: CallOptions | undefined): { abortSignal?: AbortSignal } =>
  options?.signal === undefined ? {} : { abortSignal: options.signal };

function toNoSuchObject(error: unknown, name: string): unknown {
  return error instanceof NotFound || (error as Error).name === 'NoSuchKey' ? new NoSuchObjectError(name) : error;
}
