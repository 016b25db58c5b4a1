import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import { senderOf } from '../http/addresses.ts';

/** Loopback addresses: requests of the operator, or of a proxy that is not configured. */
const ownAddresses = /^(127\.|::1$|::ffff:127\.)/i;

export function isOwnAddress(address: string): boolean {
  return ownAddresses.test(address);
}

/** An address exceeded its limit. */
export class TooManyError extends Error {
  readonly waitSeconds: number;

  constructor(waitMs: number) {
    super('this address sent too many requests');
    this.name = 'TooManyError';
    this.waitSeconds = Math.max(1, Math.ceil(waitMs / 1000));
  }
}

/**
 * Limits per client address: requests whose token was refused (checked before the next token is verified), and requests
 * through signed links, which need no token. Each server counts separately.
 */
export class AddressLimits {
  readonly #refused: RateLimiterMemory;
  readonly #links: RateLimiterMemory;

  constructor({ rateLimits: { refused, links } }: Pick<Config, 'rateLimits'>) {
    this.#refused = new RateLimiterMemory({
      keyPrefix: 'refused',
      points: refused.requests,
      duration: refused.seconds,
    });
    this.#links = new RateLimiterMemory({ keyPrefix: 'links', points: links.requests, duration: links.seconds });
  }

  /** @throws TooManyError when too many tokens of this address were refused */
  async requireFew(address: string): Promise<void> {
    const found = isOwnAddress(address) ? null : await this.#refused.get(senderOf(address));
    if (found !== null && found.consumedPoints >= this.#refused.points) throw new TooManyError(found.msBeforeNext);
  }

  /** Counts a request whose token was refused. */
  async countRefused(address: string): Promise<void> {
    if (!isOwnAddress(address)) await this.#refused.penalty(senderOf(address));
  }

  /** Counts a request through a link. @throws TooManyError */
  async countLink(address: string): Promise<void> {
    if (isOwnAddress(address)) return;
    await this.#links.consume(senderOf(address)).catch((refused: unknown) => {
      throw refused instanceof RateLimiterRes ? new TooManyError(refused.msBeforeNext) : refused;
    });
  }
}
