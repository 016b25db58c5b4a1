import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { createServer, type IncomingMessage } from 'node:http';
import { connect, type AddressInfo } from 'node:net';
import { after, before, suite, test } from 'node:test';
import { answerClientError } from '../apps/server/src/api/clientErrors.ts';
import { GroupedResponse } from '../apps/server/src/http/groupedResponses.ts';

type Handler = (request: IncomingMessage, response: GroupedResponse) => void;

suite('Responses that wait for the end of a turn', () => {
  let handle: Handler = () => undefined;
  const server = createServer({ ServerResponse: GroupedResponse }, (request, response) => handle(request, response));
  server.on('clientError', answerClientError);
  let port = 0;

  before(async () => {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    ({ port } = server.address() as AddressInfo);
  });
  after(() => new Promise((resolve) => server.close(resolve)));

  const get = (path = '/'): Promise<string> => fetch(`http://127.0.0.1:${port}${path}`).then((found) => found.text());

  /** Sends text over a connection of its own. @returns what arrives until the server closes it */
  const raw = (text: string): Promise<string> =>
    new Promise((resolve, reject) => {
      let answer = '';
      const socket = connect(port, '127.0.0.1', () => socket.write(text));
      socket.on('data', (chunk: Buffer) => (answer += chunk.toString()));
      socket.on('error', reject);
      socket.on('close', () => resolve(answer));
    });

  /** Bytes written to the connection of a response. */
  const bytesTo = (response: GroupedResponse): number => response.socket?.bytesWritten ?? NaN;

  test('short answers of one turn are written at its end, and finish in the context of their request', async (t) => {
    const context = new AsyncLocalStorage<string>();
    const held: { path: string; response: GroupedResponse; before: number }[] = [];
    const written: unknown[] = [];
    const finished: unknown[] = [];
    handle = ({ url = '' }, response) => {
      held.push({ path: url, response, before: bytesTo(response) });
      if (held.length < 2) return;
      const clock = t.mock.method(performance, 'now', () => 0);
      for (const one of held)
        context.run(one.path, () => {
          one.response.once('finish', () => finished.push([one.path, context.getStore()]));
          one.response.end(`answer to ${one.path}`);
        });
      clock.mock.restore();
      written.push(...held.map((one) => [bytesTo(one.response) - one.before, one.response.writableEnded]));
    };
    assert.deepEqual(await Promise.all([get('/a'), get('/b')]), ['answer to /a', 'answer to /b']);
    assert.deepEqual(written, [
      [0, true],
      [0, true],
    ]);
    assert.deepEqual(
      finished,
      held.map(({ path }) => [path, path]),
    );
  });

  test('an answer does not wait for others longer than a millisecond', async (t) => {
    const held: GroupedResponse[] = [];
    let [now, writtenInTime, writtenLate] = [0, NaN, NaN];
    handle = (_request, response) => {
      held.push(response);
      const [first, second, third] = held;
      if (first === undefined || second === undefined || third === undefined) return;
      const before = bytesTo(first);
      const clock = t.mock.method(performance, 'now', () => now);
      first.end('1');
      now = 0.9;
      second.end('2');
      writtenInTime = bytesTo(first) - before;
      now = 1;
      third.end('3');
      writtenLate = bytesTo(first) - before;
      clock.mock.restore();
    };
    assert.deepEqual((await Promise.all([get(), get(), get()])).sort(), ['1', '2', '3']);
    assert.equal(writtenInTime, 0);
    assert.ok(writtenLate > 0);
  });

  test('requests on one connection are answered in order, short, long, without a body and in pieces', async () => {
    const long = 'long '.repeat(10_000);
    handle = ({ url = '', headers }, response) => {
      response.setHeader('x-path', url);
      if (url === '/pieces') {
        response.write('piece 1,');
        setImmediate(() => response.end('piece 2'));
      } else if (url === '/none') response.writeHead(204).end();
      else response.end(url === '/long' ? long : `short ${headers['x-text'] as string}`);
    };
    const request = (method: string, path: string, text: string, more = ''): string =>
      `${method} ${path} HTTP/1.1\r\nHost: x\r\nX-Text: ${text}\r\n${more}\r\n`;
    const answer = await raw(
      [
        request('GET', '/short', 'one'),
        request('HEAD', '/short', 'two'),
        request('GET', '/pieces', ''),
        request('GET', '/none', ''),
        request('GET', '/long', ''),
        request('GET', '/short', 'three', 'Connection: close\r\n'),
      ].join(''),
    );
    const parts = [...answer.matchAll(/x-path: (\S+)|short one|short two|piece \d|short three|(?:long ){10000}/g)];
    assert.deepEqual(
      parts.map(([part, path]) => path ?? part),
      [
        '/short',
        'short one',
        '/short',
        '/pieces',
        'piece 1',
        'piece 2',
        '/none',
        '/long',
        long,
        '/short',
        'short three',
      ],
    );
  });

  test('a request is answered before a malformed one after it is refused', async () => {
    handle = (_request, response) => response.end('first');
    const answer = await raw('GET / HTTP/1.1\r\nHost: x\r\n\r\nno request\r\n\r\n');
    assert.deepEqual(
      [...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status),
      ['200', '400'],
    );
  });

  test('an answer whose client goes away while it waits is not sent, and others are', async () => {
    const closed = new Promise<boolean>((resolve) => {
      handle = (_request, response) => {
        response.once('close', () => resolve(response.writableFinished));
        response.end('lost');
        response.socket?.destroy();
      };
    });
    assert.equal(await raw('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), '');
    assert.equal(await closed, false);
    handle = (_request, response) => response.end('next');
    assert.equal(await get(), 'next');
  });

  test('an answer that ends twice is sent once', async () => {
    handle = (_request, response) => {
      response.end('first');
      response.end();
    };
    assert.equal(await get(), 'first');
  });
});
