import { randomBytes, scrypt, timingSafeEqual, type ScryptOptions } from 'node:crypto';

/**
 * Parameters of new hashes: 32 MiB and about 0.25 s of one core, the setting that OWASP recommends for N = 2^15. Each hash
 * records its own, so that they can be raised later.
 */
const cost = { N: 2 ** 15, r: 8, p: 3 };
const saltBytes = 16;
const hashBytes = 32;

/** Longest password, characters. A limit keeps the input of the hash small. */
export const longestPassword = 256;
/** Shortest password, characters. */
export const shortestPassword = 10;

/** Hashes computed at once in this process, and requests that may wait for their turn. Each takes 32 MiB. */
const simultaneous = 2;
const mostWaiting = 100;

/** Too many sign-ins at once. */
export class PasswordsBusyError extends Error {
  constructor() {
    super('too many passwords are being checked');
    this.name = 'PasswordsBusyError';
  }
}

let running = 0;
const waiting: (() => void)[] = [];

async function inTurn<T>(work: () => Promise<T>): Promise<T> {
  if (running >= simultaneous) {
    if (waiting.length >= mostWaiting) throw new PasswordsBusyError();
    // The task that ends passes its place on, so the count does not change.
    await new Promise<void>((resolve) => waiting.push(resolve));
  } else running++;
  try {
    return await work();
  } finally {
    const next = waiting.shift();
    if (next === undefined) running--;
    else next();
  }
}

/** Passwords are compared in one Unicode form, because keyboards and systems differ in which one they send. */
function derive(password: string, salt: Buffer, { N, r, p }: typeof cost, length: number): Promise<Buffer> {
  const options: ScryptOptions = { N, r, p, maxmem: 256 * N * r };
  return inTurn(
    () =>
      new Promise((resolve, reject) => {
        scrypt(password.normalize('NFKC'), salt, length, options, (error, key) =>
          error === null ? resolve(key) : reject(error),
        );
      }),
  );
}

/** @returns `scrypt$N$r$p$salt$hash`, with salt and hash in base64url */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(saltBytes);
  const hash = await derive(password, salt, cost, hashBytes);
  return ['scrypt', cost.N, cost.r, cost.p, salt.toString('base64url'), hash.toString('base64url')].join('$');
}

/** A salt for users without a password: refusing them takes as long as refusing a wrong password. */
const nobodysSalt = randomBytes(saltBytes);

/**
 * Whether a password has this hash.
 * @param hash undefined for a user without a password; the answer is then false and takes as long as any other
 */
export async function isPassword(password: string, hash: string | undefined): Promise<boolean> {
  const [scheme, N, r, p, salt, expected] = hash?.split('$') ?? [];
  if (scheme !== 'scrypt' || salt === undefined || expected === undefined) {
    await derive(password, nobodysSalt, cost, hashBytes);
    return false;
  }
  const wanted = Buffer.from(expected, 'base64url');
  const found = await derive(
    password,
    Buffer.from(salt, 'base64url'),
    { N: Number(N), r: Number(r), p: Number(p) },
    wanted.length,
  );
  return timingSafeEqual(found, wanted);
}
