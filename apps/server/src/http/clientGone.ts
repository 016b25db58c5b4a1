import type { FastifyReply } from 'fastify';
import { ApiError } from '../errors.ts';

/** A signal that is aborted when the client disconnects before the response is complete, so that its work can be stopped. */
export function clientGone({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController();
  const end = (): void => {
    // Not reported: the client is gone, and the server is not at fault.
    if (!raw.writableFinished) gone.abort(new ApiError('BadRequest'));
  };
  if (raw.destroyed) end();
  else raw.once('close', end);
  return gone.signal;
}
