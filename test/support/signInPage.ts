/** The page of an application that signs in with the official package for browsers. Bundled by a test, and run in Chromium. */
import { BrowserAuthorizationClient } from '@itwin/browser-authorization';

interface PageElement {
  id: string;
  textContent: string | null;
  addEventListener(event: 'click', listener: () => void): void;
}

/** What this page uses of the document; the tests are compiled without the types of browsers. */
declare const document: {
  body: { appendChild(element: PageElement): PageElement };
  createElement(name: string): PageElement;
  getElementById(id: string): PageElement | null;
};
declare const location: { origin: string; pathname: string; search: string };
declare const localStorage: { getItem(key: string): string | null; setItem(key: string, value: string): void };

const { origin, pathname, search } = location;
for (const name of ['authority', 'scope']) {
  const given = new URLSearchParams(search).get(name);
  if (given !== null) localStorage.setItem(name, given);
}

const client = new BrowserAuthorizationClient({
  authority: localStorage.getItem('authority') ?? '',
  clientId: 'web-app',
  redirectUri: `${origin}/signin-callback`,
  // For tokens that are renewed in a frame, because there is no refresh token.
  silentRedirectUri: `${origin}/signin-callback`,
  postSignoutRedirectUri: `${origin}/signed-out`,
  scope: localStorage.getItem('scope') ?? 'openid profile email offline_access itwin-platform',
  responseType: 'code',
  noSilentSignInOnAppStartup: true,
});

function show(id: string, text: string): void {
  const element = document.getElementById(id) ?? document.body.appendChild(document.createElement('p'));
  element.id = id;
  element.textContent = text;
}

function button(text: string, action: () => Promise<void>): void {
  const element = document.body.appendChild(document.createElement('button'));
  element.textContent = text;
  element.addEventListener('click', () => {
    action().catch((error: unknown) => show('fault', String(error)));
  });
}

/** Calls the API with the current token, and shows whose it is. */
async function showUser(): Promise<void> {
  const authorization = await client.getAccessToken();
  const server = (localStorage.getItem('authority') ?? '').replace(/\/auth$/, '');
  const response = await fetch(`${server}/itwins`, {
    headers: { authorization, accept: 'application/vnd.bentley.itwin-platform.v1+json' },
  });
  const claims = JSON.parse(atob((authorization.split('.')[1] ?? '').replaceAll('-', '+').replaceAll('_', '/'))) as {
    sub: string;
  };
  show('status', String(response.status));
  show('token', authorization);
  show('user', claims.sub);
}

async function start(): Promise<void> {
  if (pathname === '/signed-out') return;
  if (pathname === '/signin-callback') {
    await client.handleSigninCallback();
    return;
  }
  button('Sign in', () => client.signInRedirect('/'));
  button('Sign out', () => client.signOutRedirect());
  try {
    await client.signInSilent();
  } catch {
    // Nobody has signed in yet.
    return;
  }
  await showUser();
  client.onAccessTokenChanged.addListener((token) => {
    if (token !== '') showUser().catch((error: unknown) => show('fault', String(error)));
  });
}

start().catch((error: unknown) => show('fault', String(error)));
