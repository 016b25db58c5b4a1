/** An answer, read to its end. */
export interface Answer {
  status: number;
  headers: Headers;
  /** Parsed JSON, or the text where it is none. */
  body: unknown;
}

/** A refusal as tests compare it. */
export interface WireError {
  error: {
    code: string;
    message: string;
    target?: string;
    details?: { code: string; message: string; target?: string; innerError?: { code: string } }[];
  };
}

/** How long an answer may take before the test fails, milliseconds: well above the server's own limits. */
const answerWithinMs = 120_000;

/** Plain HTTP against a server, with or without a token. */
export class Api {
  readonly origin: string;
  readonly #token: string | undefined;

  constructor(origin: string, token?: string) {
    this.origin = origin;
    this.#token = token;
  }

  get = (path: string, headers?: Record<string, string>): Promise<Answer> => this.send('GET', path, undefined, headers);
  post = (path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> =>
    this.send('POST', path, body, headers);
  put = (path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> =>
    this.send('PUT', path, body, headers);
  patch = (path: string, body?: unknown, headers?: Record<string, string>): Promise<Answer> =>
    this.send('PATCH', path, body, headers);
  delete = (path: string, headers?: Record<string, string>): Promise<Answer> =>
    this.send('DELETE', path, undefined, headers);

  /** @param body an object goes as JSON, a string or bytes as they are */
  async send(method: string, path: string, body?: unknown, headers: Record<string, string> = {}): Promise<Answer> {
    const raw = typeof body === 'string' || body instanceof Uint8Array;
    const response = await fetch(path.startsWith('http') ? path : `${this.origin}${path}`, {
      method,
      signal: AbortSignal.timeout(answerWithinMs),
      headers: {
        accept: 'application/vnd.bentley.itwin-platform.v2+json',
        ...(this.#token !== undefined && { authorization: `Bearer ${this.#token}` }),
        ...(body !== undefined && !raw && { 'content-type': 'application/json' }),
        ...headers,
      },
      ...(body !== undefined && { body: raw ? (body as string) : JSON.stringify(body) }),
    });
    const text = await response.text();
    let parsed: unknown = text;
    try {
      parsed = text === '' ? undefined : JSON.parse(text);
    } catch {
      // Not JSON: the text stands.
    }
    return { status: response.status, headers: response.headers, body: parsed };
  }
}
