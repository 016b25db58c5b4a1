import { createHash, timingSafeEqual } from 'node:crypto';
import type { ClientConfig, Config } from '../config.ts';
import { consolePath } from '../http/console.ts';
import type { SignInState } from './state.ts';

/** Kind of the rows of clients that `offshoot clients add` registers. */
const kind = 'Client';

/** An application that uses sign-in. */
export interface SignInClient {
  id: string;
  name: string;
  /** SHA-256 of the secret, hexadecimal; undefined for a public client. */
  secretHash: string | undefined;
  redirectUris: readonly string[];
  postLogoutRedirectUris: readonly string[];
  grantTypes: readonly string[];
  /** Whether users are asked before the first sign-in. */
  consent: boolean;
  organizationId: string | undefined;
}

/** Id of the command line, which is also in the users file of new installations. */
const commandLineClient = 'offshoot-cli';
/** Id of the pages that the server itself serves. */
export const consoleClient = 'offshoot-console';

const deviceGrant = 'urn:ietf:params:oauth:grant-type:device_code';
const loopback = /^http:\/\/(?:localhost|127\.0\.0\.1|\[::1\])(?=[:/]|$)/;

/** The clients of the embedded OpenID Provider: its own, those of the configuration, and registered ones. */
export class SignInClients {
  readonly #configured: ReadonlyMap<string, SignInClient>;
  readonly #state: SignInState;

  constructor({ clients }: Pick<Config, 'clients'>, state: SignInState) {
    this.#configured = new Map(clients.map((client) => [client.id, clientOf(client)]));
    this.#state = state;
  }

  /** @param base the address of the server, at which its own pages are */
  async find(id: string, base?: string): Promise<SignInClient | undefined> {
    if (id === commandLineClient) return commandLine;
    if (id === consoleClient) return base === undefined ? undefined : consoleAt(base);
    const configured = this.#configured.get(id);
    if (configured !== undefined) return configured;
    const registered = await this.#state.find(kind, id);
    return registered === undefined ? undefined : clientOf(registered as unknown as ClientConfig);
  }

  /** Clients of the configuration and registered ones. */
  async list(): Promise<(SignInClient & { from: 'configuration' | 'database' })[]> {
    const registered = (await this.#state.list(kind)) as unknown as ClientConfig[];
    return [
      ...[...this.#configured.values()].map((client) => ({ ...client, from: 'configuration' as const })),
      ...registered.map((client) => ({ ...clientOf(client), from: 'database' as const })),
    ];
  }

  /** Whether the id belongs to a client of the server itself, or to one of the configuration. */
  isTaken(id: string): boolean {
    return id === commandLineClient || id === consoleClient || this.#configured.has(id);
  }

  async add(client: ClientConfig): Promise<void> {
    await this.#state.put(kind, client.id, { payload: client });
  }

  async remove(id: string): Promise<boolean> {
    return this.#state.delete(kind, id);
  }
}

export function isSecretOf(secret: string, secretHash: string): boolean {
  return timingSafeEqual(Buffer.from(hashOf(secret), 'hex'), Buffer.from(secretHash, 'hex'));
}

/** A plain hash is enough for a long random secret, and does not let requests for tokens occupy the processor. */
export function hashOf(secret: string): string {
  return createHash('sha256').update(secret).digest('hex');
}

/** Whether all addresses are on the user's own machine: the client is an installed application, and any port is accepted. */
export function isNative({ redirectUris }: Pick<SignInClient, 'redirectUris'>): boolean {
  return redirectUris.every((uri) => loopback.test(uri) || !/^https?:/.test(uri));
}

function clientOf(config: ClientConfig): SignInClient {
  const { id, name, secret, secretHash, redirectUris, postLogoutRedirectUris, grantTypes, consent } = config;
  return {
    id,
    name: name ?? id,
    secretHash: secret === undefined ? secretHash : hashOf(secret),
    redirectUris,
    postLogoutRedirectUris,
    grantTypes: (
      grantTypes ?? (redirectUris.length > 0 ? ['authorization_code', 'refresh_token'] : ['client_credentials'])
    ).map((grant) => (grant === 'device_code' ? deviceGrant : grant)),
    consent,
    organizationId: config.organizationId,
  };
}

const commandLine: SignInClient = {
  id: commandLineClient,
  name: 'Offshoot command line',
  secretHash: undefined,
  redirectUris: [
    'http://localhost/callback',
    'http://127.0.0.1/callback',
    'http://localhost/signin-callback',
    'http://127.0.0.1/signin-callback',
  ],
  postLogoutRedirectUris: [],
  grantTypes: ['authorization_code', 'refresh_token', deviceGrant],
  consent: true,
  organizationId: undefined,
};

function consoleAt(base: string): SignInClient {
  return {
    id: consoleClient,
    name: 'Offshoot console',
    secretHash: undefined,
    redirectUris: [`${base}${consolePath}/`, `${base}${consolePath}/signin-callback`],
    postLogoutRedirectUris: [`${base}${consolePath}/`],
    grantTypes: ['authorization_code', 'refresh_token'],
    consent: false,
    organizationId: undefined,
  };
}
