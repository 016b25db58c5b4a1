import type { IncomingMessage, ServerResponse } from 'node:http';
import { finished, PassThrough, type Readable } from 'node:stream';
import { ApiError } from '../errors.ts';

/**
 * A request body that fails with 408 if it has not arrived completely in time, even while data keeps arriving: until then
 * the request occupies memory, and its permissions were checked when it began. The connection stays open, so that the client
 * receives the response.
 * @param timeoutMs timeout for the complete body, milliseconds
 */
export function timedBody(request: IncomingMessage, response: ServerResponse, timeoutMs: number): Readable {
  const body = new PassThrough();
  const timer = setTimeout(() => body.destroy(new ApiError('RequestTimeout')), timeoutMs);
  // The connection keeps the process alive; the timer need not.
  timer.unref();
  finished(body, () => clearTimeout(timer));
  finished(request, { writable: false }, (error) => {
    if (error != null) body.destroy(error);
  });
  // If the request is refused before its body is read, the body is never consumed.
  response.once('close', () => body.destroy());
  return request.pipe(body);
}
