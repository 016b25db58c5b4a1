import { randomUUID } from 'node:crypto';
import { readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { exportJWK, generateKeyPair, importJWK, SignJWT, type CryptoKey, type JWK } from 'jose';
import { createFileDurably, writeFileDurably } from '../storage/durable.ts';
import type { DirectoryUser } from './directory.ts';

const fileName = 'issuer.json';
const algorithm = 'ES256';
/** What minted tokens are for; nothing else accepts them. */
export const embeddedAudience = 'offshoot';

/**
 * The issuer of tokens that an installation without an OIDC provider uses: one key pair in the data folder, with which
 * `offshoot token` mints and the server verifies. Its name is random, so that no other installation takes its tokens.
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

  /** Reads the key of a data folder, or makes one there (mode 600). Whoever reads that file can be anyone. */
  static async open(dataDir: string): Promise<EmbeddedIssuer> {
    const file = path.join(dataDir, fileName);
    const version = versionOf(file);
    const stored = readKey(file) ?? (await makeKey(file));
    return new EmbeddedIssuer(file, stored.issuer, await openKeys(stored, version));
  }

  /**
   * Replaces the key of a data folder. Servers that run on it take tokens of the new one at once.
   * @param overlapMs how long tokens of the old ones stay good
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

  /** The keys whose tokens are good now, the latest first. The file is read again when it was changed. */
  async acceptedKeys(): Promise<CryptoKey[]> {
    const version = versionOf(this.#file);
    if (version !== this.#current.version) {
      const stored = readKey(this.#file);
      // One that is gone, or another issuer's, is for the next start.
      if (stored?.issuer === this.issuer) this.#current = await openKeys(stored, version);
    }
    const now = Date.now();
    return [
      this.#current.publicKey,
      ...this.#current.earlier.filter(({ until }) => until > now).map(({ publicKey }) => publicKey),
    ];
  }

  /** A bearer token for a user of the users file, sent by an application, good for `lifeSeconds`. */
  async mint(
    user: DirectoryUser,
    options: { applicationId: string; scope: string; lifeSeconds: number },
  ): Promise<string> {
    const now = Math.floor(Date.now() / 1000);
    return new SignJWT({
      client_id: options.applicationId,
      scope: options.scope,
      email: user.email,
      given_name: user.givenName,
      family_name: user.surname,
    })
      .setProtectedHeader({ alg: algorithm, typ: 'JWT' })
      .setIssuer(this.issuer)
      .setAudience(embeddedAudience)
      .setSubject(user.id)
      .setJti(randomUUID())
      .setIssuedAt(now)
      .setExpirationTime(now + options.lifeSeconds)
      .sign(this.#current.privateKey);
  }
}

interface StoredKey {
  issuer: string;
  key: JWK;
  /** Public keys that were replaced, and until when their tokens are good, ms since 1970. */
  earlier?: { key: JWK; until: number }[];
}

/** What a file of keys holds. */
interface OpenKeys {
  publicKey: CryptoKey;
  privateKey: CryptoKey;
  earlier: { publicKey: CryptoKey; until: number }[];
  /** Of the file, taken before it was read: a later one means to read it again. */
  version: string;
}

async function openKeys({ key, earlier = [] }: StoredKey, version: string): Promise<OpenKeys> {
  const open = async (jwk: JWK): Promise<CryptoKey> => (await importJWK(jwk, algorithm)) as CryptoKey;
  const old = await Promise.all(earlier.map(async (each) => ({ publicKey: await open(each.key), until: each.until })));
  return { publicKey: await open(publicPart(key)), privateKey: await open(key), earlier: old.reverse(), version };
}

function publicPart({ kty, crv, x, y }: JWK): JWK {
  return { kty, crv, x, y } as JWK;
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
  // Another process of this installation may have made one in the meantime: that one counts.
  return createFileDurably(file, JSON.stringify(stored)) ? stored : (readKey(file) as StoredKey);
}

async function newKey(): Promise<JWK> {
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
  return exportJWK(privateKey);
}
