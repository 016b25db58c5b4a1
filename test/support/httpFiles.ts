import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import path from 'node:path';

/** One request of an HTTP file, before its variables are replaced. */
export interface HttpRequest {
  /** The comment after `###`, or the request line. */
  title: string;
  /** The name under which later requests refer to its response. */
  name: string | undefined;
  expected: number;
  method: string;
  url: string;
  headers: [string, string][];
  body: string;
}

export interface HttpFile {
  /** Lines `@name = value`. */
  variables: ReadonlyMap<string, string>;
  requests: HttpRequest[];
}

interface HttpResponse {
  status: number;
  headers: Headers;
  body: unknown;
}

/** Longest time for one response, milliseconds. */
const responseMs = 60_000;

/** Reads a file in the format of the REST Client extension of Visual Studio Code, as far as the examples use it. */
export function parseHttpFile(text: string): HttpFile {
  const [head = '', ...parts] = text.split(/^###/m);
  const variables = new Map(
    [...head.matchAll(/^@(\w+) *= *(.*)$/gm)].map(([, name = '', value = '']) => [name, value] as const),
  );
  return { variables, requests: parts.map(parseRequest) };
}

function parseRequest(part: string): HttpRequest {
  const [title = '', ...lines] = part.split('\n');
  const comments = lines.filter((line) => line.startsWith('#'));
  const rest = lines.filter((line) => !line.startsWith('#'));
  const start = rest.findIndex((line) => line.trim() !== '');
  const [line = '', ...after] = rest.slice(start);
  const blank = after.indexOf('');
  const [method = '', url = ''] = line.split(' ');
  const valueOf = (key: string): string | undefined =>
    comments.find((comment) => comment.startsWith(`# @${key} `))?.slice(key.length + 4);
  const expected = Number(valueOf('expect'));
  if (!Number.isInteger(expected)) throw new Error(`no expected status: ${line}`);
  return {
    title: title.trim() === '' ? line : title.trim(),
    name: valueOf('name'),
    expected,
    method,
    url,
    headers: after.slice(0, blank === -1 ? undefined : blank).map((header) => {
      const colon = header.indexOf(':');
      return [header.slice(0, colon), header.slice(colon + 1).trim()];
    }),
    body: blank === -1 ? '' : after.slice(blank).join('\n').trim(),
  };
}

/** @returns what an expression such as `clone.response.body.$.iModel.id` stands for */
function valueOf(
  expression: string,
  variables: ReadonlyMap<string, string>,
  responses: ReadonlyMap<string, HttpResponse>,
): string {
  if (expression === '$guid') return randomUUID();
  const [name = '', , part, ...keys] = expression.split('.');
  const response = responses.get(name);
  const value =
    response === undefined
      ? variables.get(expression)
      : part === 'headers'
        ? response.headers.get(keys.join('.'))
        : keys
            .slice(1)
            .flatMap((key) => key.split(/[[\]]/).filter((step) => step !== ''))
            .reduce<unknown>((found, key) => (found as Record<string, unknown> | undefined)?.[key], response.body);
  if (typeof value !== 'string' && typeof value !== 'number') throw new Error(`{{${expression}}} has no value`);
  return String(value);
}

/**
 * Sends the requests of a file one after the other.
 * @param variables replace those of the file
 * @returns each request whose status is not the expected one
 */
export async function runHttpFile(file: string, variables: Readonly<Record<string, string>>): Promise<string[]> {
  const parsed = parseHttpFile(readFileSync(file, 'utf8'));
  const known = new Map([...parsed.variables, ...Object.entries(variables)]);
  const responses = new Map<string, HttpResponse>();
  const faults: string[] = [];
  for (const request of parsed.requests) {
    const filled = (text: string): string =>
      text.replace(/\{\{(.+?)\}\}/g, (_all, expression: string) => valueOf(expression, known, responses));
    const [, attached] = /^< (.+)$/.exec(request.body) ?? [];
    const body =
      attached === undefined ? filled(request.body) : readFileSync(path.resolve(path.dirname(file), attached));
    const response = await fetch(filled(request.url), {
      method: request.method,
      headers: request.headers.map(([name, value]) => [name, filled(value)] as [string, string]),
      signal: AbortSignal.timeout(responseMs),
      ...(body.length > 0 && { body }),
    });
    const text = await response.text();
    const isJson = response.headers.get('content-type')?.includes('json') === true;
    if (response.status !== request.expected)
      faults.push(`${request.title}: ${response.status} instead of ${request.expected}: ${text.slice(0, 500)}`);
    if (request.name !== undefined)
      responses.set(request.name, {
        status: response.status,
        headers: response.headers,
        body: isJson ? JSON.parse(text) : text,
      });
  }
  return faults;
}
