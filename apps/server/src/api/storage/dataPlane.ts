import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { TooManyError, type AddressLimits } from '../../access/addressLimits.ts';
import type { Changesets } from '../../changesets/changesets.ts';
import type { Containers } from '../../checkpoints/containers.ts';
import { outageOf } from '../../outages.ts';
import { readAtMost } from '../../http/readAtMost.ts';
import { ChecksumMismatchError, SizeMismatchError, UnknownBlockError } from '../../storage/blobStore.ts';
import type { Blobs, ReadableBlob } from '../../storage/blobs.ts';
import type { Downloads } from './downloads.ts';
import { incomingBody, StalledUploadError } from './incomingBody.ts';
import type { Shares } from '../../shares/shares.ts';
import { sendFile } from './sendFile.ts';
import { sendGraphics } from './sendGraphics.ts';
import {
  blobPath,
  containerPath,
  filePath,
  graphicsPath,
  type LinkFault,
  type LinkGrant,
  type SignedLinks,
} from '../../storage/signedLinks.ts';
import { StorageError } from '../../storage/storageError.ts';
import type { Upload, UploadOutcome, Uploads } from '../../storage/uploads.ts';

/** Maximum size of a block list: 50,000 block ids, the limit of the protocol, of maximum length. */
const maxBlockListBytes = 8 * 1024 * 1024;
const maxListedBlocks = 50_000;

interface DataPlaneOptions {
  blobs: Blobs;
  uploads: Uploads;
  changesets: Pick<Changesets, 'onArrival'>;
  links: SignedLinks;
  containers: Containers;
  addressLimits: AddressLimits;
  downloads: Downloads;
  shares: Shares;
  /** Longest time in which an upload makes no progress, milliseconds. */
  stallMs: number;
}

type Shared = Pick<LinkGrant, 'share'>;
type SharePermission = Parameters<Shares['allows']>[1];

interface Query {
  Querystring: Record<string, unknown>;
}
type LinkRequest = FastifyRequest<{ Params: { blobId: string; fileName: string } } & Query>;
type FileRequest = FastifyRequest<{ Params: { fileId: string; iModelId: string; fileName: string } } & Query>;
type ContainerRequest = FastifyRequest<{ Params: { container: string; name: string } } & Query>;

/**
 * Serves signed links: the part of the Azure Blob protocol that the official clients use. Put Blob, Put Block, Put Block
 * List (answered by exactly 201, also when repeated), Get Blob with ranges, ETag, Content-Length and conditions. Nothing parses a body here:
 * whatever content type an upload claims, its bytes go to the store as they are. Also the containers of checkpoints, for
 * Cloud Backed SQLite.
 */
export async function dataPlane(
  app: FastifyInstance,
  { blobs, uploads, changesets, links, containers, addressLimits, downloads, shares, stallMs }: DataPlaneOptions,
): Promise<void> {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser('*', (_request, payload, done) => done(null, payload));

  app.addHook('onRequest', async (request) => addressLimits.countLink(request.ip));

  app.setErrorHandler(async (error, request, reply) => {
    const known = error instanceof StorageError ? error : toStorageError(error);
    if (known.status >= 500) request.log.error({ err: error }, 'storage request failed');
    // The file would have been compressed, and kept by the client; the error is neither.
    if (reply.hasHeader('content-encoding')) reply.removeHeader('content-encoding').header('cache-control', 'no-store');
    return reply
      .code(known.status)
      .headers({ 'x-ms-error-code': known.code, 'content-type': 'application/xml', ...known.headers })
      .send(
        `<?xml version="1.0" encoding="utf-8"?><Error><Code>${known.code}</Code><Message>${known.message}</Message></Error>`,
      );
  });

  /** Rule of the data plane: a link is good for one thing, one direction and its time, whatever else is said. */
  function requireGrant(grant: LinkGrant | LinkFault, permission: 'r' | 'w'): asserts grant is LinkGrant {
    if (grant === 'tampered' || grant === 'expired') throw refusal(grant);
    if (grant.permission !== permission)
      throw new StorageError(403, 'AuthorizationPermissionMismatch', 'This link does not allow this operation.');
  }

  /** Rule of shares: what was given out through one ends with it. */
  async function requireShare({ share }: Shared, permission: SharePermission = 'imodels_read'): Promise<void> {
    if (share !== undefined && !(await shares.allows(share, permission)))
      throw new StorageError(403, 'AuthenticationFailed', 'The share that this link was given out through has ended.');
  }

  const grantOf = ({ params: { blobId, fileName }, query }: LinkRequest): LinkGrant | LinkFault =>
    links.check({ resource: `blobs/${blobId}`, fileName, query });

  /**
   * The upload that a link is for. Rule of this server: an upload that began in time continues after its link has expired.
   */
  async function uploadOf(request: LinkRequest): Promise<Upload> {
    const grant = grantOf(request);
    const expired = grant === 'expired' && request.query['sp'] === 'w';
    if (!expired) requireGrant(grant, 'w');
    const upload = await uploads.find(request.params.blobId);
    if (expired && (upload === undefined || !uploads.isActive(upload))) throw refusal('expired');
    if (upload === undefined) throw new StorageError(404, 'BlobNotFound', 'Nothing waits for this upload any more.');
    if (upload.state === 'lost') throw lostTurn();
    return upload;
  }

  app.get(blobPath, async (request: LinkRequest, reply) => {
    const grant = grantOf(request);
    requireGrant(grant, 'r');
    await requireShare(grant);
    const blob = await requireBlob(blobs, request.params.blobId);
    const elsewhere =
      grant.share === undefined && followsRedirects(request)
        ? await blobs.redirectTo(blob, request.params.fileName, request.headers.origin !== undefined)
        : undefined;
    if (elsewhere !== undefined) return reply.header('cache-control', 'no-store').redirect(elsewhere, 307);
    const download = downloads.begin(signatureOf(request), reply.raw);
    const open = blobs.opener(blob);
    return sendFile(
      {
        etag: blob.sha256.slice(0, 32),
        size: blob.size,
        ...(open === undefined ? { read: (range) => blobs.read(blob, range) } : { open }),
      },
      request,
      reply,
      download,
    );
  });

  app.get(filePath, async (request: FileRequest, reply) => {
    const { fileId, iModelId, fileName } = request.params;
    const grant = links.check({ resource: `files/${fileId}/${iModelId}`, fileName, query: request.query });
    requireGrant(grant, 'r');
    await requireShare(grant);
    const download = downloads.begin(signatureOf(request), reply.raw);
    const file = await containers.file(fileId, iModelId);
    if (file === undefined) throw new StorageError(404, 'BlobNotFound', 'The file does not exist.');
    return sendFile(file, request, reply, download);
  });

  app.get(graphicsPath, async (request: LinkRequest, reply) => {
    const { blobId, fileName } = request.params;
    const grant = links.check({ resource: `graphics/${blobId}`, fileName, query: request.query });
    requireGrant(grant, 'r');
    await requireShare(grant, 'imodels_webview');
    const blob = await requireBlob(blobs, blobId);
    return sendGraphics(blobs, blob, request, reply, downloads.begin(signatureOf(request), reply.raw));
  });

  app.get(containerPath, async (request: ContainerRequest, reply) => {
    const { container, name } = request.params;
    const verdict = links.checkContainer(container, request.query);
    if (typeof verdict === 'string') throw refusal(verdict);
    await requireShare(verdict);
    // Checked before a block is opened: one of a store that is not a folder is in memory as a whole.
    const download = downloads.begin(signatureOf(request), reply.raw);
    const found = await containers.find(container, name);
    if (found === undefined) throw new StorageError(404, 'BlobNotFound', 'The blob does not exist.');
    return sendFile(found, request, reply, download);
  });

  app.put(blobPath, async (request: LinkRequest, reply) => {
    const upload = await uploadOf(request);
    const { comp } = request.query;
    if (comp !== undefined && comp !== 'block' && comp !== 'blocklist')
      throw new StorageError(400, 'InvalidQueryParameterValue', 'This kind of upload is not supported.');
    const take = comp === 'block' ? stageBlock : comp === 'blocklist' ? commit : putWhole;
    refuseUnlessStored(await take(uploads, upload, { request, reply, stallMs, changesets }));
    return reply.code(201).send();
  });
}

async function requireBlob(blobs: Blobs, id: string): Promise<ReadableBlob> {
  const blob = await blobs.findReadable(id);
  if (blob === undefined) throw new StorageError(404, 'BlobNotFound', 'The blob does not exist.');
  return blob;
}

/** A request with a body. */
interface Incoming {
  request: LinkRequest;
  reply: FastifyReply;
  stallMs: number;
  changesets: DataPlaneOptions['changesets'];
}

async function putWhole(uploads: Uploads, upload: Upload, incoming: Incoming): Promise<UploadOutcome> {
  const { request } = incoming;
  const type = request.headers['x-ms-blob-type'];
  if (type !== undefined && type !== 'BlockBlob')
    throw new StorageError(400, 'InvalidHeaderValue', 'Only block blobs are supported.');
  const md5s = [md5Of(request, 'content-md5'), md5Of(request, 'x-ms-blob-content-md5')].filter(
    (md5) => md5 !== undefined,
  );
  const length = request.headers['content-length'];
  if (length !== undefined && Number(length) !== upload.size) {
    await uploads.refuse(upload);
    throw new SizeMismatchError(upload.size);
  }
  await uploads.noteStart(upload, false);
  const { id, size, parentId, stored } = upload;
  const onArrival =
    stored === undefined && parentId !== null ? incoming.changesets.onArrival(id, parentId, size) : undefined;
  const onBytes = (chunk: Buffer): void => {
    uploads.noteProgress(upload);
    onArrival?.(chunk);
  };
  return uploads.put(upload, incomingBody({ ...incoming, md5s, onBytes }));
}

async function stageBlock(uploads: Uploads, upload: Upload, incoming: Incoming): Promise<UploadOutcome> {
  const { request } = incoming;
  const { blockid: blockId } = request.query;
  // Rule of the protocol: a block id is base64 of at most 64 bytes.
  if (typeof blockId !== 'string' || !/^[A-Za-z0-9+/]{1,88}={0,2}$/.test(blockId))
    throw new StorageError(400, 'InvalidQueryParameterValue', 'The block id is not valid.');
  if (upload.state === 'closed') return 'conflict';
  const md5 = md5Of(request, 'content-md5');
  await uploads.noteStart(upload, true);
  await uploads.stageBlock(
    upload,
    blockId,
    incomingBody({ ...incoming, md5s: md5 === undefined ? [] : [md5], onBytes: () => uploads.noteProgress(upload) }),
  );
  return 'stored';
}

async function commit(uploads: Uploads, upload: Upload, incoming: Incoming): Promise<UploadOutcome> {
  const { request } = incoming;
  const md5 = md5Of(request, 'content-md5');
  const fileMd5 = md5Of(request, 'x-ms-blob-content-md5');
  await uploads.noteStart(upload, true);
  return uploads.commitBlocks(
    upload,
    await readBlockList(incomingBody({ ...incoming, md5s: md5 === undefined ? [] : [md5] })),
    fileMd5,
  );
}

async function readBlockList(body: AsyncIterable<Buffer>): Promise<string[]> {
  const xml = (
    await readAtMost(
      body,
      maxBlockListBytes,
      () => new StorageError(413, 'RequestBodyTooLarge', 'The block list is too long.'),
    )
  ).toString('latin1');
  const start = xml.indexOf('<BlockList>');
  const end = xml.indexOf('</BlockList>', start);
  if (start === -1 || end === -1) throw new StorageError(400, 'InvalidXmlDocument', 'The block list is not valid.');
  const blockIds: string[] = [];
  for (const match of xml.slice(start, end).matchAll(/<(Latest|Uncommitted|Committed)>([A-Za-z0-9+/=]+)<\/\1>/g)) {
    blockIds.push(match[2] as string);
    if (blockIds.length > maxListedBlocks)
      throw new StorageError(400, 'BlockListTooLong', `The block list has more than ${maxListedBlocks} blocks.`);
  }
  return blockIds;
}

/** The MD5 that a header names, hex. Rule of the protocol: base64 of 128 bits. */
function md5Of(request: FastifyRequest, header: 'content-md5' | 'x-ms-blob-content-md5'): string | undefined {
  const given = request.headers[header];
  if (given === undefined) return undefined;
  if (typeof given !== 'string' || !/^[A-Za-z0-9+/]{22}==$/.test(given))
    throw new StorageError(
      400,
      'InvalidMd5',
      'The MD5 value specified in the request is invalid. The MD5 value must be 128 bits and Base64-encoded.',
    );
  return Buffer.from(given, 'base64').toString('hex');
}

function refuseUnlessStored(outcome: UploadOutcome): void {
  if (outcome === 'conflict')
    throw new StorageError(
      409,
      'BlobAlreadyExists',
      'Other bytes were uploaded through this link before, or the upload is complete.',
    );
  if (outcome === 'lost') throw lostTurn();
}

function lostTurn(): StorageError {
  return new StorageError(
    412,
    'LeaseLost',
    'This push lost its turn to another one, or was ended. Pull, then begin the push again.',
  );
}

function refusal(fault: LinkFault): StorageError {
  return fault === 'tampered'
    ? new StorageError(403, 'AuthenticationFailed', 'The signature of this link is not valid.')
    : new StorageError(403, 'AuthenticationFailed', 'This link has expired. Ask the API for a new one.');
}

/** What tells one link or token from others, once it was found to be good. */
function signatureOf({ query }: FastifyRequest<Query>): string {
  return query['sig'] as string;
}

/** Whether a client can be led to the store itself: Azure's takes a redirect for an error. */
function followsRedirects({ method, headers }: FastifyRequest): boolean {
  return method === 'GET' && headers['x-ms-version'] === undefined;
}

function toStorageError(error: unknown): StorageError {
  if (error instanceof TooManyError)
    return new StorageError(429, 'TooManyRequests', 'This address sent too many requests.', {
      'retry-after': String(error.waitSeconds),
    });
  if (error instanceof SizeMismatchError)
    return new StorageError(400, 'InvalidInput', 'The upload does not have the size that was declared for it.');
  if (error instanceof ChecksumMismatchError)
    return new StorageError(
      400,
      'Md5Mismatch',
      'The MD5 value specified in the request did not match the MD5 value calculated by the server.',
    );
  if (error instanceof StalledUploadError)
    return new StorageError(408, 'RequestTimeout', 'The upload brought too little for too long.');
  if (error instanceof UnknownBlockError)
    return new StorageError(400, 'InvalidBlockList', 'The block list names a block that was not uploaded.');
  const { statusCode, code } = error as { statusCode?: number; code?: string };
  if (code === 'ECONNRESET' || code === 'ERR_STREAM_PREMATURE_CLOSE' || code === 'ABORT_ERR')
    return new StorageError(400, 'RequestTimeout', 'The upload ended early.');
  // Only what the HTTP layer refuses: errors of a store's client have a status too.
  if (code?.startsWith('FST_') === true && statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new StorageError(statusCode, 'InvalidInput', 'The request is not valid.');
  const outage = outageOf(error);
  if (outage === 'noSpace')
    return new StorageError(507, 'InsufficientStorage', 'The server has no storage space left for this upload.', {
      'retry-after': '60',
    });
  if (outage === 'unavailable')
    return new StorageError(503, 'ServerBusy', 'The server cannot answer just now. Try again.', { 'retry-after': '5' });
  return new StorageError(500, 'InternalError', 'The server met an unexpected error.');
}
