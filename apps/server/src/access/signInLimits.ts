import { RateLimiterMemory } from 'rate-limiter-flexible';
import type { Config } from '../config.ts';
import { senderOf } from '../http/addresses.ts';
import { isOwnAddress, TooManyError } from './addressLimits.ts';

/** One address may be that of an office with several users. */
const addressFactor = 3;

/** Limits the wrong passwords of one user and of one address. Each server counts separately. */
export class SignInLimits {
  readonly #accounts: RateLimiterMemory;
  readonly #addresses: RateLimiterMemory;

  constructor({ signIn: { failures } }: Pick<Config, 'signIn'>) {
    const { requests: points, seconds: duration } = failures;
    this.#accounts = new RateLimiterMemory({ keyPrefix: 'account', points, duration });
    this.#addresses = new RateLimiterMemory({ keyPrefix: 'address', points: points * addressFactor, duration });
  }

  /**
   * Counts an attempt before its password is checked, so that attempts at the same time do not exceed the limit.
   * @returns a function that takes the attempt back when the password was right
   * @throws TooManyError
   */
  async attempt(account: string, address: string): Promise<() => Promise<void>> {
    // What is typed as a name is as long as the form allows; the key is the same for a name in any case.
    const key = account.toLowerCase();
    const sender = isOwnAddress(address) ? undefined : senderOf(address);
    if (sender !== undefined) {
      const sent = await this.#addresses.penalty(sender);
      if (sent.consumedPoints > this.#addresses.points) throw new TooManyError(sent.msBeforeNext);
    }
    const counted = await this.#accounts.penalty(key);
    if (counted.consumedPoints > this.#accounts.points) throw new TooManyError(counted.msBeforeNext);
    return async () => {
      await this.#accounts.delete(key);
      if (sender !== undefined) await this.#addresses.reward(sender);
    };
  }
}
