import { PublicError } from '../operations/reasons.ts';

/** Messages for connections that a public address refused or closed, by error code. */
const connectionFaults: Record<string, string> = {
  ECONNREFUSED: 'The receiver refused the connection.',
  ECONNRESET: 'The receiver ended the connection.',
  EPIPE: 'The receiver ended the connection.',
  ETIMEDOUT: 'The receiver did not answer in time.',
};

/** One sentence for an unknown host name, a private address and a missing route, so that it reveals nothing about the server's own network. */
const unreachable =
  'The receiver could not be reached: its host name is not known, or leads to no address that this server sends to.';

/** Describes a delivery error for the owners of a webhook, without details of the server's own network. */
export function deliveryFault(error: Error): PublicError {
  const { code = '' } = error as NodeJS.ErrnoException;
  const known = connectionFaults[code];
  if (known !== undefined) return new PublicError(known, { cause: error });
  if (/^(CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code))
    return new PublicError(`The certificate of the receiver is not accepted (${code}).`, { cause: error });
  return new PublicError(unreachable, { cause: error });
}
