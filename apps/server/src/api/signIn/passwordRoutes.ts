import type { FastifyInstance, FastifyRequest } from 'fastify';
import { longestPassword, PasswordsBusyError, shortestPassword } from '../../access/passwords.ts';
import { isPlaceholder } from '../../access/directory.ts';
import { passwordPath } from '../../access/signInIssuer.ts';
import { consolePath } from '../../http/console.ts';
import type { Accounts } from '../../signIn/accounts.ts';
import { fieldOf, isForeign, sendPage } from './interactions.ts';
import { errorPage, messagePage, passwordPage, type AccountForm } from './pages.ts';
import { filled, languageOf, type Texts } from './texts.ts';

/** The console, seen from the page on which a password is set. */
const toConsole = `..${consolePath}/`;

type LinkRequest = FastifyRequest<{ Querystring: Record<string, unknown>; Body: unknown }>;

/** The page behind one-time links: the first account of an installation, and passwords of users. */
export function passwordRoutes(
  app: FastifyInstance,
  { accounts, requireAllowed }: { accounts: Accounts; requireAllowed: (request: FastifyRequest) => void },
): void {
  app.get(passwordPath, async (request: LinkRequest, reply) => {
    requireAllowed(request);
    const language = languageOf(request.headers['accept-language']);
    const token = request.query['link'];
    const link = typeof token === 'string' && token.length <= 100 ? await accounts.readLink(token) : undefined;
    if (link === undefined) return sendPage(reply, 410, errorPage(language, language.texts.linkUsed));
    const { user, purpose } = link;
    const account = purpose === 'first' ? (isPlaceholder(user) ? nobody : user) : undefined;
    return sendPage(reply, 200, passwordPage(language, { link: String(token), user: link.user.email, account }));
  });

  app.post(passwordPath, async (request: LinkRequest, reply) => {
    requireAllowed(request);
    const language = languageOf(request.headers['accept-language']);
    const { texts } = language;
    const token = fieldOf(request.body, 'link', 100);
    const link = isForeign(request) ? undefined : await accounts.readLink(token);
    if (link === undefined) return sendPage(reply, 410, errorPage(language, texts.linkUsed));
    const account = link.purpose === 'first' ? accountIn(request.body) : undefined;
    const refuse = (status: number, fault: string) =>
      sendPage(reply, status, passwordPage(language, { link: token, user: link.user.email, account, fault }));
    const password = fieldOf(request.body, 'password', 10_000);
    const email = account?.email ?? link.user.email;
    const fault = faultOf(texts, { password, repeated: fieldOf(request.body, 'repeated', 10_000), email, account });
    if (fault !== undefined) return refuse(422, fault);
    try {
      if (!(await accounts.useLink(token, link, password, account)))
        return await sendPage(reply, 410, errorPage(language, texts.linkUsed));
    } catch (error) {
      if (error instanceof PasswordsBusyError) return refuse(503, texts.busy);
      if (account === undefined) throw error;
      request.log.warn({ err: error }, 'the users file cannot be changed');
      return refuse(422, texts.notSaved);
    }
    return sendPage(
      reply,
      200,
      messagePage(language, texts.saved, texts.savedText, { address: toConsole, name: texts.toConsole }),
    );
  });
}

const nobody: AccountForm = { givenName: '', surname: '', email: '' };

function accountIn(body: unknown): AccountForm {
  const clean = (name: string): string =>
    fieldOf(body, name)
      .replace(/\p{Cc}/gu, '')
      .trim();
  return { givenName: clean('givenName'), surname: clean('surname'), email: clean('email') };
}

function faultOf(
  texts: Texts,
  {
    password,
    repeated,
    email,
    account,
  }: { password: string; repeated: string; email: string; account: AccountForm | undefined },
): string | undefined {
  if (account?.givenName === '' || account?.surname === '') return texts.invalidName;
  if (account !== undefined && !/^[^\s@]+@[^\s@]+$/.test(account.email)) return texts.invalidEmail;
  if (password.length < shortestPassword) return filled(texts.tooShort, { length: shortestPassword });
  if (password.length > longestPassword) return filled(texts.tooLong, { length: longestPassword });
  if (password.toLowerCase() === email.toLowerCase()) return texts.isName;
  return password === repeated ? undefined : texts.different;
}
