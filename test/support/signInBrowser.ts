/** A browser without scripts, for the pages of sign-in: it keeps cookies by path, follows redirects and sends forms. */
export class SignInBrowser {
  readonly #cookies = new Map<string, { value: string; path: string }>();
  readonly #language: string | undefined;

  /** @param language what it sends as Accept-Language */
  constructor(language?: string) {
    this.#language = language;
  }

  /** A response whose redirects stay on the server were followed; a redirect elsewhere is returned. */
  async open(address: string, init: RequestInit = {}): Promise<BrowserPage> {
    const url = new URL(address);
    const cookies = [...this.#cookies]
      .filter(([, { path }]) => url.pathname === path || url.pathname.startsWith(path === '/' ? '/' : `${path}/`))
      .map(([name, { value }]) => `${name}=${value}`);
    const headers = new Headers(init.headers);
    if (cookies.length > 0) headers.set('cookie', cookies.join('; '));
    if (!headers.has('accept')) headers.set('accept', 'text/html');
    if (this.#language !== undefined) headers.set('accept-language', this.#language);
    const response = await fetch(url, { ...init, headers, redirect: 'manual', signal: AbortSignal.timeout(20_000) });
    for (const cookie of response.headers.getSetCookie()) this.#keep(cookie);
    const body = await response.text();
    const location = response.headers.get('location');
    if (location !== null) {
      const target = new URL(location, url);
      if (target.origin === url.origin && !target.pathname.startsWith('/app')) return this.open(target.href);
      return { status: response.status, url: target.href, headers: response.headers, body, elsewhere: true };
    }
    return { status: response.status, url: url.href, headers: response.headers, body, elsewhere: false };
  }

  #keep(cookie: string): void {
    const [pair = '', ...attributes] = cookie.split(';').map((part) => part.trim());
    const at = pair.indexOf('=');
    const name = pair.slice(0, at);
    const value = pair.slice(at + 1);
    const path = attributes.find((each) => /^path=/i.test(each))?.slice(5) ?? '/';
    if (value === '' || attributes.some((each) => /expires=Thu, 01 Jan 1970/i.test(each))) this.#cookies.delete(name);
    else this.#cookies.set(name, { value, path });
  }

  get cookieNames(): string[] {
    return [...this.#cookies.keys()];
  }

  /** Sends the form of a page with its hidden fields. @param button text of the button; the first one by default */
  async submit(
    page: BrowserPage,
    fields: Record<string, string> = {},
    { button, headers = {} }: { button?: string; headers?: Record<string, string> } = {},
  ): Promise<BrowserPage> {
    const form = /<form([^>]*)>([^]*?)<\/form>/.exec(page.body);
    if (form === null) throw new Error(`no form on ${page.url}: ${page.status} ${page.body.slice(0, 500)}`);
    const values = new URLSearchParams();
    for (const [input] of (form[2] as string).matchAll(/<input[^>]*>/g)) {
      const name = attribute(input, 'name');
      if (name !== undefined) values.set(name, attribute(input, 'value') ?? '');
    }
    const buttons = [...(form[2] as string).matchAll(/<button([^>]*)>([^<]*)<\/button>/g)];
    const pressed = buttons.find(([, , text]) => button === undefined || text === button);
    if (pressed === undefined) throw new Error(`no button '${button ?? ''}' on ${page.url}`);
    const name = attribute(pressed[1] as string, 'name');
    if (name !== undefined) values.set(name, attribute(pressed[1] as string, 'value') ?? '');
    for (const [key, value] of Object.entries(fields)) values.set(key, value);
    const action = attribute(pressed[1] as string, 'formaction') ?? attribute(form[1] as string, 'action') ?? page.url;
    return this.open(new URL(action, page.url).href, {
      method: 'POST',
      body: values,
      headers: { origin: new URL(page.url).origin, 'sec-fetch-site': 'same-origin', ...headers },
    });
  }
}

export interface BrowserPage {
  status: number;
  url: string;
  headers: Headers;
  body: string;
  /** Whether this is a redirect to another application, which was not followed. */
  elsewhere: boolean;
}

function attribute(tag: string, name: string): string | undefined {
  const found = new RegExp(`(?:^|\\s)${name}="([^"]*)"`).exec(tag)?.[1];
  return found?.replace(/&#(\d+);/g, (_, code: string) => String.fromCharCode(Number(code)));
}
