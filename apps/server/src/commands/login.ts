import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { Command } from 'commander';
import { withoutTrailingSlashes } from '../http/trailingSlashes.ts';
import { exitCodes, ExitError } from './exit.ts';
import { ask, discover, requestTokens, type IssuerAddresses, type TokenAnswer } from './oauth.ts';
import { currentLogin, removeLogin, savedTokens, saveLogin } from './savedLogins.ts';
import { findServer } from './serverAddress.ts';

interface LoginOptions {
  url?: string;
  issuer?: string;
  clientId: string;
  scope: string;
  device?: boolean;
}

/** Longest wait for the user to sign in, seconds. */
const longestWaitSeconds = 600;
const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';

/** `offshoot login`: signs in and keeps the login for later commands. */
export function loginCommand(): Command {
  return new Command('login')
    .description(
      'Sign in to a server in the browser, or with a code on another device. Later commands for this server use the login.',
    )
    .option('--url <url>', 'address of the server; by default as for other commands')
    .option('--issuer <url>', 'OpenID Connect issuer; the server itself by default')
    .option('--client-id <id>', 'client of the command line at the issuer', 'offshoot-cli')
    .option('--scope <scope>', 'scopes, separated by spaces', 'openid offline_access itwin-platform')
    .option('--device', 'show a code to enter on another device, for machines without a browser')
    .action(async (options: LoginOptions) => {
      const { base, origin } = serverOf(findServer(options).url);
      const embedded = `${base}/auth`;
      const addresses = await discover(options.issuer ?? embedded);
      // The embedded issuer gives tokens for its own API alone; others are told which one is meant.
      const target = addresses.issuer === embedded ? {} : { resource: base };
      const tokens = await (options.device === true ? byDevice : byBrowser)(addresses, options, target);
      saveLogin({
        origin,
        url: base,
        signedInAt: Date.now(),
        issuer: addresses.issuer,
        clientId: options.clientId,
        tokenEndpoint: addresses.token_endpoint,
        ...savedTokens(tokens),
      });
      process.stderr.write(
        `Signed in to ${origin}.${tokens.refresh_token === undefined ? ' The issuer gave no refresh token, so the login ends with its access token.' : ''}\n`,
      );
    });
}

/** `offshoot logout`: removes a login, and revokes it at the issuer. */
export function logoutCommand(): Command {
  return new Command('logout')
    .description('Remove the login for a server, and revoke it at the issuer.')
    .option('--url <url>', 'address of the server; by default as for other commands')
    .action(async (options: { url?: string }) => {
      const { origin } = serverOf(findServer(options, { login: currentLogin() }).url);
      const login = removeLogin(origin);
      if (login === undefined) throw new ExitError(exitCodes.usage, `there is no login for ${origin}`);
      process.stderr.write(`The login for ${origin} is removed.\n`);
      if (login.refreshToken === undefined) return;
      const { revocation_endpoint: address } = await discover(login.issuer);
      if (address === undefined) {
        process.stderr.write('The issuer has no address for revocation: its tokens stay valid until they expire.\n');
        return;
      }
      const { status } = await ask('POST', address, {
        token: login.refreshToken,
        token_type_hint: 'refresh_token',
        client_id: login.clientId,
      });
      if (status !== 200) throw new ExitError(exitCodes.refused, `the issuer did not revoke the login (${status})`);
    });
}

/** The address of a server without the path of the API, and its origin. @throws ExitError usage */
function serverOf(url: string): { base: string; origin: string } {
  if (!URL.canParse(url) || !/^https?:$/.test(new URL(url).protocol))
    throw new ExitError(exitCodes.usage, `'${url}' is not a valid address; write it like http://localhost:4700`);
  return {
    base: withoutTrailingSlashes(withoutTrailingSlashes(url).replace(/\/imodels$/i, '')),
    origin: new URL(url).origin,
  };
}

interface DeviceAnswer {
  device_code: string;
  user_code: string;
  verification_uri: string;
  verification_uri_complete?: string;
  expires_in: number;
  interval?: number;
}

/** Device Authorization Grant (RFC 8628). */
async function byDevice(
  { device_authorization_endpoint: endpoint, token_endpoint: tokenEndpoint }: IssuerAddresses,
  { clientId, scope }: LoginOptions,
  target: { resource?: string },
): Promise<TokenAnswer> {
  if (endpoint === undefined)
    throw new ExitError(exitCodes.usage, 'the issuer has no sign-in with a code; leave out --device');
  const { status, body } = await ask('POST', endpoint, { client_id: clientId, scope, ...target });
  const device = body as Partial<DeviceAnswer>;
  if (status !== 200 || device.device_code === undefined || device.user_code === undefined)
    throw new ExitError(exitCodes.refused, `the issuer gave no code (${status})`);
  process.stderr.write(`Open ${device.verification_uri ?? ''} and enter the code ${device.user_code}\n`);
  const until = Date.now() + Math.min(device.expires_in ?? longestWaitSeconds, longestWaitSeconds) * 1000;
  let interval = Math.min(device.interval ?? 5, 60);
  while (Date.now() < until) {
    await pause(interval * 1000);
    const answer = await requestTokens(tokenEndpoint, {
      grant_type: deviceGrant,
      device_code: device.device_code,
      client_id: clientId,
    });
    if (!('error' in answer)) return answer;
    // Rule of RFC 8628: 5 seconds longer after each slow_down.
    if (answer.error === 'slow_down') interval += 5;
    else if (answer.error !== 'authorization_pending') throw refused(answer);
  }
  throw new ExitError(exitCodes.refused, 'the code has expired; run offshoot login again');
}

/** Authorization code with PKCE, and a redirect to this machine (RFC 8252). */
async function byBrowser(
  { authorization_endpoint: endpoint, token_endpoint: tokenEndpoint }: IssuerAddresses,
  { clientId, scope }: LoginOptions,
  target: { resource?: string },
): Promise<TokenAnswer> {
  if (endpoint === undefined || !URL.canParse(endpoint))
    throw new ExitError(exitCodes.usage, 'the issuer has no sign-in page');
  const [verifier, state] = [randomBytes(32).toString('base64url'), randomBytes(16).toString('base64url')];
  const listener = await listenForCode(state);
  try {
    const redirectUri = `http://127.0.0.1:${listener.port}/callback`;
    const url = new URL(endpoint);
    for (const [name, value] of Object.entries({
      response_type: 'code',
      client_id: clientId,
      redirect_uri: redirectUri,
      scope,
      ...target,
      state,
      code_challenge: createHash('sha256').update(verifier).digest('base64url'),
      code_challenge_method: 'S256',
      // Without it, OpenID Connect ignores offline_access.
      ...(scope.split(' ').includes('offline_access') && { prompt: 'consent' }),
    }))
      url.searchParams.set(name, value);
    process.stderr.write(`Sign in at:\n${url.href}\n`);
    openBrowser(url.href);
    const answer = await requestTokens(tokenEndpoint, {
      grant_type: 'authorization_code',
      code: await listener.code,
      redirect_uri: redirectUri,
      client_id: clientId,
      code_verifier: verifier,
    });
    if ('error' in answer) throw refused(answer);
    return answer;
  } finally {
    listener.close();
  }
}

function refused({ error, description }: { error: string; description?: string }): ExitError {
  return new ExitError(exitCodes.refused, `the sign-in failed: ${description ?? error}`);
}

/** Waits on a free port of this machine for the redirect with the code. Requests without the right state change nothing. */
async function listenForCode(state: string): Promise<{ port: number; code: Promise<string>; close: () => void }> {
  const { promise: code, resolve, reject } = Promise.withResolvers<string>();
  code.catch(() => undefined);
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://127.0.0.1');
    const given = searchParams.get('code');
    const error = searchParams.get('error');
    response.setHeader('content-type', 'text/plain; charset=utf-8').setHeader('connection', 'close');
    if (pathname !== '/callback' || searchParams.get('state') !== state || (given ?? error) === null) {
      response.writeHead(404).end('There is nothing here.');
      return;
    }
    response.end(given === null ? 'The sign-in failed.' : 'You are signed in and can close this page.');
    if (given === null)
      reject(refused({ error: error ?? '', description: searchParams.get('error_description') ?? error ?? '' }));
    else resolve(given);
  });
  await new Promise<void>((listening, failed) => {
    server.once('error', failed);
    server.listen(0, '127.0.0.1', listening);
  });
  const timer = setTimeout(
    () => reject(new ExitError(exitCodes.failed, `nobody signed in within ${longestWaitSeconds / 60} minutes`)),
    longestWaitSeconds * 1000,
  );
  return {
    port: (server.address() as AddressInfo).port,
    code,
    close: () => {
      clearTimeout(timer);
      server.close();
      server.closeAllConnections();
    },
  };
}

/** Opens the page if a browser can be started; the user has the address in any case. */
function openBrowser(url: string): void {
  if (process.env['OFFSHOOT_NO_BROWSER'] !== undefined) return;
  const [program, ...args] = { darwin: ['open'], win32: ['rundll32', 'url.dll,FileProtocolHandler'] }[
    process.platform as string
  ] ?? ['xdg-open'];
  spawn(program as string, [...args, url], { stdio: 'ignore', detached: true })
    .on('error', () => undefined)
    .unref();
}
