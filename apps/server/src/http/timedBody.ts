import type { IncomingMessage, ServerResponse } from 'node:http';
import { finished, PassThrough, type Readable } from 'node:stream';
import { ApiError } from '../errors.ts';

/**
 * The body of a request, which fails with 408 when its end has not arrived in time, however steadily it comes: until then the
 * request holds memory, and was judged by what its sender was allowed when it began. The connection stays as it is, so that the
 * client gets the answer.
 * @param timeoutMs from now, milliseconds
 */
export function timedBody(request: IncomingMessage, response: ServerResponse, timeoutMs: number): Readable {
  const body = new PassThrough();
  const timer = setTimeout(() => body.destroy(new ApiError('RequestTimeout')), timeoutMs);
  // The connection keeps the process alive; the wait for its body need not.
  timer.unref();
  finished(body, () => clearTimeout(timer));
  finished(request, { writable: false }, (error) => {
    if (error != null) body.destroy(error);
  });
  // A request that is refused before its body is read leaves it behind.
  response.once('close', () => body.destroy());
  return request.pipe(body);
}
