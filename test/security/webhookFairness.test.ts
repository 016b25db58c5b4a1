/**
 * Attacks through webhooks, by a user who has messages sent to receivers that never answer or always fail: the messages of others
 * are still delivered, and failures reveal nothing about the network of the server.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import { deliveryFault } from '../../apps/server/src/events/deliveryFault.ts';
import type { Answer, WireError } from '../support/api.ts';
import type { PersonName } from '../support/server.ts';
import { onEachDatabase, type Context } from '../support/suite.ts';
import { until } from '../support/until.ts';

/** Paths that were posted to, in order. */
const received: string[] = [];
/** Open requests to the path `/hang`, and their maximum. */
let open = 0;
let mostOpen = 0;
/** The answer of a path; 200 by default. */
const answers = new Map<string, number>();
let receiver: Server;
let address = '';
before(async () => {
  receiver = createServer((request, response) => {
    request.resume();
    const path = request.url ?? '';
    received.push(path);
    if (path === '/hang') {
      mostOpen = Math.max(mostOpen, ++open);
      response.once('close', () => open--);
    } else response.writeHead(answers.get(path) ?? 200).end();
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  address = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
});
after(() => {
  receiver.closeAllConnections();
  receiver.close();
});

const eventTypes = ['iModels.iModelCreated.v1'];
const at = (path: string): number => received.filter((one) => one === path).length;

async function subscribe(context: Context, who: PersonName, iTwinId: string, path: string): Promise<Answer> {
  return (await context.server.as(who)).post(`/itwins/${iTwinId}/webhooks`, {
    callbackUrl: `${address}${path}`,
    eventTypes,
    isActive: true,
  });
}
const idOf = ({ body }: Answer): string => (body as { webhook: { id: string } }).webhook.id;

/** Causes an event in an iTwin, which every webhook of it receives. */
async function causeEvent(context: Context, who: PersonName, iTwinId: string): Promise<void> {
  const { status } = await (await context.server.as(who)).post('/imodels', { iTwinId, name: randomUUID() });
  assert.equal(status, 201);
}

onEachDatabase(
  'Webhooks to receivers that never answer',
  { webhooks: { allowPrivateAddresses: true, attempts: 100, firstRetrySeconds: 0, pauseAfter: 1_000_000 } },
  (context) => {
    test('delay neither another user of the organization nor another organization', { timeout: 120_000 }, async () => {
      mostOpen = 0;
      for (let n = 0; n < 5; n++) {
        const iTwinId = await context.server.iTwin('eve');
        const made = await Promise.all(Array.from({ length: 8 }, () => subscribe(context, 'eve', iTwinId, '/hang')));
        assert.deepEqual(new Set(made.map(({ status }) => status)), new Set([201]));
        await causeEvent(context, 'eve', iTwinId);
      }
      await until('the attack', () => (open >= 4 ? true : undefined));
      for (const who of ['foreignAdmin', 'olivia'] as const) {
        const iTwinId = await context.server.iTwin(who);
        const path = `/${randomUUID()}`;
        await subscribe(context, who, iTwinId, path);
        for (let n = 1; n <= 3; n++) {
          await causeEvent(context, who, iTwinId);
          await until('the message', () => (at(path) >= n ? true : undefined));
        }
      }
      assert.equal(mostOpen, 4, 'half of the places of a server for one user');
    });
  },
);

onEachDatabase(
  'The number of webhooks',
  { webhooks: { allowPrivateAddresses: true, perUser: 10 }, quotas: { webhooks: 6 } },
  (context) => {
    test('is limited for each iTwin and each user, also under concurrent creation', { timeout: 60_000 }, async () => {
      const [first, second] = [await context.server.iTwin('eve'), await context.server.iTwin('eve')];
      const refused = (answer: Answer, of: string): void => {
        const { error } = answer.body as WireError;
        assert.deepEqual(
          [answer.status, error.code, error.details?.[0]?.code],
          [422, 'InvalidiTwinsRequest', 'ResourceQuotaExceeded'],
        );
        assert.match(error.details?.[0]?.message ?? '', new RegExp(`per ${of} limit`));
      };
      const made = await Promise.all(Array.from({ length: 12 }, () => subscribe(context, 'eve', first, '/x')));
      assert.equal(made.filter(({ status }) => status === 201).length, 6);
      for (const answer of made) if (answer.status !== 201) refused(answer, 'iTwin');
      const others = await Promise.all(Array.from({ length: 5 }, () => subscribe(context, 'eve', second, '/x')));
      assert.equal(others.filter(({ status }) => status === 201).length, 4);
      for (const answer of others) if (answer.status !== 201) refused(answer, 'user');
      // Deleting one makes room for another.
      const one = made.find(({ status }) => status === 201) as Answer;
      assert.equal(
        (await (await context.server.as('eve')).delete(`/itwins/${first}/webhooks/${idOf(one)}`)).status,
        204,
      );
      assert.equal((await subscribe(context, 'eve', second, '/x')).status, 201);
    });
  },
);

onEachDatabase(
  'A receiver that fails',
  { webhooks: { allowPrivateAddresses: true, attempts: 1, pauseAfter: 3, pauseSeconds: 300 } },
  (context) => {
    interface DeadLetter {
      messageId: string;
      lastError: string;
    }
    async function deadLettersOf(iTwinId: string, id: string, count: number): Promise<DeadLetter[]> {
      return until(`${count} dead letters`, async () => {
        const { deadLetters } = (await context.api.get(`/itwins/${iTwinId}/webhooks/${id}/deadletters`)).body as {
          deadLetters: DeadLetter[];
        };
        return deadLetters.length >= count ? deadLetters : undefined;
      });
    }

    test(
      'is paused, then tried with one message, and its failures delay no other webhook',
      { timeout: 60_000 },
      async () => {
        const [iTwinId, other] = [await context.server.iTwin(), await context.server.iTwin()];
        const [path, mended] = [`/${randomUUID()}`, `/${randomUUID()}`];
        answers.set(path, 500);
        const id = idOf(await subscribe(context, 'olivia', iTwinId, path));
        for (let n = 1; n <= 3; n++) {
          await causeEvent(context, 'olivia', iTwinId);
          await deadLettersOf(iTwinId, id, n);
        }
        for (let n = 0; n < 5; n++) await causeEvent(context, 'olivia', iTwinId);
        const kept = await deadLettersOf(iTwinId, id, 8);
        assert.equal(at(path), 3, 'nothing is sent during the pause');
        assert.equal(
          kept.filter(
            ({ lastError }) => lastError === 'The receiver failed repeatedly, so deliveries to it are paused.',
          ).length,
          5,
        );

        // The same receiver for another webhook: a pause affects one webhook only.
        await subscribe(context, 'olivia', other, mended);
        await causeEvent(context, 'olivia', other);
        await until('the message to another webhook', () => (at(mended) === 1 ? true : undefined));

        // The pause is over: one message tries the receiver and fails, and the next pause begins.
        const { db } = context.server.services.database;
        await db.updateTable('webhook').set({ paused_until: 1 }).where('id', '=', id).execute();
        for (let n = 0; n < 3; n++) await causeEvent(context, 'olivia', iTwinId);
        await deadLettersOf(iTwinId, id, 11);
        assert.equal(at(path), 4);

        // It works again.
        answers.delete(path);
        await db.updateTable('webhook').set({ paused_until: 1 }).where('id', '=', id).execute();
        await causeEvent(context, 'olivia', iTwinId);
        await until('the message that tries it', () => (at(path) === 5 ? true : undefined));
        await until('the end of the pause', async () =>
          (await db.selectFrom('webhook').select('failures').where('id', '=', id).executeTakeFirst())?.failures === 0
            ? true
            : undefined,
        );
        await causeEvent(context, 'olivia', iTwinId);
        await until('the next message', () => (at(path) === 6 ? true : undefined));
      },
    );

    test('is retried at once when its owner changes the webhook', { timeout: 60_000 }, async () => {
      const iTwinId = await context.server.iTwin();
      const [path, mended] = [`/${randomUUID()}`, `/${randomUUID()}`];
      answers.set(path, 500);
      const id = idOf(await subscribe(context, 'olivia', iTwinId, path));
      for (let n = 1; n <= 3; n++) {
        await causeEvent(context, 'olivia', iTwinId);
        await deadLettersOf(iTwinId, id, n);
      }
      assert.equal(
        (await context.api.patch(`/itwins/${iTwinId}/webhooks/${id}`, { callbackUrl: `${address}${mended}` })).status,
        200,
      );
      await causeEvent(context, 'olivia', iTwinId);
      await until('the message', () => (at(mended) === 1 ? true : undefined));
    });
  },
);

test('A failed delivery reports the same for an unknown host name as for one that resolves into the network of the server', () => {
  const coded = (code: string): Error => Object.assign(new Error(`connect ${code} 10.1.2.3:443`), { code });
  const errors = [
    coded('ENOTFOUND'),
    coded('EAI_AGAIN'),
    coded('EHOSTUNREACH'),
    coded('ENETUNREACH'),
    new Error('DNS lookup 10.1.2.3(family:4, host:vault.internal) is not allowed. Because, It is private IP address.'),
    new Error('anything else'),
  ];
  const told = new Set(errors.map((error) => deliveryFault(error).message));
  assert.equal(told.size, 1);
  assert.doesNotMatch([...told][0] ?? '', /private|internal|10\.1/);
});
