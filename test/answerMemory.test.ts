/** The limit of the memory for answers to viewers. */
import assert from 'node:assert/strict';
import type { ServerResponse } from 'node:http';
import { describe, test } from 'node:test';
import { iTwinJsVersion } from '../apps/server/src/checkpoints/itwinjs/itwinjsVersion.ts';
import { ApiError } from '../apps/server/src/errors.ts';
import { AnswerMemory, AnswersFullError } from '../apps/server/src/viewer/answerMemory.ts';
import { release, releaseHeader } from '../apps/server/src/viewer/protocol.ts';
import type { WireError } from './support/api.ts';
import { bootServer, endServer } from './support/server.ts';
import { until } from './support/until.ts';
import { makeViewable, startBackend } from './support/viewBackend.ts';
import { read, send } from './support/viewerCalls.ts';

const never = new AbortController().signal;

describe('The memory for answers to viewers', () => {
  test('is never exceeded, and those who waited longest get it first', async () => {
    const memory = new AnswerMemory(100);
    const [a, b, c, d] = [memory.hold('a'), memory.hold('b'), memory.hold('c'), memory.hold('d')];
    await Promise.all([a.reserve(60, never), b.reserve(40, never)]);
    const order: string[] = [];
    const waiting = [
      c.reserve(50, never).then(() => order.push('c')),
      // It would fit after the first one ends, but not before the one that waited longer.
      d.reserve(40, never).then(() => order.push('d')),
    ];
    b.end();
    assert.equal(memory.bytes, 60);
    a.end();
    await Promise.all(waiting);
    assert.deepEqual([order, memory.bytes], [['c', 'd'], 90]);
    assert.throws(() => d.reserveNow(20), AnswersFullError);
    for (const each of [c, d]) each.end();
    assert.equal(memory.bytes, 0);
  });

  test('is for one user a quarter, or one answer of any size, while others are not kept waiting', async () => {
    const memory = new AnswerMemory(100);
    const [first, second, third] = [memory.hold('a'), memory.hold('a'), memory.hold('a')];
    await first.reserve(20, never);
    assert.throws(() => second.reserveNow(10), AnswersFullError);
    const waiting = second.reserve(10, never);
    await memory.hold('b').reserve(70, never);
    assert.equal(memory.bytes, 90);
    first.end();
    await waiting;
    second.end();
    await third.reserve(30, never);
    assert.equal(memory.bytes, 100);
  });

  test('is refused after 10 s, to a client that has gone, behind 1,000 others, and for what never fits', async (t) => {
    const memory = new AnswerMemory(100);
    const first = memory.hold('a');
    await first.reserve(100, never);
    t.mock.timers.enable({ apis: ['setTimeout'] });
    const client = new AbortController();
    const gone = memory.hold('b').reserve(10, client.signal);
    client.abort(new Error('the client has gone'));
    await assert.rejects(gone, /the client has gone/);
    const waiting = Array.from({ length: 1000 }, () => memory.hold('b').reserve(10, never));
    await assert.rejects(memory.hold('c').reserve(10, never), AnswersFullError);
    const refused = Promise.all(waiting.map((each) => assert.rejects(each, AnswersFullError)));
    t.mock.timers.tick(10_000);
    await refused;
    await assert.rejects(memory.hold('c').reserve(101, never), ApiError);
    first.end();
    await assert.rejects(first.reserve(1, never), AnswersFullError);
    await memory.hold('c').reserve(100, never);
  });

  test('is taken before an answer is read, and returned when it has been sent or is refused', async () => {
    const mebibyte = 2 ** 20;
    const bytes = 5 * mebibyte;
    const begun: ServerResponse[] = [];
    let announced = true;
    const named = release().replace(/[^/]*$/, iTwinJsVersion() || '5.1.9');
    const backend = await startBackend((_request, response) => {
      response.writeHead(200, {
        [releaseHeader]: named,
        'content-type': 'application/octet-stream',
        ...(announced && { 'content-length': bytes }),
      });
      response.flushHeaders();
      begun.push(response);
    });
    // A user has 8 MiB of it.
    const server = await bootServer('sqlite', { viewer: { ...backend.config, answersMiB: 32 } });
    try {
      const { memory } = server.services.viewer;
      const place = await makeViewable(server);
      const api = await server.as('olivia');
      const holds = (expected: number): Promise<true> =>
        until(`${expected} bytes to be held`, () => (memory.bytes === expected ? true : undefined), 60_000);
      const begins = (number: number): Promise<true> =>
        until(`answer ${number}`, () => (begun.length === number ? true : undefined), 60_000);
      const ask = () => send(api, place, `${read}getConnectionProps`);
      const first = ask();
      await holds(bytes);
      const second = ask();
      await begins(2);
      begun[0]?.end(Buffer.alloc(bytes));
      assert.equal((await first).status, 200);
      // The memory of the first answer is free, and the second one, which waited for it, takes it.
      await holds(bytes);
      begun[1]?.end(Buffer.alloc(bytes));
      assert.equal((await second).status, 200);
      await holds(0);

      announced = false;
      const endless = ask();
      await begins(3);
      const [, , third] = begun;
      // More than the share of a user, and then more than all the memory.
      for (let sent = 0; sent < 40; sent++) third?.write(Buffer.alloc(mebibyte));
      const { status, body } = await endless;
      assert.deepEqual([status, (body as WireError).error.code], [500, 'ViewerBackendUnusable'], JSON.stringify(body));
      await holds(0);
    } finally {
      await endServer(server);
      backend.close();
    }
  });
});
