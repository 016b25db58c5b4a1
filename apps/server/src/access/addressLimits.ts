import { RateLimiterMemory, RateLimiterRes } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import { senderOf } from '../http/addresses.ts';

/** Requests of this machine itself: its operator's, or those of a proxy that the server was not told of. */
const ownAddresses = /^(127\.|::1$|::ffff:127\.)/i;

/** An address sent more than it may. */
export class TooManyError extends Error {
  readonly waitSeconds: number;

  constructor(waitMs: number) {
    super('this address sent too many requests');
    this.name = 'TooManyError';
    this.waitSeconds = Math.max(1, Math.ceil(waitMs / 1000));
  }
}

/**
 * What one address may send to this server: requests whose token is refused, before any token is looked at, and requests through links,
 * which need none. Counted by each server for itself.
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
    const found = ownAddresses.test(address) ? null : await this.#refused.get(senderOf(address));
    if (found !== null && found.consumedPoints >= this.#refused.points) throw new TooManyError(found.msBeforeNext);
  }

  /** Counts a request whose token was refused. */
  async countRefused(address: string): Promise<void> {
    if (!ownAddresses.test(address)) await this.#refused.penalty(senderOf(address));
  }

  /** Counts a request through a link. @throws TooManyError */
  async countLink(address: string): Promise<void> {
    if (ownAddresses.test(address)) return;
    await this.#links.consume(senderOf(address)).catch((refused: unknown) => {
      throw refused instanceof RateLimiterRes ? new TooManyError(refused.msBeforeNext) : refused;
    });
  }
}
