import { createHash } from 'node:crypto';
import { filled, type Language } from './texts.ts';
import { longestPassword, shortestPassword } from '../../access/passwords.ts';

/** A page with the policy that it needs. */
export interface Page {
  html: string;
  headers: Readonly<Record<string, string>>;
}

const style = `:root{color-scheme:light dark;--line:#767676;--accent:#0b5cad;--on:#fff;--bad:#b00020;--bg:#f4f5f7;--card:#fff;--text:#1b1b1b}
@media (prefers-color-scheme:dark){:root{--line:#8a8a8a;--accent:#7ab8ff;--on:#0b1522;--bad:#ff8a8a;--bg:#15181c;--card:#1f242a;--text:#f0f0f0}}
*{box-sizing:border-box}
body{margin:0;min-height:100vh;display:grid;place-items:center;background:var(--bg);color:var(--text);font:1rem/1.5 system-ui,sans-serif}
main{width:min(100%,26rem);padding:2rem;margin:1rem;background:var(--card);border-radius:.5rem}
h1{font-size:1.4rem;line-height:1.25;margin:0 0 .75rem}
label{display:block;margin:1rem 0 .25rem;font-weight:600}
input{width:100%;font:inherit;color:inherit;background:transparent;padding:.55rem .65rem;border:1px solid var(--line);border-radius:.25rem}
input.code{text-transform:uppercase;letter-spacing:.15em}
button{font:inherit;padding:.6rem 1rem;border-radius:.25rem;border:1px solid var(--accent);background:var(--accent);color:var(--on);cursor:pointer}
button.other{background:transparent;color:var(--accent)}
a{color:var(--accent)}
:focus-visible{outline:3px solid var(--accent);outline-offset:2px}
.buttons{display:flex;flex-wrap:wrap;gap:.75rem;margin-top:1.5rem}
.bad{color:var(--bad);font-weight:600}
code{font-size:1.5rem;letter-spacing:.1em}
form{margin:0}`;
const styleHash = createHash('sha256').update(style).digest('base64');

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** The text with its placeholders filled, as HTML. */
function say(text: string, values: Readonly<Record<string, string | number>> = {}): string {
  return escaped(filled(text, values));
}

/**
 * @param formTargets origins to which the forms of the page may lead, besides this server. Chromium applies `form-action` also to
 * the redirects that follow a form, so the page names the application to which sign-in returns
 */
function page({ code }: Language, title: string, body: string, formTargets: readonly string[] = []): Page {
  return {
    html: `<!DOCTYPE html>
<html lang="${code}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>${escaped(title)} - Offshoot</title>
<style>${style}</style>
</head>
<body>
<main>
<h1>${escaped(title)}</h1>
${body}
</main>
</body>
</html>
`,
    headers: {
      'content-type': 'text/html; charset=utf-8',
      'content-language': code,
      vary: 'Accept-Language',
      'cache-control': 'no-store',
      'content-security-policy': [
        "default-src 'none'",
        `style-src 'sha256-${styleHash}'`,
        `form-action ${["'self'", ...formTargets].join(' ')}`,
        "base-uri 'none'",
        "frame-ancestors 'none'",
      ].join('; '),
    },
  };
}

/** The source expression of a policy for an address: its origin, or its scheme for an application's own scheme. */
function formTarget(address: unknown): string[] {
  const url = typeof address === 'string' && URL.canParse(address) ? new URL(address) : undefined;
  if (url === undefined) return [];
  const source = url.origin === 'null' ? url.protocol : url.origin;
  return /^[a-z][\w+.:/[\]-]*$/i.test(source) ? [source] : [];
}

function problem(text: string | undefined): string {
  return text === undefined ? '' : `<p class="bad" role="alert" id="problem">${escaped(text)}</p>`;
}

/** The attributes of the first field if the page reports a problem: a screen reader reads it with the field. */
function invalid(text: string | undefined): string {
  return text === undefined ? '' : ' aria-invalid="true" aria-describedby="problem"';
}

export interface InteractionPage {
  language: Language;
  /** Address to which the form is sent. */
  action: string;
  client: string;
  /** Address to which the application gets the answer. */
  returnTo: unknown;
}

export function signInPage(
  { language, action, client, returnTo }: InteractionPage,
  { name = '', fault }: { name?: string | undefined; fault?: string | undefined } = {},
): Page {
  const { texts } = language;
  const onName = name === '' ? ' autofocus' : '';
  const onPassword = name === '' ? '' : ' autofocus';
  return page(
    language,
    texts.signIn,
    `<p>${say(texts.signInTo, { client })}</p>
${problem(fault)}
<form method="post" action="${escaped(action)}/login">
<label for="name">${say(texts.email)}</label>
<input id="name" name="name" type="text" inputmode="email" autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="255" required value="${escaped(name)}"${onName}${invalid(fault)}>
<label for="password">${say(texts.password)}</label>
<input id="password" name="password" type="password" autocomplete="current-password" maxlength="${longestPassword}" required${onPassword}>
<div class="buttons"><button type="submit">${say(texts.signIn)}</button>
<button type="submit" class="other" formaction="${escaped(action)}/cancel" formnovalidate>${say(texts.cancel)}</button></div>
</form>`,
    formTarget(returnTo),
  );
}

export function consentPage(
  { language, action, client, returnTo }: InteractionPage,
  { user, scopes }: { user: string; scopes: ReadonlySet<string> },
): Page {
  const { texts } = language;
  const meanings: Record<string, string> = {
    'itwin-platform': texts.scopeApi,
    profile: texts.scopeProfile,
    email: texts.scopeEmail,
    offline_access: texts.scopeOffline,
  };
  const listed = [...scopes].map((scope) => meanings[scope]).filter((text) => text !== undefined);
  const [place = ''] = formTarget(returnTo);
  return page(
    language,
    texts.consentTitle,
    `<p>${say(texts.consentText, { client })}</p>
${listed.length === 0 ? '' : `<p>${say(texts.consentList)}</p><ul>${listed.map((text) => `<li>${escaped(text)}</li>`).join('')}</ul>`}
<p>${say(texts.consentUser, { user })}${place === '' ? '' : ` ${say(texts.consentReturn, { place })}`}</p>
<form method="post" action="${escaped(action)}/consent">
<div class="buttons"><button type="submit">${say(texts.allow)}</button>
<button type="submit" class="other" formaction="${escaped(action)}/cancel">${say(texts.cancel)}</button></div>
</form>`,
    formTarget(returnTo),
  );
}

/** What the holder of a link has entered. */
export interface AccountForm {
  givenName: string;
  surname: string;
  email: string;
}

/** @param account undefined if the account exists and only its password is set */
export function passwordPage(
  language: Language,
  {
    link,
    user,
    account,
    fault,
  }: { link: string; user: string; account: AccountForm | undefined; fault?: string | undefined },
): Page {
  const { texts } = language;
  const field = (id: string, label: string, value: string, more: string): string =>
    `<label for="${id}">${say(label, { length: shortestPassword })}</label>
<input id="${id}" name="${id}" maxlength="255" required value="${escaped(value)}" ${more}>`;
  const lengths = `type="password" autocomplete="new-password" minlength="${shortestPassword}" maxlength="${longestPassword}" required`;
  return page(
    language,
    account === undefined ? texts.setPassword : texts.firstTitle,
    `<p>${account === undefined ? say(texts.setPasswordFor, { user }) : say(texts.firstText)}</p>
${problem(fault)}
<form method="post">
<input type="hidden" name="link" value="${escaped(link)}">
${
  account === undefined
    ? `<input type="hidden" name="username" autocomplete="username" value="${escaped(user)}">`
    : [
        field('givenName', texts.givenName, account.givenName, 'autocomplete="given-name" autofocus'),
        field('surname', texts.surname, account.surname, 'autocomplete="family-name"'),
        field('email', texts.email, account.email, 'type="email" autocomplete="username" spellcheck="false"'),
      ].join('\n')
}
<label for="password">${say(texts.newPassword, { length: shortestPassword })}</label>
<input id="password" name="password" ${lengths}${invalid(fault)}>
<label for="repeated">${say(texts.repeatPassword)}</label>
<input id="repeated" name="repeated" ${lengths}>
<div class="buttons"><button type="submit">${say(texts.save)}</button></div>
</form>`,
  );
}

/** A page without a form. */
/** @param next where to go from there: an address with its name */
export function messagePage(
  language: Language,
  title: string,
  text: string,
  next?: { address: string; name: string },
): Page {
  const link = next === undefined ? '' : `\n<p><a href="${escaped(next.address)}">${escaped(next.name)}</a></p>`;
  return page(language, title, `<p>${escaped(text)}</p>${link}`);
}

export function errorPage(language: Language, text: string): Page {
  return page(language, language.texts.errorTitle, `<p role="alert">${escaped(text)}</p>`);
}

/** @param action address of the form @param secret value that proves that the form comes from this page */
export function deviceCodePage(
  language: Language,
  { action, secret, code = '', fault }: { action: string; secret: string; code?: string; fault?: string | undefined },
): Page {
  const { texts } = language;
  return page(
    language,
    texts.deviceTitle,
    `<p>${say(texts.deviceText)}</p>
${problem(fault)}
<form method="post" action="${escaped(action)}">
<input type="hidden" name="xsrf" value="${escaped(secret)}">
<label for="user_code">${say(texts.deviceCode)}</label>
<input id="user_code" name="user_code" class="code" autocomplete="off" autocapitalize="characters" spellcheck="false" maxlength="20" required autofocus value="${escaped(code)}"${invalid(fault)}>
<div class="buttons"><button type="submit">${say(texts.continue)}</button></div>
</form>`,
  );
}

export function deviceConfirmPage(
  language: Language,
  { action, secret, client, code }: { action: string; secret: string; client: string; code: string },
): Page {
  const { texts } = language;
  return page(
    language,
    texts.deviceConfirmTitle,
    `<p>${say(texts.deviceConfirmText, { client })}</p>
<p><code>${escaped(code)}</code></p>
<form method="post" action="${escaped(action)}">
<input type="hidden" name="xsrf" value="${escaped(secret)}">
<input type="hidden" name="user_code" value="${escaped(code)}">
<input type="hidden" name="confirm" value="yes">
<div class="buttons"><button type="submit" autofocus>${say(texts.continue)}</button>
<button type="submit" class="other" name="abort" value="yes">${say(texts.cancel)}</button></div>
</form>`,
  );
}

export function signOutPage(
  language: Language,
  { action, secret, returnTo }: { action: string; secret: string; returnTo: unknown },
): Page {
  const { texts } = language;
  return page(
    language,
    texts.signOutTitle,
    `<p>${say(texts.signOutText)}</p>
<form method="post" action="${escaped(action)}">
<input type="hidden" name="xsrf" value="${escaped(secret)}">
<div class="buttons"><button type="submit" name="logout" value="yes" autofocus>${say(texts.signOut)}</button>
<button type="submit" class="other">${say(texts.staySignedIn)}</button></div>
</form>`,
    formTarget(returnTo),
  );
}
