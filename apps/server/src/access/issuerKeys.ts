import { Readable } from 'node:stream';
import { createRemoteJWKSet, customFetch, type JWTVerifyGetKey } from 'jose';
import type { IssuerConfig } from '../config.ts';
import { readAtMost } from '../http/readAtMost.ts';

/** How long an issuer that gave no keys is not asked again, milliseconds. A token costs no signature to forge, and each would ask. */
export const coolDownMs = 10_000;
/** How long an answer of an issuer may take, milliseconds, and how long it may be, bytes. */
const answerMs = 5000;
const answerBytes = 2 ** 20;

/** The keys of an issuer cannot be had. */
export class IssuerUnavailableError extends Error {
  /** Until the issuer is asked again. */
  readonly waitMs: number;

  constructor(waitMs: number, cause: unknown) {
    super('the keys of the token issuer cannot be fetched', { cause });
    this.name = 'IssuerUnavailableError';
    this.waitMs = waitMs;
  }
}

/**
 * The keys of an OpenID Connect issuer, from its discovery document (or `jwksUri`), fetched when first needed. One that fails
 * is left alone for `coolDownMs`; keys that are known go on to count meanwhile.
 * @param now milliseconds of a clock that nobody sets
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

/** @throws Error when the answer is none, no JSON object, or longer than `answerBytes` */
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
