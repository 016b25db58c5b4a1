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
} from '@aws-sdk/client-s3';
import { Upload } from '@aws-sdk/lib-storage';
import { getSignedUrl } from '@aws-sdk/s3-request-presigner';
import { NoSuchObjectError, SizeMismatchError, type ByteRange, type CallOptions } from './blobStore.ts';
import type { ListedObject, ObjectLinks, ObjectService } from './objectStore.ts';

/** Where a bucket is and who may use it. Credentials that are not given come from where AWS clients look for them. */
export interface S3Settings {
  bucket: string;
  region: string;
  /** Of any S3-compatible server; AWS itself without. */
  endpoint?: string | undefined;
  accessKeyId?: string | undefined;
  secretAccessKey?: string | undefined;
  /** Put before every name. */
  prefix: string;
}

/**
 * Connections at a time. Twice the downloads that a server may send (`downloads.simultaneous`), each of which holds one for as long
 * as its client takes: they never take those that uploads and jobs need. The library's own limit is 50.
 */
const connections = 2048;
/** Of the client that only looks whether the bucket is there. */
const checkConnections = 4;

/** Parts of large objects, bytes: two in memory for each upload. */
const partBytes = 8 * 1024 * 1024;
/** Rule of S3: what can be copied in one call. */
const longestCopy = 5 * 1024 ** 3;

/** Objects in one S3 bucket. */
export class S3Service implements ObjectService {
  /**
   * Presigned addresses. Downloads are led there; uploads are not, because the clients of the API upload to S3 in ways that it
   * refuses (Azure's block protocol, or without a length).
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
  /** Asks whether the bucket can be reached, and waits behind no other request. */
  readonly #checks: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;
  /** Who asks whom: what has the same can copy from here. */
  readonly #account: string;

  private constructor(settings: S3Settings) {
    this.#client = clientOf(settings, connections);
    this.#checks = clientOf(settings, checkConnections);
    this.#bucket = settings.bucket;
    this.#prefix = settings.prefix;
    this.#account = JSON.stringify([settings.endpoint ?? 'aws', settings.accessKeyId ?? 'default']);
  }

  /** Makes the bucket if it is not there. @throws what the server says when it cannot be used */
  static async open(settings: S3Settings, options?: CallOptions): Promise<S3Service> {
    const service = new S3Service(settings);
    try {
      await service.check(options);
    } catch (error) {
      if (!(error instanceof NotFound)) throw error;
      // Another server may be making it in this moment.
      await service.#client
        .send(new CreateBucketCommand({ Bucket: settings.bucket }), ending(options))
        .catch(() => service.check(options));
    }
    return service;
  }

  async check(options?: CallOptions): Promise<void> {
    await this.#checks.send(new HeadBucketCommand({ Bucket: this.#bucket }), ending(options));
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

  async create(name: string, content: Buffer, options?: CallOptions): Promise<void> {
    const write = (condition: { IfNoneMatch?: string }): Promise<unknown> =>
      this.#client.send(new PutObjectCommand({ ...this.#at(name), Body: content, ...condition }), ending(options));
    try {
      await write({ IfNoneMatch: '*' });
    } catch (error) {
      const status = (error as { $metadata?: { httpStatusCode?: number } }).$metadata?.httpStatusCode;
      // A server that does not implement the condition writes the object whole all the same; the last of several wins there.
      if (status === 501) await write({});
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
        ending(options),
      );
      // A server that ignores ranges answers with the whole object.
      if (range !== undefined && range.start > 0 && ContentRange?.startsWith(`bytes ${range.start}-`) !== true) {
        (Body as Readable).on('error', () => undefined).destroy();
        throw new Error(`the service answered '${ContentRange ?? 'the whole object'}' for a range from ${range.start}`);
      }
      return Body as Readable;
    } catch (error) {
      throw orMissing(error, name);
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
      const { ContentLength, ETag } = await source.#client.send(new HeadObjectCommand(from), ending(options));
      if (ContentLength !== size) throw new SizeMismatchError(size);
      const { CopyObjectResult } = await this.#client.send(
        new CopyObjectCommand({
          ...this.#at(name),
          CopySource: `${from.Bucket}/${from.Key}`.split('/').map(encodeURIComponent).join('/'),
          CopySourceIfMatch: ETag,
          ChecksumAlgorithm: 'SHA256',
        }),
        ending(options),
      );
      const checksum = CopyObjectResult?.ChecksumSHA256;
      // One of many parts (`…-3`) is a checksum of checksums. Servers that know none tell nothing.
      return {
        sha256:
          checksum === undefined || checksum.includes('-')
            ? undefined
            : Buffer.from(checksum, 'base64').toString('hex'),
      };
    } catch (error) {
      throw orMissing(error, sourceName);
    }
  }

  async remove(name: string, options?: CallOptions): Promise<void> {
    await this.#client.send(new DeleteObjectCommand(this.#at(name)), ending(options));
  }

  async *list(prefix: string, options?: CallOptions): AsyncIterable<ListedObject> {
    let after: string | undefined;
    do {
      const page = await this.#client.send(
        new ListObjectsV2Command({
          Bucket: this.#bucket,
          Prefix: this.#prefix + prefix,
          ...(after !== undefined && { ContinuationToken: after }),
        }),
        ending(options),
      );
      for (const { Key = '', Size = 0, LastModified } of page.Contents ?? [])
        yield { name: Key.slice(this.#prefix.length), size: Size, modifiedAt: LastModified?.getTime() ?? 0 };
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
    // Not every server knows the newer checksums; ours are kept in the database.
    requestChecksumCalculation: 'WHEN_REQUIRED',
    responseChecksumValidation: 'WHEN_REQUIRED',
  });
}

/** The client's way to say when a request ends. */
const ending = (options: CallOptions | undefined): { abortSignal?: AbortSignal } =>
  options?.signal === undefined ? {} : { abortSignal: options.signal };

function orMissing(error: unknown, name: string): unknown {
  return error instanceof NotFound || (error as Error).name === 'NoSuchKey' ? new NoSuchObjectError(name) : error;
}
