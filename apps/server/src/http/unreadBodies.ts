import type { IncomingMessage, ServerResponse } from 'node:http';
import type { FastifyInstance } from 'fastify';

/**
 * What is read, and thrown away, of a body that was refused. A connection that is closed while its client still writes is reset,
 * and the client loses the answer with it. 256 MiB is the longest body that Azure's client sends in one piece.
 */
const mostBytes = 256 * 1024 * 1024;
const longestSilenceMs = 5000;
const lookEveryMs = 250;

/** Requests that wait to be told that they may send their body (`Expect: 100-continue`). */
const expecting = new WeakSet<IncomingMessage>();

/** Tells a client that waits for it to send its body. To be called when that is about to be read, and not before it is wanted. */
export function continueIfExpected(request: IncomingMessage, response: ServerResponse): void {
  if (expecting.delete(request)) response.writeContinue();
}

/**
 * Makes sure that the answer to a request reaches its client although the body was not read to its end: the rest is read, within
 * bounds, and thrown away. Beyond them the connection is closed.
 * @param longestMs longest time for the rest of one body, milliseconds
 */
export function discardUnreadBodies(app: FastifyInstance, longestMs: number): void {
  const server = app.server;
  const watch = (request: IncomingMessage, response: ServerResponse): void => {
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
    // What is read to its end, or closed after its bounds, need not be closed at once.
    reply.removeHeader('connection');
    // The HTTP layer closes the connection with the answer when the client wants that: the rest is read before.
    if (reply.raw.shouldKeepAlive || expecting.has(raw)) return done(null, payload);
    void discard(raw, longestMs).then(() => done(null, payload));
  });
}

/** Reads the rest of a body. @returns false when the bounds were reached first */
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
