import { errors, type JWTPayload } from 'jose';
import { countText } from '../terminal.ts';

/** Why a token is refused. */
export type RefusalCode =
  | 'malformed'
  | 'issuerUnknown'
  | 'keyUnknown'
  | 'badSignature'
  | 'algorithm'
  | 'notAnAccessToken'
  | 'audience'
  | 'expired'
  | 'notYetValid'
  | 'claim'
  | 'scope'
  | 'userUnknown'
  | 'tierUnknown';

/** The reason for which a token is refused, for the log and `offshoot check-token`. Callers get the documented 401 without it. */
export class RefusedToken extends Error {
  readonly code: RefusalCode;
  /** What an operator can do about it. */
  readonly remedy: string;
  /** The configured issuer of the token; absent if there is none. */
  readonly issuer: string | undefined;

  constructor(
    code: RefusalCode,
    message: string,
    { remedy, issuer, cause }: { remedy: string; issuer?: string | undefined; cause?: unknown },
  ) {
    super(message, { cause });
    this.name = 'RefusedToken';
    this.code = code;
    this.remedy = remedy;
    this.issuer = issuer;
  }
}

/** Accepted difference between the clocks of an issuer and of this server. */
export const clockToleranceSeconds = 5;

const maxShownLength = 200;
const maxShownValues = 10;

/** A value from a token, quoted, escaped and bounded: whoever sends a token chooses what it contains. */
export function quoted(value: unknown): string {
  if (value === undefined) return 'none';
  if (Array.isArray(value)) {
    const [first, ...others] = value.slice(0, maxShownValues) as unknown[];
    const more = value.length - maxShownValues;
    return first === undefined
      ? 'none'
      : [first, ...others].map((each) => quoted(each ?? null)).join(', ') + (more > 0 ? ` and ${more} more` : '');
  }
  const text = typeof value === 'string' ? value : JSON.stringify(value);
  return `${JSON.stringify(text.slice(0, maxShownLength))}${text.length > maxShownLength ? '…' : ''}`;
}

/** A duration in its largest unit. */
function durationText(seconds: number): string {
  const units = [
    [86_400, 'day'],
    [3600, 'hour'],
    [60, 'minute'],
    [1, 'second'],
  ] as const;
  const whole = Math.max(1, Math.round(seconds));
  const [size, name] = units.find(([unit]) => whole >= unit) ?? [1, 'second'];
  const count = Math.floor(whole / size);
  return countText(count, name);
}

/** What a token of an issuer must have. */
export interface Expected {
  issuer: string;
  audiences: readonly string[];
  algorithms: readonly string[];
}

function audienceRefusal(payload: JWTPayload, { issuer, audiences }: Expected, cause?: unknown): RefusedToken {
  return new RefusedToken('audience', `its audience is ${quoted(payload.aud)}; wanted is ${quoted(audiences)}`, {
    issuer,
    cause,
    remedy:
      'Request the token for this server (its audience, resource or API scope), or add the audience to `audience` of the issuer if it means this server.',
  });
}

function expiredRefusal({ exp }: JWTPayload, { issuer }: Expected, cause?: unknown): RefusedToken {
  const since = typeof exp === 'number' ? `${durationText(Date.now() / 1000 - exp)} ago` : 'at an unknown time';
  return new RefusedToken('expired', `it expired ${since}`, {
    issuer,
    cause,
    remedy:
      'Get a new token; an application renews it with its refresh token. If the token is new, compare the clocks of the issuer and of this server.',
  });
}

function notYetValidRefusal({ nbf }: JWTPayload, { issuer }: Expected, cause?: unknown): RefusedToken {
  const wait = typeof nbf === 'number' ? `for another ${durationText(nbf - Date.now() / 1000)}` : 'yet';
  return new RefusedToken('notYetValid', `it is not valid ${wait}`, {
    issuer,
    cause,
    remedy: 'Synchronize the clocks of the issuer and of this server (NTP).',
  });
}

export function scopeRefusal(found: readonly string[], wanted: string, issuer: string): RefusedToken {
  return new RefusedToken('scope', `its scope is ${quoted(found)}; wanted is ${quoted(wanted)}`, {
    issuer,
    remedy: `Let the application request the scope ${quoted(wanted)}; or set requiredScope (null requires none), or scopeClaims of the issuer.`,
  });
}

export function userIdRefusal(claim: string, issuer: string): RefusedToken {
  return new RefusedToken(
    'claim',
    `its claim ${quoted(claim)}, which names the user, is not a text of 1 to 255 characters`,
    {
      issuer,
      remedy: 'Let the issuer put the claim into access tokens, or set userIdClaim of the issuer.',
    },
  );
}

/** What is wrong with the claims of a token, whether or not its signature is verified. */
export function claimFaults(payload: JWTPayload, expected: Expected): RefusedToken[] {
  const now = Date.now() / 1000;
  const audiences: unknown[] = [payload.aud].flat();
  return [
    ...(expected.audiences.some((audience) => audiences.includes(audience))
      ? []
      : [audienceRefusal(payload, expected)]),
    ...(typeof payload.exp === 'number' && payload.exp > now - clockToleranceSeconds
      ? []
      : [expiredRefusal(payload, expected)]),
    ...(typeof payload.nbf === 'number' && payload.nbf > now + clockToleranceSeconds
      ? [notYetValidRefusal(payload, expected)]
      : []),
  ];
}

/** The reason in an error of the library that verifies tokens; undefined for errors that are no fault of the token. */
export function refusalOf(
  error: unknown,
  payload: JWTPayload,
  header: { alg?: unknown; kid?: unknown; typ?: unknown },
  expected: Expected,
): RefusedToken | undefined {
  const { issuer } = expected;
  const refused = (code: RefusalCode, message: string, remedy: string): RefusedToken =>
    new RefusedToken(code, message, { issuer, cause: error, remedy });
  if (error instanceof RefusedToken) return error;
  if (error instanceof errors.JWTExpired) return expiredRefusal(payload, expected, error);
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === 'aud') return audienceRefusal(payload, expected, error);
    if (error.claim === 'nbf') return notYetValidRefusal(payload, expected, error);
    if (error.claim === 'typ')
      return refused(
        'notAnAccessToken',
        `the type in its header is ${quoted(header.typ)}`,
        'Send an access token; tokenType of the issuer says which type its access tokens have.',
      );
    return refused(
      'claim',
      `its claim ${quoted(error.claim)} is ${error.reason === 'missing' ? 'missing' : 'not valid'}`,
      'Let the issuer put the claim into access tokens.',
    );
  }
  if (error instanceof errors.JWSSignatureVerificationFailed)
    return refused(
      'badSignature',
      'its signature is not that of the issuer',
      'The token was changed on its way, cut off, or signed with another key under the same key id. Get a new one.',
    );
  if (error instanceof errors.JWKSNoMatchingKey || error instanceof errors.JWKSMultipleMatchingKeys)
    return refused(
      'keyUnknown',
      `the issuer has ${error instanceof errors.JWKSNoMatchingKey ? 'no key' : 'several keys'} for its key id ${quoted(header.kid)} and algorithm ${quoted(header.alg)}`,
      'Get a new token. If new tokens are refused too, compare jwksUri, or jwks_uri in the discovery document, with the issuer that signs them.',
    );
  if (error instanceof errors.JOSEAlgNotAllowed || error instanceof errors.JOSENotSupported)
    return refused(
      'algorithm',
      `its algorithm is ${quoted(header.alg)}; accepted are ${quoted(expected.algorithms)}`,
      'Let the issuer sign with one of these, or add the algorithm to `algorithms` of the issuer.',
    );
  if (error instanceof errors.JWTInvalid || error instanceof errors.JWSInvalid) return malformedRefusal(error, issuer);
  return undefined;
}

export function malformedRefusal(cause?: unknown, issuer?: string): RefusedToken {
  return new RefusedToken('malformed', 'it is not a signed JSON Web Token', {
    issuer,
    cause,
    remedy:
      'Send the whole access token, as a JSON Web Token. Some issuers give opaque tokens unless an audience is requested.',
  });
}

/** Window of the log, milliseconds, and most lines of one reason and issuer in it. */
const windowMs = 60_000;
const linesPerWindow = 5;

/**
 * Decides which refusals are logged: a client that repeats a refused request, or an attacker, must not fill the log. There is
 * one window for each reason and configured issuer, so memory is bounded however many tokens are refused.
 */
export class RefusalLog {
  readonly #windows = new Map<string, { endsAt: number; texts: Set<string>; suppressed: number }>();
  readonly #now: () => number;

  /** @param now milliseconds of a monotonic clock */
  constructor(now = (): number => performance.now()) {
    this.#now = now;
  }

  /** @returns whether to log this refusal, and how many of its kind were not logged in the window before */
  next({ code, issuer = '', message }: RefusedToken): { logged: boolean; suppressed: number } {
    const key = `${code} ${issuer}`;
    const now = this.#now();
    let window = this.#windows.get(key);
    const suppressed = window === undefined || now < window.endsAt ? 0 : window.suppressed;
    if (window === undefined || now >= window.endsAt) {
      window = { endsAt: now + windowMs, texts: new Set(), suppressed: 0 };
      this.#windows.set(key, window);
    }
    if (window.texts.size >= linesPerWindow || window.texts.has(message)) {
      window.suppressed++;
      return { logged: false, suppressed };
    }
    window.texts.add(message);
    return { logged: true, suppressed };
  }
}
