import type { Config } from '../config.ts';

/** Path of the embedded OpenID Provider below the address of the server. Its discovery document is below this path. */
export const signInPath = '/auth';

/** Path of the page on which the holder of a one-time link sets a password, below the path of sign-in. */
export const passwordPath = '/password';

const loopbackOrigin = /^http:\/\/(?:localhost|127\.0\.0\.1|\[::1\])(?::\d{1,5})?$/;

/** Why sign-in is refused at an address, as a sentence for the person who sees it. */
export class SignInRefusedError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'SignInRefusedError';
  }
}

/**
 * The address below which sign-in happens: the configured public address, or the loopback address that the client used.
 * @param requested the address of the server as the client wrote it
 * @throws SignInRefusedError beyond this machine without a public address, or without https
 */
export function signInBase({ publicUrl, signIn }: Pick<Config, 'publicUrl' | 'signIn'>, requested: string): string {
  if (publicUrl === undefined) {
    if (loopbackOrigin.test(requested)) return requested;
    throw new SignInRefusedError(
      'Sign-in is available at http://localhost only until the public address of this server is configured. Set publicUrl to an https address.',
    );
  }
  const { origin, protocol } = new URL(publicUrl);
  if (protocol === 'https:' || signIn.allowHttp || loopbackOrigin.test(origin)) return publicUrl;
  throw new SignInRefusedError(
    'Sign-in needs https, because passwords and tokens would be readable on the network. Set publicUrl to an https address, or signIn.allowHttp to true on a network that you trust.',
  );
}

/** Whether a token's issuer is the embedded provider of this installation. Its tokens are signed with the installation's key. */
export function isSignInIssuer(config: Pick<Config, 'publicUrl' | 'signIn'>, issuer: string): boolean {
  if (!issuer.endsWith(signInPath)) return false;
  const base = issuer.slice(0, -signInPath.length);
  try {
    return signInBase(config, base) === base;
  } catch (error) {
    if (error instanceof SignInRefusedError) return false;
    throw error;
  }
}
