import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { exportJWK, generateKeyPair, importJWK, SignJWT, type CryptoKey, type JWK } from 'jose';
import { createFileDurably } from '../storage/durable.ts';
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
  readonly publicKey: CryptoKey;
  readonly #privateKey: CryptoKey;

  private constructor(issuer: string, publicKey: CryptoKey, privateKey: CryptoKey) {
    this.issuer = issuer;
    this.publicKey = publicKey;
    this.#privateKey = privateKey;
  }

  /** Reads the key of a data folder, or makes one there (mode 600). Whoever reads that file can be anyone. */
  static async open(dataDir: string): Promise<EmbeddedIssuer> {
    const file = path.join(dataDir, fileName);
    const stored = readKey(file) ?? (await makeKey(file));
    const { kty, crv, x, y } = stored.key as Required<JWK>;
    return new EmbeddedIssuer(stored.issuer, (await importJWK({ kty, crv, x, y }, algorithm)) as CryptoKey, (await importJWK(stored.key, algorithm)) as CryptoKey);
  }

  /** A bearer token for a user of the users file, sent by an application, good for `lifeSeconds`. */
  async mint(user: DirectoryUser, options: { applicationId: string; scope: string; lifeSeconds: number }): Promise<string> {
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
      .sign(this.#privateKey);
  }
}

interface StoredKey {
  issuer: string;
  key: JWK;
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
  const { privateKey } = await generateKeyPair(algorithm, { extractable: true });
  const stored: StoredKey = { issuer: `urn:offshoot:${randomUUID()}`, key: await exportJWK(privateKey) };
  // Another process of this installation may have made one in the meantime: that one counts.
  return createFileDurably(file, JSON.stringify(stored)) ? stored : (readKey(file) as StoredKey);
}
