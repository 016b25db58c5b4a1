/** Attacks with images that are small to send and expensive to decode, by a user with an iModel or an iTwin of their own. */
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import sharp from 'sharp';
import { FairQueue, QueueFullError } from '../../apps/server/src/thumbnails/fairQueue.ts';
import type { WireError } from '../support/api.ts';
import { makeIModel, official } from '../support/clients.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

/** Child processes that scale images now. */
function decoders(): number {
  return readdirSync('/proc').filter((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      return (
        Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === process.pid &&
        readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('pictureProcess')
      );
    } catch {
      return false; // The process has exited meanwhile.
    }
  }).length;
}

describe('An image that is expensive to decode', () => {
  let server: TestServer;
  let iTwinId: string;
  let thumbnail: string;
  let image: string;
  /** The largest accepted image, interlaced: the decoder keeps all of it in memory. */
  let large: Buffer;
  before(async () => {
    server = await bootServer('sqlite');
    iTwinId = await server.iTwin();
    thumbnail = `/imodels/${(await makeIModel(await official(server), iTwinId)).id}/thumbnail`;
    image = `/itwins/${iTwinId}/image`;
    large = await sharp({ create: { width: 4096, height: 4096, channels: 3, background: 'teal' } })
      .png({ progressive: true })
      .toBuffer();
  });
  after(() => endServer(server));

  /** Sends images concurrently. @returns the requests, to be aborted, and the statuses of their answers */
  async function send(
    paths: readonly string[],
    picture: Buffer,
  ): Promise<{ cut: () => void; statuses: Promise<number[]> }> {
    const authorization = `Bearer ${await server.token('olivia')}`;
    const cut = new AbortController();
    const statuses = Promise.all(
      paths.map(
        (path) =>
          new Promise<number>((resolve) => {
            const sent = request(
              `${server.origin}${path}`,
              {
                method: 'PUT',
                agent: false,
                signal: cut.signal,
                headers: { authorization, 'content-type': 'image/png' },
              },
              (response) => response.resume().once('end', () => resolve(response.statusCode ?? 0)),
            );
            sent.once('error', () => resolve(0));
            sent.end(picture);
          }),
      ),
    );
    return { cut: () => cut.abort(), statuses };
  }

  test('is refused unread, for thumbnails and iTwins, from 4097 × 4096 pixels', async () => {
    const api = await server.as('olivia');
    const larger = await sharp({ create: { width: 7000, height: 7000, channels: 3, background: 'teal' } })
      .png({ progressive: true })
      .toBuffer();
    for (const path of [thumbnail, image]) {
      const answer = await api.put(path, larger, { 'content-type': 'image/png' });
      assert.deepEqual(
        [answer.status, (answer.body as WireError).error.details?.[0]?.message],
        [422, 'The picture has too many pixels. A PNG may have 16777216, a JPEG 50000000.'],
      );
    }
  });

  test('is decoded in a separate process, one at a time, while files are served', async () => {
    const api = await server.as('olivia');
    const { statuses } = await send([thumbnail, image, thumbnail, image], large);
    let [most, ended] = [0, false];
    const all = statuses.finally(() => (ended = true));
    while (!ended) {
      most = Math.max(most, decoders());
      assert.equal((await api.get(`/itwins/${iTwinId}`)).status, 200);
    }
    assert.deepEqual(await all, [201, 201, 201, 201]);
    assert.equal(most, 1);
  });

  test('stops being decoded, and stops waiting, when its client disconnects', async () => {
    const { cut, statuses } = await send([thumbnail, image, thumbnail, image], large);
    await until('one is decoded', () => (decoders() > 0 ? true : undefined));
    cut();
    assert.deepEqual(await statuses, [0, 0, 0, 0]);
    await until('none is decoded any more', () => (decoders() === 0 ? true : undefined));
    // The slot is free again.
    const { statuses: next } = await send([thumbnail], large);
    assert.deepEqual(await next, [201]);
  });

  test('waits in a bounded queue per user', async () => {
    const { statuses } = await send(
      Array.from({ length: 12 }, () => thumbnail),
      large,
    );
    const answered = await statuses;
    assert.deepEqual([...new Set(answered)].sort(), [201, 503]);
  });
});

describe('FairQueue', () => {
  const never = new AbortController().signal;
  /** A task that runs until it is released. */
  function held(): { work: () => Promise<void>; release: () => void } {
    let release = (): void => undefined;
    const released = new Promise<void>((resolve) => (release = resolve));
    return { work: () => released, release };
  }

  test('alternates between users: many images of one user do not delay another', async () => {
    const queue = new FairQueue({ running: 1, waiting: 10, waitingPerUser: 4 });
    const order: string[] = [];
    const first = held();
    const running = queue.run('a', never, first.work);
    const others = ['a', 'a', 'a', 'b', 'c', 'b'].map((user) =>
      queue.run(user, never, async () => void order.push(user)),
    );
    first.release();
    await Promise.all([running, ...others]);
    assert.deepEqual(order, ['a', 'b', 'c', 'a', 'b', 'a']);
  });

  test('refuses when too many wait, and frees the place of a request that leaves', async () => {
    const queue = new FairQueue({ running: 1, waiting: 2, waitingPerUser: 1 });
    const first = held();
    const running = queue.run('a', never, first.work);
    const leaving = new AbortController();
    const left = queue.run('a', leaving.signal, async () => assert.fail('it has left'));
    await assert.rejects(
      queue.run('a', never, async () => undefined),
      QueueFullError,
    );
    const b = queue.run('b', never, async () => 'b');
    await assert.rejects(
      queue.run('c', never, async () => undefined),
      QueueFullError,
    );
    leaving.abort(new Error('gone'));
    await assert.rejects(left, /gone/);
    const c = queue.run('c', never, async () => 'c');
    first.release();
    await running;
    assert.deepEqual(await Promise.all([b, c]), ['b', 'c']);
    assert.equal(await queue.run('a', never, async () => 'free'), 'free');
  });
});
