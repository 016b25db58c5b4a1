import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';

/**
 * How much of a refused body is read and discarded. Closing a connection while its client is still sending resets it, and
 * the client loses the response. 256 MiB is the largest body that Azure's client sends in one request.
 */
const mostBytes = 256 * 1024 * 1024;
const longestSilenceMs = 5000;
const lookEveryMs = 250;

/** Whether a body follows the headers, according to them (RFC 9112, 6.3). */
export function hasBody({ headers }: IncomingMessage): boolean {
  const length = headers['content-length'];
  return (length !== undefined && length !== '0') || headers['transfer-encoding'] !== undefined;
}

/** Requests with `Expect: 100-continue` whose client is waiting for permission to send the body. */
const expecting = new WeakSet<IncomingMessage>();

/** Sends `100 Continue` to a client that is waiting for it. Call it immediately before reading the body. */
export function continueIfExpected(request: IncomingMessage, response: ServerResponse): void {
  if (expecting.delete(request)) response.writeContinue();
}

/**
 * Ensures that the client receives the response even if the server has not read the complete body: the remainder is read
 * and discarded up to a limit of size and time. Beyond it the connection is closed.
 * @param longestMs maximum time for the remainder of one body, milliseconds
 */
export function discardUnreadBodies(app: FastifyInstance, longestMs: number): void {
  const server = app.server;
  const watch = (request: IncomingMessage, response: ServerResponse): void => {
    if (!hasBody(request)) return;
    response.once('finish', () => {
      if (!request.complete) void discard(request, longestMs).then((ended) => ended || request.socket.destroy());
    });
  };
  server.on('request', watch);
  server.on('checkContinue', (request: IncomingMessage, response: ServerResponse) => {
    expecting.add(request);
    watch(request, response);
    app.routing(request, response);
  });
  app.addHook('onSend', (request, reply, payload, done) => {
    const { raw } = request;
    if (raw.complete) return done(null, payload);
    // The connection can stay open: its body is read to the end, or it is closed beyond the limits.
    reply.removeHeader('connection');
    // If the client asked to close the connection, Node closes it after the response, so the body is read first.
    if (reply.raw.shouldKeepAlive || expecting.has(raw)) return done(null, payload);
    void discard(raw, longestMs).then(() => done(null, payload));
  });
}

/** Reads and discards the remainder of a body. @returns false if a limit was reached first */
function discard(request: IncomingMessage, longestMs: number): Promise<boolean> {
  const { socket } = request;
  const began = performance.now();
  const before = socket.bytesRead;
  let read = before;
  let readAt = began;
  return new Promise((resolve) => {
    const end = (ended: boolean): void => {
      clearInterval(looking);
      request.off('close', closed);
      resolve(ended);
    };
    const closed = (): void => end(true);
    const looking = setInterval(() => {
      const now = performance.now();
      if (socket.bytesRead !== read) [read, readAt] = [socket.bytesRead, now];
      if (now - began >= longestMs || now - readAt >= longestSilenceMs || read - before >= mostBytes) end(false);
    }, lookEveryMs);
    request.on('error', () => undefined);
    request.once('close', closed);
    if (request.destroyed) return end(true);
    request.unpipe();
    request.resume();
  });
}
