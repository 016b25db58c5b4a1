import assert from 'node:assert/strict';
import { createHmac, randomUUID } from 'node:crypto';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, test } from 'node:test';
import type { WireError } from './support/api.ts';
import { makeIModel, pushMore } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachDatabase } from './support/suite.ts';
import { until } from './support/until.ts';

interface Message {
  content: Record<string, unknown>;
  eventType: string;
  enqueuedDateTime: string;
  iTwinId: string;
  messageId: string;
  webhookId: string;
}
interface Received {
  path: string;
  signature: string;
  body: string;
  message: Message;
}

const received: Received[] = [];
/** The answer of a path; 200 by default. */
const answers = new Map<string, () => number>();
let receiver: Server;
let address = '';
before(async () => {
  receiver = createServer((request, response) => {
    let body = '';
    request.on('data', (text: Buffer) => (body += text.toString()));
    request.on('end', () => {
      const path = request.url ?? '';
      received.push({
        path,
        signature: String(request.headers['signature']),
        body,
        message: JSON.parse(body) as Message,
      });
      response.writeHead(answers.get(path)?.() ?? 200).end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, '127.0.0.1', resolve));
  address = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
});
after(() => receiver.close());

const all = [
  'iModels.iModelCreated.v1',
  'iModels.iModelDeleted.v1',
  'iModels.changesetPushed.v1',
  'iModels.namedVersionCreated.v1',
];

onEachDatabase(
  'Webhooks',
  { webhooks: { allowPrivateAddresses: true, attempts: 3, firstRetrySeconds: 0.01 } },
  (context) => {
    async function subscribe(
      iTwinId: string,
      eventTypes = all,
      isActive = true,
    ): Promise<{ id: string; secret: string; path: string }> {
      const path = `/${randomUUID()}`;
      const { status, body } = await context.api.post(`/itwins/${iTwinId}/webhooks`, {
        callbackUrl: `${address}${path}`,
        eventTypes,
        isActive,
      });
      assert.equal(status, 201, JSON.stringify(body));
      const { webhook } = body as { webhook: { id: string; secret: string } };
      return { ...webhook, path };
    }
    const at = (path: string) => received.filter((one) => one.path === path);
    const arrived = (path: string, count: number) =>
      until(`${count} messages`, () => (at(path).length >= count ? at(path) : undefined));

    test('receive creation, pushes, versions, clones and deletion, each once and signed', async () => {
      const iTwinId = await context.server.iTwin();
      const { id, secret, path } = await subscribe(iTwinId);
      const made = await makeIModel(context.olivia, iTwinId, { changesets: 1 });
      const { client, authorization } = context.olivia;
      const version = await client.namedVersions.create({
        authorization,
        iModelId: made.id,
        namedVersionProperties: { name: 'one', changesetId: made.changesets[0]?.id ?? '' },
      });
      const clone = await client.iModels.clone({
        authorization,
        iModelId: made.id,
        iModelProperties: { iTwinId, name: 'copy' },
      });
      await client.iModels.delete({ authorization, iModelId: made.id });
      const got = await arrived(path, 5);

      const userId = people.olivia.id;
      const expected = [
        ['iModels.iModelCreated.v1', { imodelId: made.id, userId }],
        [
          'iModels.changesetPushed.v1',
          {
            imodelId: made.id,
            changesetId: made.changesets[0]?.id,
            changesetIndex: 1,
            briefcaseId: made.briefcaseId,
            userId,
          },
        ],
        [
          'iModels.namedVersionCreated.v1',
          {
            imodelId: made.id,
            versionId: version.id,
            versionName: 'one',
            changesetId: made.changesets[0]?.id,
            changesetIndex: 1,
            userId,
          },
        ],
        ['iModels.iModelCreated.v1', { imodelId: clone.id, userId }],
        ['iModels.iModelDeleted.v1', { imodelId: made.id, userId }],
      ];
      const key = (pair: unknown): string => JSON.stringify(pair);
      assert.deepEqual(
        got.map(({ message }) => key([message.eventType, message.content])).toSorted(),
        expected.map(key).toSorted(),
      );
      for (const { body, signature, message } of got) {
        assert.equal(signature, `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`);
        assert.deepEqual(Object.keys(message).toSorted(), [
          'content',
          'enqueuedDateTime',
          'eventType',
          'iTwinId',
          'messageId',
          'webhookId',
        ]);
        assert.deepEqual(
          [message.webhookId, message.iTwinId, Number.isNaN(Date.parse(message.enqueuedDateTime))],
          [id, iTwinId, false],
        );
      }
      assert.equal(new Set(got.map(({ message }) => message.messageId)).size, 5);
    });

    test('receive nothing about refused requests, other iTwins and other event types, or while switched off', async () => {
      const iTwinId = await context.server.iTwin();
      const wanted = await subscribe(iTwinId, ['iModels.iModelDeleted.v1']);
      const off = await subscribe(iTwinId, all, false);
      const made = await makeIModel(context.olivia, iTwinId);
      assert.equal((await context.api.post(`/imodels/${made.id}/clone`, { iTwinId })).status, 409);
      const elsewhere = await makeIModel(context.olivia, await context.server.iTwin());
      await context.api.delete(`/imodels/${elsewhere.id}`);
      await context.api.delete(`/imodels/${made.id}`);
      const [only] = await arrived(wanted.path, 1);
      assert.deepEqual(only?.message.content['imodelId'], made.id);
      const waiting = await context.server.services.database.db
        .selectFrom('job')
        .select('id')
        .where('subject_id', 'in', [wanted.id, off.id])
        .where('state', '!=', 'running')
        .execute();
      assert.deepEqual([waiting, at(wanted.path).length, at(off.path).length], [[], 1, 0]);
    });

    test('are retried, and exhausted deliveries are listed and can be sent again', async () => {
      const iTwinId = await context.server.iTwin();
      const { id, path } = await subscribe(iTwinId, ['iModels.changesetPushed.v1']);
      const made = await makeIModel(context.olivia, iTwinId);
      let failures = 2;
      answers.set(path, () => (failures-- > 0 ? 503 : 204));
      await pushMore(context.olivia, made, 1);
      const [first, , third] = await arrived(path, 3);
      assert.equal(first?.message.messageId, third?.message.messageId);

      answers.set(path, () => 500);
      await pushMore(context.olivia, made, 1);
      const list = `/itwins/${iTwinId}/webhooks/${id}/deadletters`;
      const letter = await until(
        'a dead letter',
        async () =>
          (
            (await context.api.get(list)).body as {
              deadLetters: { messageId: string; attempts: number; lastError: string; eventType: string }[];
            }
          ).deadLetters[0],
      );
      assert.deepEqual(
        [letter.attempts, letter.lastError, letter.eventType, at(path).length],
        [3, 'The receiver answered 500.', 'iModels.changesetPushed.v1', 6],
      );
      answers.delete(path);
      assert.equal((await context.api.post(`${list}/${letter.messageId}`)).status, 202);
      await arrived(path, 7);
      await until('an empty list', async () =>
        ((await context.api.get(list)).body as { deadLetters: unknown[] }).deadLetters.length === 0 ? true : undefined,
      );
      assert.equal(
        ((await context.api.post(`${list}/${letter.messageId}`)).body as WireError).error.code,
        'DeliveryNotFound',
      );
    });

    test('show their secret once, and can be changed, switched off and deleted', async () => {
      const iTwinId = await context.server.iTwin();
      const { id } = await subscribe(iTwinId);
      const base = `/itwins/${iTwinId}/webhooks`;
      const { body: got } = await context.api.get(`${base}/${id}`);
      assert.ok(!JSON.stringify([got, (await context.api.get(base)).body]).includes('secret'));
      const changed = await context.api.patch(`${base}/${id}`, {
        isActive: false,
        eventTypes: ['iModels.iModelDeleted.v1'],
      });
      const { webhook } = changed.body as { webhook: { isActive: boolean; eventTypes: string[] } };
      assert.deepEqual([webhook.isActive, webhook.eventTypes], [false, ['iModels.iModelDeleted.v1']]);
      assert.equal((await context.api.delete(`${base}/${id}`)).status, 204);
      assert.equal(((await context.api.get(`${base}/${id}`)).body as WireError).error.code, 'WebhookNotFound');
      for (const callbackUrl of ['ftp://example.com', 'not an address', 'https://user:word@example.com']) {
        const refused = await context.api.post(base, { callbackUrl, eventTypes: all });
        assert.equal((refused.body as WireError).error.details?.[0]?.target, 'callbackUrl');
      }
    });
  },
);

onEachDatabase('Webhooks with the default configuration', { webhooks: { attempts: 1 } }, (context) => {
  test('cannot reach the local network, whatever host name resolves to it', async () => {
    const iTwinId = await context.server.iTwin();
    const base = `/itwins/${iTwinId}/webhooks`;
    const plain = await context.api.post(base, { callbackUrl: 'http://example.com/', eventTypes: all });
    assert.equal((plain.body as WireError).error.details?.[0]?.target, 'callbackUrl');
    const { port } = new URL(address);
    const before = received.length;
    for (const host of ['127.0.0.1', 'localhost', '[::1]', '169.254.169.254', '10.0.0.1']) {
      const { body } = await context.api.post(base, {
        callbackUrl: `https://${host}:${port}/inside`,
        eventTypes: all,
        isActive: true,
      });
      const { id } = (body as { webhook: { id: string } }).webhook;
      await makeIModel(context.olivia, iTwinId);
      const letter = await until(
        'a refusal',
        async () =>
          ((await context.api.get(`${base}/${id}/deadletters`)).body as { deadLetters: { lastError: string }[] })
            .deadLetters[0],
      );
      assert.equal(
        letter.lastError,
        'The receiver could not be reached: its host name is not known, or leads to no address that this server sends to.',
        host,
      );
      await context.api.delete(`${base}/${id}`);
    }
    assert.equal(received.length, before);
  });
});
