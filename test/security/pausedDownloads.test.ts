/**
 * Attacks on the connections between server and store, by a user who may read one file: downloads are started and not read. They
 * delay no upload, download or readiness check of others, and they end.
 */
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { get, type ClientRequest, type IncomingMessage } from 'node:http';
import type { Socket } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { Api } from '../support/api.ts';
import { official, type Official } from '../support/clients.ts';
import { beginPush, downloadLink } from '../support/push.ts';
import { bootServer, endServer, setups, storeConfig, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

/** More than the kernel buffers for a connection that is not read. */
const fileBytes = 16 * 2 ** 20;

/** A download that was started. */
interface Begun {
  request: ClientRequest;
  response: IncomingMessage;
}

for (const setup of setups) {
  describe(`Paused downloads on ${setup.engine} and ${setup.store}`, () => {
    const context = {} as { server: TestServer; olivia: Official; api: Api; iModelId: string; iTwinId: string };
    const open = new Set<ClientRequest>();
    /** Closed connections on the server, by the port of the client. */
    const ends = new Map<number, Socket>();

    async function boot(downloads: NonNullable<ConfigInput['downloads']>): Promise<void> {
      context.server = await bootServer(setup, { store: storeConfig(setup.store, false), downloads });
      context.server.running.app.server.on('connection', (socket: Socket) =>
        ends.set(socket.remotePort as number, socket),
      );
      context.olivia = await official(context.server);
      context.api = await context.server.as('olivia');
      context.iTwinId = await context.server.iTwin();
      context.iModelId = await push(fileBytes);
    }

    async function end(): Promise<void> {
      for (const request of open) request.destroy();
      open.clear();
      await endServer(context.server);
    }

    /** Pushes a changeset to a new iModel. */
    async function push(size: number): Promise<string> {
      const begun = await beginPush(context.olivia, context.api, context.iTwinId, size);
      assert.equal(
        (await new Api('').put(begun.upload, randomBytes(size), { 'x-ms-blob-type': 'BlockBlob' })).status,
        201,
      );
      assert.equal((await begun.complete()).status, 200);
      return begun.iModelId;
    }

    const freshLink = (): Promise<string> => downloadLink(context.api, context.iModelId);

    /** Starts a download and reads nothing of it. */
    async function pause(link: string): Promise<Begun> {
      const request = get(link, { agent: false });
      open.add(request);
      request.on('error', () => undefined);
      const [response] = (await once(request, 'response')) as [IncomingMessage];
      response.on('error', () => undefined);
      return { request, response };
    }

    /** Whether the server has closed it, which a client that does not read cannot see. */
    const hasEnded = ({ request }: Begun): true | undefined =>
      ends.get(request.socket?.localPort as number)?.destroyed === true ? true : undefined;

    /** Continues to read a download. @returns the number of bytes received */
    async function readToEnd({ response }: Begun): Promise<number> {
      let bytes = 0;
      try {
        for await (const chunk of response) bytes += (chunk as Buffer).length;
      } catch {
        // It was closed before all bytes were sent.
      }
      return bytes;
    }

    describe('as many as once stopped a server', () => {
      before(() => boot({}));
      after(end);

      test('leave uploads, downloads and readiness unaffected', { timeout: 120_000 }, async () => {
        for (let n = 0; n < 60; n++) assert.equal((await pause(await freshLink())).response.statusCode, 200);
        assert.equal((await new Api(context.server.origin).get('/health/ready')).status, 200);
        await push(1000);
        const whole = await fetch(await freshLink());
        assert.equal((await whole.arrayBuffer()).byteLength, fileBytes);
      });
    });

    describe('beyond the limits', () => {
      before(() => boot({ simultaneous: 6, perLink: 2, stallSeconds: 3 }));
      after(end);

      test('end, while an active download continues', { timeout: 120_000 }, async () => {
        const paused = await pause(await freshLink());
        const slow = await pause(await freshLink());
        let bytes = 0;
        // Slower than the network, and faster than what counts as stalled.
        const reading = (async () => {
          for await (const chunk of slow.response) {
            bytes += (chunk as Buffer).length;
            if (hasEnded(paused) === undefined) await new Promise((resolve) => setTimeout(resolve, 20));
          }
        })();
        await until('the paused one ends', () => hasEnded(paused), 60_000);
        await reading;
        assert.equal(bytes, fileBytes);
        assert.ok((await readToEnd(paused)) < fileBytes);
      });

      test('are refused on one link, and others are not', { timeout: 120_000 }, async () => {
        const link = await freshLink();
        const both = [await pause(link), await pause(link)];
        const third = await pause(link);
        assert.deepEqual(
          [third.response.statusCode, third.response.headers['x-ms-error-code'], third.response.headers['retry-after']],
          [503, 'ServerBusy', '5'],
        );
        assert.equal((await pause(await freshLink())).response.statusCode, 200);
        for (const { request } of both) request.destroy();
        // Its slots are free as soon as the server notices.
        await until('the link can be used again', async () =>
          (await pause(link)).response.statusCode === 200 ? true : undefined,
        );
      });

      test('yield to an active download when all slots are taken', { timeout: 120_000 }, async () => {
        for (let n = 0; n < 8; n++) await pause(await freshLink());
        await until(
          'a download finds a place',
          async () => {
            const response = await fetch(await freshLink());
            return (await response.arrayBuffer()).byteLength === fileBytes ? true : undefined;
          },
          60_000,
        );
      });
    });
  });
}
