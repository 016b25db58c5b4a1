import { createHash, randomUUID, subtle, type webcrypto } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { createFileDurably, writeFileDurably } from '../storage/durable.ts';
import type { DirectoryUser } from './directory.ts';

const fileName = 'issuer.json';
const algorithm = 'ES256';
/** The curve and hash of ES256, for WebCrypto. */
const curve = { name: 'ECDSA', namedCurve: 'P-256' };
const signature = { name: 'ECDSA', hash: 'SHA-256' };
/** Audience of minted tokens; no other service accepts them. */
export const embeddedAudience = 'offshoot';

/**
 * The issuer of tokens that an installation without an OIDC provider uses: one key pair in the data folder, with which
 * `offshoot token` mints tokens, the embedded OpenID Provider signs its tokens, and the server verifies both. The name in minted
 * tokens is random, so that no other installation accepts them.
 */
export class EmbeddedIssuer {
  readonly issuer: string;
  readonly algorithm = algorithm;
  readonly #file: string;
  #current: OpenKeys;

  private constructor(file: string, issuer: string, current: OpenKeys) {
    this.#file = file;
    this.issuer = issuer;
    this.#current = current;
  }

  /** Reads the key of a data folder, or creates it there (mode 600). Anybody who can read this file can impersonate any user. */
  static async open(dataDir: string): Promise<EmbeddedIssuer> {
    const file = path.join(dataDir, fileName);
    const version = versionOf(file);
    const stored = readKey(file) ?? (await makeKey(file));
    return new EmbeddedIssuer(file, stored.issuer, await openKeys(stored, version));
  }

  /**
   * Replaces the key of a data folder. Running servers accept tokens of the new key at once.
   * @param overlapMs how long tokens of the old keys stay valid
   */
  static async rotate(dataDir: string, overlapMs: number): Promise<void> {
    const file = path.join(dataDir, fileName);
    const stored = readKey(file) ?? (await makeKey(file));
    const now = Date.now();
    const replaced = [...(stored.earlier ?? []), { key: publicPart(stored.key), until: Infinity }];
    const earlier = replaced
      .map(({ key, until }) => ({ key, until: Math.min(until, now + overlapMs) }))
      .filter(({ until }) => until > now);
    writeFileDurably(file, JSON.stringify({ issuer: stored.issuer, key: await newKey(), earlier } satisfies StoredKey));
  }

  get publicKey(): CryptoKey {
    return this.#current.publicKey;
  }

  /** The keys whose tokens are currently valid, newest first. The file is read again when it has changed. */
  async acceptedKeys(): Promise<CryptoKey[]> {
    await this.#refresh();
    return [this.#current.publicKey, ...this.#validEarlier().map(({ publicKey }) => publicKey)];
  }

  /** The key that signs tokens, for the embedded OpenID Provider, and the version of the file that it comes from. */
  async signingKey(): Promise<{ jwk: JWK; kid: string; version: string }> {
    await this.#refresh();
    const { jwk, version } = this.#current;
    return { jwk, kid: keyIdOf(jwk), version };
  }

  /** The public keys of currently valid tokens as a JSON Web Key Set, newest first. */
  async publicKeySet(): Promise<{ keys: JWK[] }> {
    await this.#refresh();
    const jwks = [publicPart(this.#current.jwk), ...this.#validEarlier().map(({ jwk }) => jwk)];
    return {
      keys: jwks.map((jwk) => ({ ...jwk, use: 'sig', alg: algorithm, kid: keyIdOf(jwk) })),
    };
  }

  async #refresh(): Promise<void> {
    const version = versionOf(this.#file);
    if (version === this.#current.version) return;
    const stored = readKey(this.#file);
    // A missing file, or one of another issuer, takes effect at the next start only.
    if (stored?.issuer === this.issuer) this.#current = await openKeys(stored, version);
  }

  #validEarlier(): OpenKeys['earlier'] {
    const now = Date.now();
    return this.#current.earlier.filter(({ until }) => until > now);
  }

  /** A bearer token for a user of the users file, issued to an application and valid for `lifeSeconds`. */
  async mint(
    user: DirectoryUser,
    options: { applicationId: string; scope: string; lifeSeconds: number },
  ): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    const part = (value: object): string => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: algorithm, typ: 'JWT' })}.${part({
      client_id: options.applicationId,
      scope: options.scope,
      email: user.email,
      given_name: user.givenName,
      family_name: user.surname,
      iss: this.issuer,
      aud: embeddedAudience,
      sub: user.id,
      jti: randomUUID(),
      iat: now,
      exp: now + options.lifeSeconds,
    })}`;
    const bytes = await subtle.sign(signature, this.#current.privateKey, Buffer.from(signed));
    return `${signed}.${Buffer.from(bytes).toString('base64url')}`;
  }
}

type CryptoKey = webcrypto.CryptoKey;

/** A key of ES256 as JSON (RFC 7517). */
interface JWK {
  kty: string;
  crv: string;
  x: string;
  y: string;
  /** Private keys only. */
  d?: string;
}

interface StoredKey {
  issuer: string;
  key: JWK;
  /** Replaced public keys, and when their tokens expire, milliseconds since 1970. */
  earlier?: { key: JWK; until: number }[];
}

/** Contents of a key file. */
interface OpenKeys {
  publicKey: CryptoKey;
  privateKey: CryptoKey;
  /** The private key. */
  jwk: JWK;
  earlier: { publicKey: CryptoKey; jwk: JWK; until: number }[];
  /** Modification time of the file before it was read; a later one means that it must be read again. */
  version: string;
}

async function openKeys({ key, earlier = [] }: StoredKey, version: string): Promise<OpenKeys> {
  const open = (jwk: JWK, use: 'sign' | 'verify'): Promise<CryptoKey> =>
    subtle.importKey('jwk', { ...jwk }, curve, use === 'verify', [use]);
  const old = await Promise.all(
    earlier.map(async (each) => ({
      publicKey: await open(publicPart(each.key), 'verify'),
      jwk: publicPart(each.key),
      until: each.until,
    })),
  );
  return {
    publicKey: await open(publicPart(key), 'verify'),
    privateKey: await open({ ...publicPart(key), d: key.d ?? '' }, 'sign'),
    jwk: key,
    earlier: old.reverse(),
    version,
  };
}

function publicPart({ kty, crv, x, y }: JWK): JWK {
  return { kty, crv, x, y };
}

/** The thumbprint of a key (RFC 7638). */
function keyIdOf({ crv, kty, x, y }: JWK): string {
  return createHash('sha256').update(JSON.stringify({ crv, kty, x, y })).digest('base64url');
}

function versionOf(file: string): string {
  const stats = statSync(file, { throwIfNoEntry: false });
  return stats === undefined ? '' : `${stats.ino} ${stats.mtimeMs} ${stats.size}`;
}

function readKey(file: string): StoredKey | undefined {
  try {
    return JSON.parse(readFileSync(file, 'utf8')) as StoredKey;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}

async function makeKey(file: string): Promise<StoredKey> {
  const stored: StoredKey = { issuer: `urn:offshoot:${randomUUID()}`, key: await newKey() };
  // Another process of this installation may have created the file in the meantime: use that one.
  return createFileDurably(file, JSON.stringify(stored)) ? stored : (readKey(file) as StoredKey);
}

async function newKey(): Promise<JWK> {
  const { privateKey } = await subtle.generateKey(curve, true, ['sign', 'verify']);
  const exported = (await subtle.exportKey('jwk', privateKey)) as JWK;
  return { ...publicPart(exported), d: exported.d ?? '' };
}
