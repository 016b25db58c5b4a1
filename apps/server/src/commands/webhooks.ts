import { Command } from 'commander';
import { address, texts } from './arguments.ts';
import { Connection } from './connection.ts';
import { iTwinIdOf, namedIn } from './names.ts';
import { printDone, printList, printObject, timeText, type Column } from './output.ts';
import {
  confirm,
  listCommand,
  resourceCommand,
  withCommands,
  withConfirmation,
  type ResourceOptions,
} from './resource.ts';
import { onITwin } from './roles.ts';

interface Webhook {
  id: string;
  callbackUrl: string;
  eventTypes: string[];
  isActive: boolean;
  createdDateTime: string;
  creatorId: string;
  /** Only in the answer to its creation. */
  secret?: string;
}
interface DeadLetter {
  messageId: string;
  eventType: string;
  enqueuedDateTime: string;
  attempts: number;
  lastError: string;
}

const columns: Column<Webhook>[] = [
  { title: 'ID', of: ({ id }) => id },
  { title: 'ADDRESS', of: ({ callbackUrl }) => callbackUrl },
  { title: 'ACTIVE', of: ({ isActive }) => isActive },
  { title: 'EVENTS', of: ({ eventTypes }) => eventTypes.join(', ') },
];
const letterColumns: Column<DeadLetter>[] = [
  { title: 'MESSAGE', of: ({ messageId }) => messageId },
  { title: 'EVENT', of: ({ eventType }) => eventType },
  { title: 'SINCE', of: ({ enqueuedDateTime }) => timeText(enqueuedDateTime) },
  { title: 'ATTEMPTS', of: ({ attempts }) => attempts },
  { title: 'LAST ERROR', of: ({ lastError }) => lastError },
];

interface WebhookOptions extends ResourceOptions {
  itwin: string;
}
interface CreateOptions extends WebhookOptions {
  event: string[];
  secret?: string;
  inactive?: boolean;
}

/** `offshoot webhooks`: the webhooks of an iTwin. */
export function webhooksCommand(): Command {
  const one = (command: Command) => onITwin(command).argument('<webhook>', 'id or address');
  return withCommands(
    new Command('webhooks').description(
      'List, create, switch and delete the webhooks of an iTwin, and see what they missed.',
    ),
    onITwin(listCommand('List the webhooks of an iTwin.')).action(list),
    onITwin(resourceCommand('create', 'Create an active webhook. Its secret is printed once.'))
      .argument('<address>', 'address to which messages are posted; https', address)
      .requiredOption('--event <type>', 'event such as iModels.iModelCreated.v1; may be given several times', texts)
      .option('--secret <text>', 'key of the signature, 16 characters or more; made by the server by default')
      .option('--inactive', 'create it switched off')
      .action(create),
    one(resourceCommand('enable', 'Switch a webhook on.')).action(switchTo(true)),
    one(resourceCommand('disable', 'Switch a webhook off.')).action(switchTo(false)),
    one(resourceCommand('missed', 'List the messages whose attempts are exhausted.', 'print one JSON array')).action(
      missed,
    ),
    withConfirmation(one(resourceCommand('delete', 'Delete a webhook and its pending messages.'))).action(remove),
  );
}

async function webhooksOf(connection: Connection, iTwinId: string): Promise<Webhook[]> {
  return connection.all<Webhook>(`/itwins/${iTwinId}/webhooks`, 'webhooks');
}

/** @returns the address of the webhook in the API, and its id */
async function webhookAt(
  connection: Connection,
  text: string,
  options: WebhookOptions,
): Promise<{ at: string; id: string }> {
  const iTwinId = await iTwinIdOf(connection, options.itwin);
  const { id } = namedIn('webhook', await webhooksOf(connection, iTwinId), ({ callbackUrl }) => callbackUrl, text);
  return { at: `/itwins/${iTwinId}/webhooks/${id}`, id };
}

async function list(options: WebhookOptions): Promise<void> {
  const connection = await Connection.open(options);
  printList(await webhooksOf(connection, await iTwinIdOf(connection, options.itwin)), columns, options);
}

async function create(callbackUrl: string, options: CreateOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { body } = await connection.request('POST', `/itwins/${await iTwinIdOf(connection, options.itwin)}/webhooks`, {
    callbackUrl,
    eventTypes: options.event,
    isActive: options.inactive !== true,
    ...(options.secret !== undefined && { secret: options.secret }),
  });
  printObject(
    (body as { webhook: Webhook }).webhook,
    [...columns, { title: 'SECRET', of: ({ secret }) => secret }],
    options,
  );
}

function switchTo(isActive: boolean): (webhook: string, options: WebhookOptions) => Promise<void> {
  return async (webhook, options) => {
    const connection = await Connection.open(options);
    const { at } = await webhookAt(connection, webhook, options);
    const { body } = await connection.request('PATCH', at, { isActive });
    printObject((body as { webhook: Webhook }).webhook, columns, options);
  };
}

async function missed(webhook: string, options: WebhookOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { at } = await webhookAt(connection, webhook, options);
  printList(await connection.all<DeadLetter>(`${at}/deadletters?$top=1000`, 'deadLetters'), letterColumns, options);
}

async function remove(webhook: string, options: WebhookOptions & { yes?: boolean }): Promise<void> {
  const connection = await Connection.open(options);
  const { at, id } = await webhookAt(connection, webhook, options);
  await confirm(`Delete webhook ${id}?`, options);
  await connection.request('DELETE', at);
  printDone({ id, deleted: true }, `deleted ${id}`, options);
}
