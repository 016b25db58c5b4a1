import { PublicError } from '../operations/reasons.ts';

/** What is told of a connection that did not come about, by the code of its error. */
const connectionFaults: Record<string, string> = {
  ECONNREFUSED: 'The receiver refused the connection.',
  ECONNRESET: 'The receiver ended the connection.',
  EPIPE: 'The receiver ended the connection.',
  ENOTFOUND: 'The host name of the receiver is not known.',
  EAI_AGAIN: 'The host name of the receiver could not be looked up.',
  EHOSTUNREACH: 'The receiver cannot be reached.',
  ENETUNREACH: 'The receiver cannot be reached.',
  ETIMEDOUT: 'The receiver did not answer in time.',
};

/** An error of a delivery in words for the owners of a webhook, who are not to learn how the server's own network looks. */
export function deliveryFault(error: Error): PublicError {
  const { code = '' } = error as NodeJS.ErrnoException;
  const known = connectionFaults[code];
  if (known !== undefined) return new PublicError(known, { cause: error });
  // Words of request-filtering-agent, which gives its errors no code.
  if (/is not allowed/.test(error.message)) return new PublicError('The address of the receiver is not allowed: it belongs to a private network.', { cause: error });
  if (/^(CERT_|ERR_TLS_|ERR_SSL_|DEPTH_ZERO_|SELF_SIGNED_|UNABLE_TO_)/.test(code)) return new PublicError(`The certificate of the receiver is not accepted (${code}).`, { cause: error });
  return new PublicError('The receiver could not be reached.', { cause: error });
}
