import { randomBytes } from 'node:crypto';
import type { EventEmitter } from 'node:events';
import type { FastifyBaseLogger } from 'fastify';
import type { JWTPayload } from 'jose';
import type { Account as OidcAccount, Configuration, KoaContextWithOIDC, Provider } from 'oidc-provider';
import { embeddedAudience, type EmbeddedIssuer } from '../../access/embeddedIssuer.ts';
import { signInPath } from '../../access/signInIssuer.ts';
import type { Config } from '../../config.ts';
import type { DirectoryUser } from '../../access/directory.ts';
import type { Db } from '../../db/database.ts';
import type { Accounts } from '../../signIn/accounts.ts';
import { isNative, isSecretOf, type SignInClient, type SignInClients } from '../../signIn/clients.ts';
import type { SignInState } from '../../signIn/state.ts';
import { StateAdapter } from './adapter.ts';
import { deviceCodePage, deviceConfirmPage, errorPage, messagePage, signOutPage, type Page } from './pages.ts';
import { languageOf, type Language } from './texts.ts';

/** What the provider needs of the server. */
export interface ProviderParts {
  config: Config;
  issuer: EmbeddedIssuer;
  accounts: Accounts;
  clients: SignInClients;
  state: SignInState;
  /** The claims of a valid access token. @throws ApiError for any other */
  claimsIn: (token: string) => Promise<JWTPayload>;
  /** Resolves when what other requests have written is durable. */
  settled: () => Promise<void>;
  log: FastifyBaseLogger;
}

/** Paths of the endpoints. */
const routes = {
  authorization: '/authorize',
  token: '/token',
  jwks: '/jwks',
  introspection: '/introspect',
  revocation: '/revoke',
  end_session: '/sign-out',
  device_authorization: '/device-code',
  code_verification: '/device',
};

const algorithm = 'ES256';
/** The resource for which access tokens are issued: the API of this server. */
const resource = 'urn:offshoot:api';
/** Scopes of the API. */
const apiScope = 'itwin-platform';
const daySeconds = 24 * 3600;

/** Policy of responses that are not pages of this server. Its form pages start themselves, with a script that is allowed by its hash. */
const responsePolicy = "default-src 'none'; script-src 'none'; base-uri 'none'; frame-ancestors 'none'";

/** The key that signs cookies, shared by all servers. */
export async function cookieKey(db: Db): Promise<string> {
  const name = 'sign-in-cookies';
  await db
    .insertInto('secret')
    .values({ name, value: randomBytes(32).toString('base64url') })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  return (await db.selectFrom('secret').select('value').where('name', '=', name).executeTakeFirstOrThrow()).value;
}

/**
 * The OpenID Provider at one address. The library is loaded with the first request.
 * @param base address of the server
 * @param cookieSecret key that signs cookies
 */
export async function makeProvider(
  parts: ProviderParts,
  base: string,
  { jwk, kid }: Awaited<ReturnType<EmbeddedIssuer['signingKey']>>,
  cookieSecret: string,
): Promise<Provider> {
  const { Provider: OidcProvider, errors, interactionPolicy } = await import('oidc-provider');
  const { config, log, clients } = parts;
  const address = new URL(`${base}${signInPath}`);
  const policy = interactionPolicy.base();
  // The consent of users is remembered for installed applications too.
  policy.get('consent')?.checks.remove('native_client_prompt');
  const provider = new OidcProvider(address.href, {
    ...pagesOf(parts),
    interactions: {
      policy,
      url: (ctx, interaction) => new URL(`${ctx.oidc.issuer}/interaction/${interaction.uid}`).href,
    },
    ...tokensOf(parts, base),
    adapter: (kind: string) =>
      kind === 'Client'
        ? clientAdapter(clients, base)
        : new StateAdapter(kind, parts.state, () => new errors.InvalidGrant('already used')),
    jwks: { keys: [{ ...jwk, kid, use: 'sig', alg: algorithm }] },
    cookies: cookiesOf(parts, address.pathname, cookieSecret),
    discovery: { userinfo_endpoint: `${address.href}/userinfo`, service_documentation: `${base}/docs` },
    clientBasedCORS: (_ctx, origin) => config.corsOrigins.includes('*') || config.corsOrigins.includes(origin),
    fetch: () => Promise.reject(new Error('the provider sends no requests')),
  });
  const { compareClientSecret } = provider.Client.prototype as { compareClientSecret: unknown };
  if (typeof compareClientSecret !== 'function') throw new Error('the provider compares secrets in another way');
  Object.assign(provider.Client.prototype, {
    compareClientSecret(this: { clientSecret: string }, secret: string): boolean {
      return isSecretOf(secret, this.clientSecret);
    },
  });
  provider.proxy = true;
  provider.on('server_error', (_ctx, error) => log.error({ err: error }, 'sign-in failed'));
  (provider as EventEmitter).on('error', (error: unknown) => log.error({ err: error }, 'sign-in failed'));
  provider.use(async (ctx, next) => {
    ctx.set('content-security-policy', responsePolicy);
    await next();
    if (ctx.path === routes.introspection) await introspect(ctx as KoaContextWithOIDC, parts);
    await parts.settled();
  });
  return provider;
}

/** Clients as the library reads them. It never writes them: they are registered by the operator. */
function clientAdapter(clients: SignInClients, base: string) {
  const refused = async (): Promise<never> => Promise.reject(new Error('clients are not written by the provider'));
  return {
    find: async (id: string) => {
      const client = await clients.find(id, base);
      return client === undefined ? undefined : metadataOf(client);
    },
    upsert: refused,
    destroy: refused,
    consume: refused,
    findByUid: refused,
    findByUserCode: refused,
    revokeByGrantId: refused,
  };
}

function metadataOf(client: SignInClient) {
  const withCode = client.grantTypes.includes('authorization_code');
  return {
    client_id: client.id,
    client_name: client.name,
    application_type: client.redirectUris.length > 0 && isNative(client) ? ('native' as const) : ('web' as const),
    redirect_uris: [...client.redirectUris],
    post_logout_redirect_uris: [...client.postLogoutRedirectUris],
    grant_types: [...client.grantTypes],
    response_types: withCode ? (['code'] as ['code']) : [],
    id_token_signed_response_alg: algorithm as 'ES256',
    ...(client.secretHash === undefined
      ? { token_endpoint_auth_method: 'none' as const }
      : { token_endpoint_auth_method: 'client_secret_basic' as const, client_secret: client.secretHash }),
  };
}

function cookiesOf({ issuer }: ProviderParts, path: string, secret: string): NonNullable<Configuration['cookies']> {
  // Cookies are shared by all ports of a host: servers on one machine must not overwrite each other's.
  const own = issuer.issuer.replaceAll(/[^a-z0-9]/g, '').slice(-8);
  return {
    keys: [secret],
    names: { session: `offshoot_${own}`, interaction: `offshoot_${own}_ask`, resume: `offshoot_${own}_resume` },
    long: { httpOnly: true, sameSite: 'lax', path, signed: true, overwrite: true },
    short: { httpOnly: true, sameSite: 'lax', signed: true, overwrite: true },
  };
}

/**
 * Introspects an access token of this server. The library refuses JSON Web Tokens, after it has authenticated the client, because
 * it does not store them.
 */
async function introspect(ctx: KoaContextWithOIDC, { claimsIn, log }: ProviderParts): Promise<void> {
  if ((ctx.body as { error?: unknown } | undefined)?.error !== 'unsupported_token_type') return;
  ctx.status = 200;
  ctx.body = await claimsIn(String(ctx.oidc.params?.['token'])).then(
    ({ scope, ...claims }) => ({
      ...claims,
      active: true,
      token_type: 'Bearer',
      scope: Array.isArray(scope) ? scope.join(' ') : scope,
    }),
    (error: unknown) => {
      log.debug({ err: error }, 'an introspected token is not valid');
      return { active: false };
    },
  );
}

/** Claims of a user of the users file. */
export function userClaims(user: DirectoryUser) {
  return {
    sub: user.id,
    email: user.email,
    email_verified: true,
    given_name: user.givenName,
    family_name: user.surname,
    name: `${user.givenName} ${user.surname}`,
    preferred_username: user.email,
  };
}

/** What tokens contain, to whom they are issued, and how long they are valid. */
function tokensOf(parts: ProviderParts, base: string): Configuration {
  const { config, accounts, clients } = parts;
  const { sessionDays, tokenMinutes } = config.signIn;
  const session = Math.round(sessionDays * daySeconds);
  const token = Math.round(tokenMinutes * 60);
  const scopes = [...new Set([apiScope, ...(config.requiredScope === null ? [] : [config.requiredScope])])].join(' ');
  return {
    scopes: ['openid', 'offline_access', 'profile', 'email'],
    claims: {
      openid: ['sub'],
      profile: ['name', 'given_name', 'family_name', 'preferred_username'],
      email: ['email', 'email_verified'],
    },
    // Official clients read the name of the user from the ID token.
    conformIdTokenClaims: false,
    responseTypes: ['code'],
    pkce: { required: () => true },
    ttl: {
      AccessToken: token,
      ClientCredentials: token,
      IdToken: token,
      AuthorizationCode: 60,
      DeviceCode: 600,
      Interaction: 3600,
      Session: session,
      Grant: session,
      RefreshToken: session,
    },
    // Always for public clients: a stolen token is noticed when both sides use it.
    rotateRefreshToken: true,
    issueRefreshToken: (_ctx, client, source) =>
      client.grantTypeAllowed('refresh_token') && source.scopes.has('offline_access'),
    extraParams: {
      // The library drops offline_access unless the request asks for consent each time; the official clients do not.
      access_type: (ctx) => keepOfflineAccess(ctx),
    },
    findAccount: async (_ctx, id): Promise<OidcAccount | undefined> => {
      const user = await accounts.find(id);
      return user === undefined ? undefined : { accountId: id, claims: () => userClaims(user) };
    },
    loadExistingGrant: (ctx) => existingGrant(ctx, parts, base),
    extraTokenClaims: async (_ctx, issued) => {
      if (issued.kind !== 'ClientCredentials' || issued.clientId === undefined) return undefined;
      const organizationId = (await clients.find(issued.clientId))?.organizationId;
      return organizationId === undefined ? undefined : { org: organizationId };
    },
    // Rule of the platform: `scope` is a list in access tokens, which the official introspection client requires.
    formats: {
      customizers: {
        jwt: (_ctx, _token, { payload }) => {
          const { scope } = payload;
          payload['scope'] = typeof scope === 'string' ? scope.split(' ') : [];
        },
      },
    },
    features: { ...featuresOf(scopes, token), ...pageFeatures() },
  };
}

function featuresOf(scopes: string, tokenSeconds: number): NonNullable<Configuration['features']> {
  return {
    devInteractions: { enabled: false },
    dPoP: { enabled: false },
    pushedAuthorizationRequests: { enabled: false },
    // Answered by this server itself, because the library does not look up the JSON Web Tokens that it has issued.
    userinfo: { enabled: false },
    clientCredentials: { enabled: true },
    introspection: { enabled: true, allowedPolicy: (_ctx, client) => client.clientAuthMethod !== 'none' },
    revocation: { enabled: true, allowedPolicy: (_ctx, client, token) => token.clientId === client.clientId },
    resourceIndicators: {
      enabled: true,
      defaultResource: (_ctx, _client, oneOf) => oneOf ?? resource,
      useGrantedResource: () => true,
      getResourceServerInfo: () => ({
        scope: scopes,
        audience: embeddedAudience,
        accessTokenFormat: 'jwt',
        accessTokenTTL: tokenSeconds,
        jwt: { sign: { alg: algorithm } },
      }),
    },
  };
}

/** The scopes that a request asks for. */
export function scopesIn(params: Readonly<Record<string, unknown>>): string[] {
  const { scope } = params;
  return typeof scope === 'string' ? scope.split(' ').filter((each) => each !== '') : [];
}

function keepOfflineAccess(ctx: KoaContextWithOIDC): void {
  const asked = new URLSearchParams(ctx.querystring).get('scope')?.split(' ') ?? [];
  const { client, params } = ctx.oidc;
  if (ctx.oidc.route !== 'authorization' || params === undefined || !asked.includes('offline_access')) return;
  if (client?.grantTypeAllowed('refresh_token') !== true) return;
  params['scope'] = [...new Set([...scopesIn(params), 'offline_access'])].join(' ');
}

/**
 * The grant of this session for the client. A new session starts with what the user has allowed before, so that the question is
 * asked once; clients of the operator get what they ask for.
 */
async function existingGrant(ctx: KoaContextWithOIDC, { clients, state }: ProviderParts, base: string) {
  const { client, session, provider, result, params } = ctx.oidc;
  const accountId = session?.accountId;
  if (client === undefined || session === undefined || accountId === undefined) return undefined;
  const grantId = result?.consent?.grantId ?? session.grantIdFor(client.clientId);
  const found = grantId === undefined ? undefined : await provider.Grant.find(grantId);
  const { consent = true } = (await clients.find(client.clientId, base)) ?? {};
  const asked = scopesIn(params ?? {});
  if (consent && !(await hasConsented(state, accountId, client.clientId, asked))) return found;
  const grant = found ?? new provider.Grant({ accountId, clientId: client.clientId });
  if (allowAll(grant, asked)) await grant.save();
  return grant;
}

/** Kind of the rows that record what users have allowed. */
const consentKind = 'Consent';

async function hasConsented(
  state: SignInState,
  accountId: string,
  clientId: string,
  scopes: readonly string[],
): Promise<boolean> {
  const allowed = (await state.find(consentKind, consentId(accountId, clientId)))?.['scopes'];
  return Array.isArray(allowed) && scopes.every((scope) => allowed.includes(scope));
}

/** Records that a user has allowed a client to have these scopes. */
export async function rememberConsent(
  state: SignInState,
  accountId: string,
  clientId: string,
  scopes: readonly string[],
): Promise<void> {
  const id = consentId(accountId, clientId);
  const before = (await state.find(consentKind, id))?.['scopes'];
  const allowed = new Set([...(Array.isArray(before) ? (before as string[]) : []), ...scopes]);
  await state.put(consentKind, id, { payload: { scopes: [...allowed] }, accountId, lifeSeconds: consentSeconds });
}

/** How long a consent is remembered: a year. */
const consentSeconds = 365 * daySeconds;

function consentId(accountId: string, clientId: string): string {
  return JSON.stringify([accountId, clientId]);
}

/** Adds what is asked for to a grant. @returns whether something was missing */
export function allowAll(grant: InstanceType<Provider['Grant']>, scopes: readonly string[]): boolean {
  const had = new Set([...grant.getOIDCScope().split(' '), ...grant.getResourceScope(resource).split(' ')]);
  const missing = scopes.filter((scope) => !had.has(scope));
  for (const scope of missing) {
    grant.addOIDCScope(scope);
    grant.addResourceScope(resource, scope);
  }
  return missing.length > 0 || grant.jti === undefined;
}

function languageFor(ctx: { get(name: string): string }): Language {
  return languageOf(ctx.get('accept-language'));
}

function show(ctx: KoaContextWithOIDC, page: Page): void {
  ctx.set({ ...page.headers });
  ctx.body = page.html;
}

/** The value that the library puts into the forms of a session. */
function secretOf(ctx: KoaContextWithOIDC): string {
  const secret = (ctx.oidc.session?.state as { secret?: unknown } | undefined)?.secret;
  return typeof secret === 'string' ? secret : '';
}

/** The pages that the library shows itself. */
function pagesOf({ log }: ProviderParts): Configuration {
  return {
    routes,
    renderError: (ctx, out, error) => {
      log.debug({ err: error }, 'sign-in refused');
      const language = languageFor(ctx);
      show(ctx, errorPage(language, out.error_description ?? out.error));
    },
  };
}

/** The pages of the device flow and of signing out, as features of the library. */
function pageFeatures(): Pick<NonNullable<Configuration['features']>, 'deviceFlow' | 'rpInitiatedLogout'> {
  return {
    deviceFlow: {
      enabled: true,
      charset: 'base-20',
      mask: '****-****',
      deviceInfo: () => ({}),
      userCodeInputSource: (ctx, _form, _out, error) => {
        const language = languageFor(ctx);
        const { texts } = language;
        const aborted = error?.name === 'AbortedError';
        const fault = error === undefined ? undefined : aborted ? texts.deviceAborted : texts.deviceWrong;
        show(
          ctx,
          deviceCodePage(language, { action: ctx.oidc.urlFor('code_verification'), secret: secretOf(ctx), fault }),
        );
      },
      userCodeConfirmSource: (ctx, _form, client, _deviceInfo, userCode) =>
        show(
          ctx,
          deviceConfirmPage(languageFor(ctx), {
            action: ctx.oidc.urlFor('code_verification'),
            secret: secretOf(ctx),
            client: client.clientName ?? client.clientId,
            code: userCode,
          }),
        ),
      successSource: (ctx) => {
        const language = languageFor(ctx);
        show(ctx, messagePage(language, language.texts.deviceDone, language.texts.deviceDoneText));
      },
    },
    rpInitiatedLogout: {
      enabled: true,
      logoutSource: (ctx) => {
        const { postLogoutRedirectUri } = (ctx.oidc.session?.state ?? {}) as { postLogoutRedirectUri?: unknown };
        show(
          ctx,
          signOutPage(languageFor(ctx), {
            action: ctx.oidc.urlFor('end_session_confirm'),
            secret: secretOf(ctx),
            returnTo: postLogoutRedirectUri,
          }),
        );
      },
      postLogoutSuccessSource: (ctx) => {
        const language = languageFor(ctx);
        show(ctx, messagePage(language, language.texts.signedOut, language.texts.signedOutText));
      },
    },
  };
}
