import { anywhere, send } from '../http/outbound.ts';
import { readAtMost } from '../http/readAtMost.ts';
import { exitCodes, ExitError } from './exit.ts';

/** Timeout and largest answer of an issuer. */
const answerMs = 15_000;
const answerBytes = 2 ** 20;

/** Addresses of an issuer that `offshoot login` uses. */
export interface IssuerAddresses {
  issuer: string;
  token_endpoint: string;
  authorization_endpoint?: string;
  device_authorization_endpoint?: string;
  revocation_endpoint?: string;
}

/** A successful answer of a token endpoint. */
export interface TokenAnswer {
  access_token: string;
  expires_in?: number;
  refresh_token?: string;
}

/** @throws ExitError if the issuer does not answer, or answers for another issuer or with an unencrypted address elsewhere */
export async function discover(issuer: string): Promise<IssuerAddresses> {
  const address = `${issuer.replace(/\/$/, '')}/.well-known/openid-configuration`;
  const { status, body } = await ask('GET', address);
  const found = body as Partial<IssuerAddresses>;
  if (status !== 200 || typeof found.token_endpoint !== 'string')
    throw new ExitError(
      exitCodes.usage,
      `${address} is no OpenID Connect discovery document (${status}); name the issuer that the server trusts with --issuer, or use offshoot token`,
    );
  if (found.issuer !== issuer)
    throw new ExitError(
      exitCodes.usage,
      `${address} is of the issuer ${String(found.issuer)}; give that with --issuer`,
    );
  return found as IssuerAddresses;
}

/** Requests tokens. @returns the answer, or the error code of OAuth that the issuer gave */
export async function requestTokens(
  endpoint: string,
  parameters: Record<string, string>,
): Promise<TokenAnswer | { error: string; description?: string }> {
  const { status, body } = await ask('POST', endpoint, parameters);
  const answer = body as Partial<TokenAnswer> & { error?: unknown; error_description?: unknown };
  if (status === 200 && typeof answer.access_token === 'string') return answer as TokenAnswer;
  if (status >= 500) throw new ExitError(exitCodes.unreachable, `${endpoint} answered ${status}`);
  return {
    error: typeof answer.error === 'string' ? answer.error : String(status),
    ...(typeof answer.error_description === 'string' && { description: answer.error_description }),
  };
}

/** One request to an issuer. Credentials are sent encrypted, or to this machine. @throws ExitError */
export async function ask(
  method: 'GET' | 'POST',
  address: string,
  parameters?: Record<string, string>,
): Promise<{ status: number; body: unknown }> {
  if (!URL.canParse(address)) throw new ExitError(exitCodes.usage, `'${address}' is not a valid address`);
  const url = new URL(address);
  if (url.protocol !== 'https:' && !['localhost', '127.0.0.1', '[::1]'].includes(url.hostname))
    throw new ExitError(exitCodes.usage, `${url.origin} is not encrypted; sign-in needs https beyond this machine`);
  try {
    const answer = await send(url, anywhere, {
      method,
      headers: {
        accept: 'application/json',
        ...(parameters !== undefined && { 'content-type': 'application/x-www-form-urlencoded' }),
      },
      ...(parameters !== undefined && { body: new URLSearchParams(parameters).toString() }),
      signal: AbortSignal.timeout(answerMs),
    });
    const text = await readAtMost(answer, answerBytes, () => new Error('the answer is too long'));
    return { status: answer.statusCode ?? 0, body: objectIn(text.toString('utf8')) };
  } catch (error) {
    throw new ExitError(exitCodes.unreachable, `${url.origin} does not answer: ${(error as Error).message}`, error);
  }
}

function objectIn(text: string): object {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === 'object' && value !== null ? value : {};
  } catch {
    return {};
  }
}
