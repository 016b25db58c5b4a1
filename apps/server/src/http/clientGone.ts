import type { FastifyReply } from 'fastify';
import { ApiError } from '../errors.ts';

/** Aborted when the client of a request goes away before it has its answer, so that nobody works for it any more. */
export function clientGone({ raw }: FastifyReply): AbortSignal {
  const gone = new AbortController();
  const end = (): void => {
    // Nobody hears of it; it is no fault of the server.
    if (!raw.writableFinished) gone.abort(new ApiError('BadRequest'));
  };
  if (raw.destroyed) end();
  else raw.once('close', end);
  return gone.signal;
}
