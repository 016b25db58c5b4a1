import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import parseRange from 'range-parser';
import { Readable } from 'node:stream';
import { outageOf } from '../faults.ts';
import type { Containers } from '../checkpoints/containers.ts';
import { SizeMismatchError, UnknownBlockError, type ByteRange } from './blobStore.ts';
import type { Blobs, OpenUpload } from './blobs.ts';
import { blobPath, containerPath, filePath, type LinkFault, type LinkGrant, type SignedLinks } from './signedLinks.ts';

/** Largest block list that is read: 50,000 block ids, the protocol's limit, at their longest. */
const maxBlockListBytes = 8 * 1024 * 1024;

/** A refusal in the words of the storage protocol. */
class StorageError extends Error {
  readonly status: number;
  readonly code: string;
  readonly headers: Record<string, string>;
  constructor(status: number, code: string, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.name = 'StorageError';
    this.status = status;
    this.code = code;
    this.headers = headers;
  }
}

type Query = { Querystring: Record<string, unknown> };
type LinkRequest = FastifyRequest<{ Params: { blobId: string; fileName: string } } & Query>;
type FileRequest = FastifyRequest<{ Params: { fileId: string; iModelId: string; fileName: string } } & Query>;
type ContainerRequest = FastifyRequest<{ Params: { container: string; name: string } } & Query>;

/** Bytes that can be sent, whole or in part. */
export interface Sendable {
  /** Of the bytes, without quotes. */
  etag: string;
  size: number;
  read(range: ByteRange | undefined): Readable | Promise<Readable>;
}

/**
 * Serves signed links: the part of the Azure Blob protocol that the official clients use. Put Blob, Put Block, Put Block
 * List (answered by exactly 201), Get Blob with ranges, ETag, Content-Length and If-Match. Nothing parses a body here:
 * whatever content type an upload claims, its bytes go to the store as they are. Also the containers of checkpoints, for
 * Cloud Backed SQLite.
 */
export async function dataPlane(app: FastifyInstance, { blobs, links, containers }: { blobs: Blobs; links: SignedLinks; containers: Containers }): Promise<void> {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));

  app.setErrorHandler(async (error, request, reply) => {
    const known = error instanceof StorageError ? error : toStorageError(error);
    if (known.status >= 500) request.log.error({ err: error }, 'storage request failed');
    // The rest of a refused upload is not read; the connection cannot be used again.
    if (request.method === 'PUT') reply.header('connection', 'close');
    return reply
      .code(known.status)
      .headers({ 'x-ms-error-code': known.code, 'content-type': 'application/xml', ...known.headers })
      .send(`<?xml version="1.0" encoding="utf-8"?><Error><Code>${known.code}</Code><Message>${known.message}</Message></Error>`);
  });

  /** Rule of the data plane: a link is good for one thing, one direction and its time, whatever else is said. */
  function requireGrant(grant: LinkGrant | LinkFault, permission: 'r' | 'w'): void {
    if (grant === 'tampered' || grant === 'expired') throw refusal(grant);
    if (grant.permission !== permission) throw new StorageError(403, 'AuthorizationPermissionMismatch', 'This link does not allow this operation.');
  }

  function blobOf({ params: { blobId, fileName }, query }: LinkRequest, permission: 'r' | 'w'): string {
    requireGrant(links.check({ resource: `blobs/${blobId}`, fileName, query }), permission);
    return blobId;
  }

  app.get(blobPath, { schema: { hide: true } }, async (request: LinkRequest, reply) => {
    const blob = await blobs.findReadable(blobOf(request, 'r'));
    if (blob === undefined) throw new StorageError(404, 'BlobNotFound', 'The blob does not exist.');
    const elsewhere = followsRedirects(request) ? await blobs.redirectTo(blob, request.params.fileName, request.headers.origin !== undefined) : undefined;
    if (elsewhere !== undefined) return reply.header('cache-control', 'no-store').redirect(elsewhere, 307);
    return send({ etag: blob.sha256.slice(0, 32), size: blob.size, read: (range) => blobs.read(blob, range) }, request, reply);
  });

  app.get(filePath, { schema: { hide: true } }, async (request: FileRequest, reply) => {
    const { fileId, iModelId, fileName } = request.params;
    requireGrant(links.check({ resource: `files/${fileId}/${iModelId}`, fileName, query: request.query }), 'r');
    const file = await containers.file(fileId, iModelId);
    if (file === undefined) throw new StorageError(404, 'BlobNotFound', 'The file does not exist.');
    return send(file, request, reply);
  });

  app.get(containerPath, { schema: { hide: true } }, async (request: ContainerRequest, reply) => {
    const { container, name } = request.params;
    const verdict = links.checkContainer(container, request.query);
    if (verdict !== 'good') throw refusal(verdict);
    const found = await containers.find(container, name);
    if (found === undefined) throw new StorageError(404, 'BlobNotFound', 'The blob does not exist.');
    return send(found, request, reply);
  });

  app.put(blobPath, { schema: { hide: true } }, async (request: LinkRequest, reply) => {
    const upload = await blobs.findUpload(blobOf(request, 'w'));
    if (upload === undefined) throw new StorageError(404, 'BlobNotFound', 'Nothing waits for this upload any more.');
    if (upload === 'closed') throw new StorageError(409, 'BlobAlreadyExists', 'This upload is complete; its link cannot be used again.');
    const body = (request.body ?? emptyBody(request)) as Readable;
    const { comp, blockid } = request.query;
    if (comp === 'block') await stageBlock(blobs, upload, blockid, body);
    else if (comp === 'blocklist') await commit(blobs, upload, body);
    else if (comp === undefined) await putWhole(blobs, upload, body, request);
    else throw new StorageError(400, 'InvalidQueryParameterValue', 'This kind of upload is not supported.');
    return reply.code(201).send();
  });
}

async function putWhole(blobs: Blobs, upload: OpenUpload, body: Readable, request: FastifyRequest): Promise<void> {
  const type = request.headers['x-ms-blob-type'];
  if (type !== undefined && type !== 'BlockBlob') throw new StorageError(400, 'InvalidHeaderValue', 'Only block blobs are supported.');
  const length = request.headers['content-length'];
  if (length !== undefined && Number(length) !== upload.size) {
    await blobs.refuse(upload);
    throw new SizeMismatchError(upload.size);
  }
  refuseConflict(await blobs.upload(upload, body));
}

async function stageBlock(blobs: Blobs, upload: OpenUpload, blockId: unknown, body: Readable): Promise<void> {
  // Rule of the protocol: a block id is base64 of at most 64 bytes.
  if (typeof blockId !== 'string' || !/^[A-Za-z0-9+/]{1,88}={0,2}$/.test(blockId))
    throw new StorageError(400, 'InvalidQueryParameterValue', 'The block id is not valid.');
  await blobs.stores.get(upload.store).stageBlock(upload.id, blockId, body, upload.size);
}

async function commit(blobs: Blobs, upload: OpenUpload, body: Readable): Promise<void> {
  let xml = '';
  for await (const chunk of body) {
    xml += (chunk as Buffer).toString('latin1');
    if (xml.length > maxBlockListBytes) throw new StorageError(413, 'RequestBodyTooLarge', 'The block list is too long.');
  }
  if (!/<BlockList>[\s\S]*<\/BlockList>/.test(xml)) throw new StorageError(400, 'InvalidXmlDocument', 'The block list is not valid.');
  const blockIds = [...xml.matchAll(/<(Latest|Uncommitted|Committed)>([A-Za-z0-9+/=]+)<\/\1>/g)].map((match) => match[2] as string);
  refuseConflict(await blobs.commitBlocks(upload, blockIds));
}

function refuseConflict(outcome: 'stored' | 'conflict'): void {
  if (outcome === 'conflict') throw new StorageError(409, 'BlobAlreadyExists', 'Other bytes were uploaded through this link before.');
}

function refusal(fault: LinkFault): StorageError {
  return fault === 'tampered'
    ? new StorageError(403, 'AuthenticationFailed', 'The signature of this link is not valid.')
    : new StorageError(403, 'AuthenticationFailed', 'This link has expired. Ask the API for a new one.');
}

async function send(what: Sendable, request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> {
  const etag = `"${what.etag}"`;
  const { 'if-match': ifMatch, 'if-none-match': ifNoneMatch } = request.headers;
  if (ifMatch !== undefined && ifMatch !== '*' && !ifMatch.split(/\s*,\s*/).includes(etag))
    throw new StorageError(412, 'ConditionNotMet', 'The blob is not the one that If-Match names.');
  reply.headers({ etag, 'accept-ranges': 'bytes', 'cache-control': 'private, max-age=0', 'x-content-type-options': 'nosniff' });
  if (ifNoneMatch !== undefined && (ifNoneMatch === '*' || ifNoneMatch.split(/\s*,\s*/).includes(etag))) return reply.code(304).send();

  const range = wantedRange(request, what.size);
  const length = range === undefined ? what.size : range.end - range.start + 1;
  if (range !== undefined) reply.code(206).header('content-range', `bytes ${range.start}-${range.end}/${what.size}`);
  reply.headers({ 'content-type': 'application/octet-stream', 'content-length': length });
  // An empty stream: for an empty body Fastify would set a length of 0 over the one that HEAD must tell.
  return reply.send(request.method === 'HEAD' || length === 0 ? Readable.from([]) : await what.read(range));
}

/** Whether a client can be led to the store itself: Azure's takes a redirect for an error. */
function followsRedirects({ method, headers }: FastifyRequest): boolean {
  return method === 'GET' && headers['x-ms-version'] === undefined;
}

/** The one range asked for; none for a request without, or with several, which the protocol lets us answer whole. */
function wantedRange(request: FastifyRequest, size: number): ByteRange | undefined {
  // Azure's client asks to resume a broken download with x-ms-range.
  const header = request.headers['x-ms-range'] ?? request.headers.range;
  if (typeof header !== 'string') return undefined;
  const ranges = parseRange(size, header);
  if (ranges === -1) throw new StorageError(416, 'InvalidRange', 'The range is not within the blob.', { 'content-range': `bytes */${size}` });
  if (ranges === -2 || ranges.type !== 'bytes' || ranges.length !== 1) return undefined;
  return ranges[0];
}

/** Fastify hands on no body for a request without one; the raw request is then an empty stream. */
function emptyBody(request: FastifyRequest): Readable {
  return request.raw;
}

function toStorageError(error: unknown): StorageError {
  if (error instanceof SizeMismatchError) return new StorageError(400, 'InvalidInput', 'The upload does not have the size that was declared for it.');
  if (error instanceof UnknownBlockError) return new StorageError(400, 'InvalidBlockList', 'The block list names a block that was not uploaded.');
  const { statusCode, code } = error as { statusCode?: number; code?: string };
  if (code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ABORT_ERR')
    return new StorageError(400, 'RequestTimeout', 'The upload ended early.');
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500) return new StorageError(statusCode, 'InvalidInput', 'The request is not valid.');
  const outage = outageOf(error);
  if (outage === 'noSpace') return new StorageError(507, 'InsufficientStorage', 'The server has no storage space left for this upload.', { 'retry-after': '60' });
  if (outage === 'unavailable') return new StorageError(503, 'ServerBusy', 'The server cannot answer just now. Try again.', { 'retry-after': '5' });
  return new StorageError(500, 'InternalError', 'The server met an unexpected error.');
}
