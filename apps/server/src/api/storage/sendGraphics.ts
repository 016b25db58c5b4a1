import { pipeline, Readable } from 'node:stream';
import { createBrotliDecompress } from 'node:zlib';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Blobs, ReadableBlob } from '../../storage/blobs.ts';
import type { Download } from './downloads.ts';
import { sendFile } from './sendFile.ts';

/** Content of a link never changes, and the link of a user stays the same for a while. */
const kept = 'private, max-age=86400, immutable';

/**
 * Sends a file of graphics, which is stored compressed with brotli: as it is to a client that accepts that, otherwise
 * decompressed. Browsers do not accept brotli from servers without TLS, except from localhost.
 */
export async function sendGraphics(
  blobs: Blobs,
  blob: ReadableBlob,
  request: FastifyRequest,
  reply: FastifyReply,
  download: Download,
): Promise<FastifyReply> {
  const { fileName } = request.params as { fileName: string };
  const headers = {
    'content-type': fileName.endsWith('.glb') ? 'model/gltf-binary' : 'application/json',
    'cache-control': kept,
    vary: 'accept-encoding',
  };
  const etag = blob.sha256.slice(0, 32);
  if (acceptsBrotli(request)) {
    const open = blobs.opener(blob);
    return sendFile(
      {
        etag,
        size: blob.size,
        headers: { ...headers, 'content-encoding': 'br' },
        ...(open === undefined ? { read: (range) => blobs.read(blob, range) } : { open }),
      },
      request,
      reply,
      download,
    );
  }
  // Other bytes than the compressed ones, so another tag.
  const plain = { ...headers, etag: `"${etag}-plain"` };
  if (request.headers['if-none-match'] === plain.etag) return reply.headers(plain).code(304).send();
  if (request.method === 'HEAD') return reply.headers(plain).send(Readable.from([]));
  const source = await blobs.read(blob);
  const decompressed = createBrotliDecompress();
  download.sends(decompressed);
  decompressed.on('data', (chunk: Buffer) => download.passed(chunk.length));
  decompressed.pause();
  // A client that disconnects ends both streams; an error of the store ends the connection, so that no client takes a
  // part for the whole.
  pipeline(source, decompressed, () => undefined);
  return reply.headers(plain).send(decompressed);
}

function acceptsBrotli({ headers }: FastifyRequest): boolean {
  const accepted = headers['accept-encoding'];
  return (Array.isArray(accepted) ? accepted.join() : (accepted ?? ''))
    .split(',')
    .map((coding) => coding.split(';').map((part) => part.trim().toLowerCase()))
    .some(([name, quality]) => name === 'br' && !/^q=0(?:\.0*)?$/.test(quality ?? ''));
}
