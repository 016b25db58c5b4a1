import { Readable } from 'node:stream';
import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose';
import type { IssuerConfig } from '../config.ts';
import { readAtMost } from '../http/readAtMost.ts';

/** How long the server waits after a failed request for keys, milliseconds. Forged tokens cost nothing, and each would cause a request. */
export const coolDownMs = 10_000;
/** Maximum time, milliseconds, and size, bytes, of an issuer's response. */
const answerMs = 5000;
const answerBytes = 2 ** 20;

/** Thrown if the keys of an issuer cannot be fetched. */
export class IssuerUnavailableError extends Error {
  /** Time until the next request to the issuer. */
  readonly waitMs: number;

  constructor(waitMs: number, cause: unknown) {
    super('the keys of the token issuer cannot be fetched', { cause });
    this.name = 'IssuerUnavailableError';
    this.waitMs = waitMs;
  }
}

/**
 * The keys of an OpenID Connect issuer, from its discovery document (or `jwksUri`), fetched when first needed. After a failure
 * the issuer is not contacted for `coolDownMs`; known keys stay in use meanwhile.
 * @param now milliseconds of a monotonic clock
 * @returns a function that throws IssuerUnavailableError, or what the library throws for a token without a matching key
 */
export function issuerKeys(
  config: Pick<IssuerConfig, 'issuer' | 'jwksUri'>,
  now = (): number => performance.now(),
): JWTVerifyGetKey {
  let failure: { until: number; cause: unknown } | undefined;

  const ask = async <T>(
    address: string,
    signal: AbortSignal,
    isUsable: (document: object) => document is T & object,
  ): Promise<T> => {
    if (failure !== undefined && now() < failure.until)
      throw new IssuerUnavailableError(failure.until - now(), failure.cause);
    try {
      const document = await fetchDocument(address, signal);
      if (!isUsable(document)) throw new Error(`${address} does not answer what it should`);
      failure = undefined;
      return document;
    } catch (cause) {
      failure = { until: now() + coolDownMs, cause };
      throw new IssuerUnavailableError(coolDownMs, cause);
    }
  };

  const isKeySet = (document: object): document is { keys: object[] } =>
    'keys' in document &&
    Array.isArray(document.keys) &&
    document.keys.every((key) => typeof key === 'object' && key !== null);
  const discovered = (document: object): document is { jwks_uri: string } =>
    'issuer' in document &&
    document.issuer === config.issuer &&
    'jwks_uri' in document &&
    typeof document.jwks_uri === 'string';
  const open = async (): Promise<JWTVerifyGetKey> => {
    const jwksUri =
      config.jwksUri ??
      (
        await ask(
          `${config.issuer.replace(/\/$/, '')}/.well-known/openid-configuration`,
          AbortSignal.timeout(answerMs),
          discovered,
        )
      ).jwks_uri;
    return createRemoteJWKSet(new URL(jwksUri), {
      timeoutDuration: answerMs,
      [customFetch]: async (address, { signal }) => Response.json(await ask(address, signal, isKeySet)),
    });
  };

  let keys: Promise<JWTVerifyGetKey> | undefined;
  return async (header, token) => {
    keys ??= open().catch((error: unknown) => {
      keys = undefined;
      throw error;
    });
    return (await keys)(header, token);
  };
}

/** @throws Error if the response is missing, not a JSON object, or larger than `answerBytes` */
async function fetchDocument(address: string, signal: AbortSignal): Promise<object> {
  const response = await fetch(address, { signal, redirect: 'error' });
  if (response.status !== 200) throw new Error(`${address} answered ${response.status}`);
  const text = await readAtMost(
    response.body ?? Readable.from([]),
    answerBytes,
    () => new Error(`${address} answered more than ${answerBytes} bytes`),
  );
  const document: unknown = JSON.parse(text.toString('utf8'));
  if (typeof document !== 'object' || document === null) throw new Error(`${address} answered no JSON object`);
  return document;
}
