import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import type { Provider } from 'oidc-provider';
import { TooManyError } from '../../access/addressLimits.ts';
import { longestPassword, PasswordsBusyError } from '../../access/passwords.ts';
import type { SignInLimits } from '../../access/signInLimits.ts';
import { consentPage, errorPage, signInPage, type InteractionPage, type Page } from './pages.ts';
import { allowAll, rememberConsent, scopesIn, type ProviderParts } from './provider.ts';
import { filled, languageOf } from './texts.ts';

/** What the pages need. */
export interface InteractionParts extends ProviderParts {
  limits: SignInLimits;
  /** The provider at the address of a request. */
  providerFor(request: FastifyRequest): Promise<Provider>;
}

type InteractionRequest = FastifyRequest<{ Params: { uid: string }; Body: unknown }>;
type Details = Awaited<ReturnType<Provider['interactionDetails']>>;

export function sendPage(reply: FastifyReply, status: number, { html, headers }: Page): FastifyReply {
  return reply.code(status).headers(headers).send(html);
}

/** A field of a form; empty if it is missing or longer than any form allows. */
export function fieldOf(body: unknown, name: string, longest = 255): string {
  const value = body instanceof URLSearchParams ? (body.get(name) ?? '') : '';
  return value.length <= longest ? value : '';
}

/**
 * Whether a form was sent from another site. Cookies that are not sent across sites already prevent it; this also covers the
 * forms that need no cookie.
 */
export function isForeign({ headers }: FastifyRequest): boolean {
  const site = headers['sec-fetch-site'];
  return site !== undefined && site !== 'same-origin' && site !== 'none';
}

/** @returns undefined if the page has expired, or was opened in another browser; that is answered then */
async function open(
  parts: InteractionParts,
  request: InteractionRequest,
  reply: FastifyReply,
): Promise<{ provider: Provider; details: Details; page: InteractionPage } | undefined> {
  const language = languageOf(request.headers['accept-language']);
  const provider = await parts.providerFor(request);
  const details = await provider.interactionDetails(request.raw, reply.raw).catch((error: unknown) => {
    if ((error as Error).name === 'SessionNotFound') return undefined;
    throw error;
  });
  if (details?.uid !== request.params.uid || (request.method === 'POST' && isForeign(request))) {
    void sendPage(reply, 400, errorPage(language, language.texts.expired));
    return undefined;
  }
  const clientId = String(details.params['client_id']);
  const client = await provider.Client.find(clientId);
  return {
    provider,
    details,
    page: {
      language,
      action: new URL(`${provider.issuer}/interaction/${details.uid}`).pathname,
      client: client?.clientName ?? clientId,
      returnTo: details.params['redirect_uri'],
    },
  };
}

/** The pages on which a user signs in and allows an application to act for the user. */
export function interactionRoutes(app: FastifyInstance, parts: InteractionParts): void {
  const { accounts, limits, state, log } = parts;

  const finish = async (
    { provider }: { provider: Provider },
    request: FastifyRequest,
    reply: FastifyReply,
    result: Parameters<Provider['interactionResult']>[2],
  ): Promise<FastifyReply> =>
    reply.redirect(
      await provider.interactionResult(request.raw, reply.raw, result, { mergeWithLastSubmission: true }),
      303,
    );

  app.get('/interaction/:uid', async (request: InteractionRequest, reply) => {
    const opened = await open(parts, request, reply);
    if (opened === undefined) return reply;
    const { details, page } = opened;
    if (details.prompt.name === 'login') {
      const hint = details.params['login_hint'];
      return sendPage(
        reply,
        200,
        signInPage(page, { name: typeof hint === 'string' ? hint.slice(0, 255) : undefined }),
      );
    }
    const user = await accounts.find(details.session?.accountId ?? '');
    const scopes = new Set(scopesIn(details.params));
    return sendPage(reply, 200, consentPage(page, { user: user?.email ?? '', scopes }));
  });

  app.post('/interaction/:uid/login', async (request: InteractionRequest, reply) => {
    const opened = await open(parts, request, reply);
    if (opened === undefined) return reply;
    const { page } = opened;
    const { texts } = page.language;
    const name = fieldOf(request.body, 'name').trim();
    const refuse = (status: number, fault: string): FastifyReply =>
      sendPage(reply, status, signInPage(page, { name, fault }));
    try {
      const forgive = await limits.attempt(accounts.keyOf(name), request.ip);
      const user = await accounts.authenticate(name, fieldOf(request.body, 'password', longestPassword));
      if (user === undefined) {
        log.info({ remoteAddress: request.ip }, 'a sign-in was refused: wrong user or password');
        return await refuse(401, texts.wrong);
      }
      await forgive();
      return await finish(opened, request, reply, { login: { accountId: user.id, remember: true, amr: ['pwd'] } });
    } catch (error) {
      if (error instanceof PasswordsBusyError) return await refuse(503, texts.busy);
      if (!(error instanceof TooManyError)) throw error;
      log.warn({ remoteAddress: request.ip }, 'a sign-in was refused: too many wrong passwords');
      void reply.header('retry-after', String(error.waitSeconds));
      return refuse(429, filled(texts.tooMany, { minutes: Math.ceil(error.waitSeconds / 60) }));
    }
  });

  app.post('/interaction/:uid/consent', async (request: InteractionRequest, reply) => {
    const opened = await open(parts, request, reply);
    if (opened === undefined) return reply;
    const { provider, details, page } = opened;
    const accountId = details.session?.accountId;
    if (details.prompt.name !== 'consent' || accountId === undefined)
      return sendPage(reply, 400, errorPage(page.language, page.language.texts.expired));
    const clientId = String(details.params['client_id']);
    const scopes = scopesIn(details.params);
    const before = details.grantId === undefined ? undefined : await provider.Grant.find(details.grantId);
    const grant = before ?? new provider.Grant({ accountId, clientId });
    allowAll(grant, scopes);
    const grantId = await grant.save();
    await rememberConsent(state, accountId, clientId, scopes);
    return finish(opened, request, reply, { consent: { grantId } });
  });

  app.post('/interaction/:uid/cancel', async (request: InteractionRequest, reply) => {
    const opened = await open(parts, request, reply);
    if (opened === undefined) return reply;
    return finish(opened, request, reply, {
      error: 'access_denied',
      error_description: 'The user did not allow the access.',
    });
  });
}
