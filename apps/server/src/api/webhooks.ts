import { Type } from '../jsonSchema.ts';
import type { JobTable } from '../db/schema.ts';
import type { WebhookTable } from '../db/schemaOfITwins.ts';
import { parseGuid } from '../domain.ts';
import { detail, type ApiError, type ErrorDetail } from '../errors.ts';
import { eventTypes, type EventMessage } from '../events/events.ts';
import type { Services } from '../services.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { itwinRoute, type Route } from './route.ts';
import { PageLinks, time, TimeSchema } from './schemas.ts';

const tag = 'Webhooks';
const base = '/itwins/:iTwinId/webhooks';
const access = { on: 'itwin', permission: 'webhooks_maintainer', from: 'path' } as const;

const Webhook = Type.Object({
  id: Type.String(),
  callbackUrl: Type.String(),
  eventTypes: Type.Array(Type.String({ enum: [...eventTypes] })),
  isActive: Type.Boolean(),
  createdDateTime: TimeSchema,
  creatorId: Type.String(),
});
const WebhookResponse = Type.Object({ webhook: Webhook });
const Delivery = Type.Object({
  messageId: Type.String(),
  eventType: Type.String(),
  enqueuedDateTime: TimeSchema,
  attempts: Type.Integer(),
  lastError: Type.String(),
});

const CallbackUrl = Type.String({
  minLength: 1,
  maxLength: 2000,
  description: 'URL to which messages are posted; https.',
});
const Secret = Type.String({ minLength: 16, maxLength: 255, description: 'Key of the signature.' });
const EventTypes = Type.Array(Type.String({ enum: [...eventTypes] }), { minItems: 1, uniqueItems: true });

function toWebhook(row: WebhookTable) {
  return {
    id: row.id,
    callbackUrl: row.callback_url,
    eventTypes: JSON.parse(row.event_types) as string[],
    isActive: row.is_active === 1,
    createdDateTime: time(row.created_at),
    creatorId: row.creator_id,
  };
}

function toDelivery(row: JobTable) {
  const { eventType, enqueuedAt } = JSON.parse(row.payload) as EventMessage;
  return {
    messageId: row.id,
    eventType,
    enqueuedDateTime: time(enqueuedAt),
    attempts: row.attempt,
    lastError: row.last_error ?? '',
  };
}

/** Rule of this server: messages go out encrypted, unless its own network is trusted to carry them. */
function requireUrl(
  text: string | undefined,
  { config }: Services,
  invalid: (details: ErrorDetail[]) => ApiError,
): void {
  if (text === undefined) return;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const fine =
    url?.username === '' &&
    url.password === '' &&
    (url.protocol === 'https:' || (url.protocol === 'http:' && config.webhooks.allowPrivateAddresses));
  if (!fine)
    throw invalid([
      detail.invalidValue(
        'callbackUrl',
        "Provided 'callbackUrl' value is not valid. It must be an https address without a user.",
      ),
    ]);
}

const createWebhook = itwinRoute({
  operationId: 'create-itwin-webhook',
  method: 'POST',
  path: base,
  tag,
  summary: 'Create a webhook that receives the events of an iTwin',
  description: [
    'Each message is `{content, eventType, enqueuedDateTime, iTwinId, messageId, webhookId}` with the header',
    '`Signature: sha256=<hex HMAC-SHA256 of the body>`. It is sent until it is answered by 2xx within 5 s, so it may come more than',
    'once: `messageId` tells. The secret is in this answer only.',
  ].join(' '),
  access,
  invalid: 'Cannot create Webhook.',
  body: Type.Object({
    callbackUrl: CallbackUrl,
    secret: Type.Optional(Secret),
    eventTypes: EventTypes,
    isActive: Type.Optional(Type.Boolean({ description: 'Inactive by default.' })),
  }),
  response: {
    status: 201,
    description: 'The webhook, with its secret.',
    schema: Type.Object({ webhook: Type.Object({ ...Webhook.properties, secret: Type.String() }) }),
  },
  async handler({ access: { itwin }, caller, body, services, invalid }) {
    requireUrl(body.callbackUrl, services, invalid);
    const row = await services.webhooks.create(caller, itwin.id, {
      callbackUrl: body.callbackUrl,
      secret: body.secret,
      eventTypes: body.eventTypes,
      isActive: body.isActive ?? false,
    });
    return { webhook: { ...toWebhook(row), secret: row.secret } };
  },
});

const listWebhooks = itwinRoute({
  operationId: 'get-itwin-webhooks',
  method: 'GET',
  path: base,
  tag,
  summary: 'List the webhooks of an iTwin',
  access,
  invalid: 'Cannot get Webhooks.',
  response: { status: 200, description: 'Webhooks.', schema: Type.Object({ webhooks: Type.Array(Webhook) }) },
  async handler({ access: { itwin }, services }) {
    return { webhooks: (await services.webhooks.list(itwin.id)).map(toWebhook) };
  },
});

const getWebhook = itwinRoute({
  operationId: 'get-itwin-webhook',
  method: 'GET',
  path: `${base}/:webhookId`,
  tag,
  summary: 'Get a webhook',
  access,
  invalid: 'Cannot get Webhook.',
  response: { status: 200, description: 'The webhook.', schema: WebhookResponse },
  errors: ['WebhookNotFound'],
  async handler({ access: { itwin }, params, services }) {
    return { webhook: toWebhook(await services.webhooks.get(itwin.id, parseGuid(params['webhookId'] ?? ''))) };
  },
});

const updateWebhook = itwinRoute({
  operationId: 'update-itwin-webhook',
  method: 'PATCH',
  path: `${base}/:webhookId`,
  tag,
  summary: 'Update, activate or deactivate a webhook',
  access,
  invalid: 'Cannot update Webhook.',
  body: Type.Object({
    callbackUrl: Type.Optional(CallbackUrl),
    secret: Type.Optional(Secret),
    eventTypes: Type.Optional(EventTypes),
    isActive: Type.Optional(Type.Boolean()),
  }),
  response: { status: 200, description: 'The updated webhook.', schema: WebhookResponse },
  errors: ['WebhookNotFound'],
  async handler({ access: { itwin }, caller, params, body, services, invalid }) {
    requireUrl(body.callbackUrl, services, invalid);
    return {
      webhook: toWebhook(await services.webhooks.update(caller, itwin.id, parseGuid(params['webhookId'] ?? ''), body)),
    };
  },
});

const deleteWebhook = itwinRoute({
  operationId: 'delete-itwin-webhook',
  method: 'DELETE',
  path: `${base}/:webhookId`,
  tag,
  summary: 'Delete a webhook and its pending messages',
  access,
  invalid: 'Cannot delete Webhook.',
  response: { status: 204, description: 'Deleted.' },
  errors: ['WebhookNotFound'],
  async handler({ access: { itwin }, caller, params, services }) {
    await services.webhooks.delete(caller, itwin.id, parseGuid(params['webhookId'] ?? ''));
  },
});

const listDeadLetters = itwinRoute({
  operationId: 'get-itwin-webhook-dead-letters',
  method: 'GET',
  path: `${base}/:webhookId/deadletters`,
  tag,
  summary: 'List the dead letters of a webhook: messages whose attempts are exhausted',
  access,
  invalid: 'Cannot get dead letters.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of messages.',
    schema: Type.Object({ deadLetters: Type.Array(Delivery), _links: PageLinks }),
  },
  errors: ['WebhookNotFound'],
  async handler({ access: { itwin }, params, query, rawQuery, links, services, invalid }) {
    const { id } = await services.webhooks.get(itwin.id, parseGuid(params['webhookId'] ?? ''));
    const keys = [
      { column: 'created_at', type: 'number' as const, descending: false },
      { column: 'id', type: 'text' as const, descending: false },
    ];
    const page = await services.webhooks.deadLetters(id, pageRequest(query, keys, invalid));
    return {
      deadLetters: page.items.map(toDelivery),
      _links: links.page(`/itwins/${itwin.id}/webhooks/${id}/deadletters`, rawQuery, page),
    };
  },
});

const redeliver = itwinRoute({
  operationId: 'redeliver-itwin-webhook-dead-letter',
  method: 'POST',
  path: `${base}/:webhookId/deadletters/:messageId`,
  tag,
  summary: 'Send a dead letter again',
  access,
  invalid: 'Cannot redeliver.',
  response: { status: 202, description: 'The message is scheduled again.' },
  errors: ['WebhookNotFound', 'DeliveryNotFound'],
  async handler({ access: { itwin }, caller, params, services }) {
    const { id } = await services.webhooks.get(itwin.id, parseGuid(params['webhookId'] ?? ''));
    await services.webhooks.redeliver(caller, itwin.id, id, parseGuid(params['messageId'] ?? ''));
    services.jobs.wake();
  },
});

export const webhookRoutes: Route[] = [
  createWebhook,
  listWebhooks,
  getWebhook,
  updateWebhook,
  deleteWebhook,
  listDeadLetters,
  redeliver,
];
