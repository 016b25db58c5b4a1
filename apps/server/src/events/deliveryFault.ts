import { PublicError } from '../operations/reasons.ts';

/** What is told of a connection that a public address refused or ended, by the code of its error. */
const connectionFaults: Record<string, string> = {
  ECONNREFUSED: 'The receiver refused the connection.',
  ECONNRESET: 'The receiver ended the connection.',
  EPIPE: 'The receiver ended the connection.',
  ETIMEDOUT: 'The receiver did not answer in time.',
};

/** One sentence for a name that nobody knows, one that leads into a private network and one without a way to it: which names the server's own network has, and where they lead, is nobody's business. */
const unreachable =
  'The receiver could not be reached: its host name is not known, or leads to no address that this server sends to.';

/** An error of a delivery in words for the owners of a webhook, who are not to learn how the server's own network looks. */
export function deliveryFault(error: Error): PublicError {
  const { code = '' } = error as NodeJS.ErrnoException;
  const known = connectionFaults[code];
  if (known !== undefined) return new PublicError(known, { cause: error });
  if (/^(CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code))
    return new PublicError(`The certificate of the receiver is not accepted (${code}).`, { cause: error });
  return new PublicError(unreachable, { cause: error });
}
