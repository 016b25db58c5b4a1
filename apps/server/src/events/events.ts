import { sql } from 'kysely';
import { compiledQuery } from '../db/compiledQuery.ts';
import type { Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import type { WebhookTable } from '../db/schemaOfITwins.ts';
import { enqueue } from '../operations/jobs.ts';

/** Wire names of the events. The last two are not documented publicly; they follow the pattern of the first two. */
export const eventTypes = [
  'iModels.iModelCreated.v1',
  'iModels.iModelDeleted.v1',
  'iModels.changesetPushed.v1',
  'iModels.namedVersionCreated.v1',
] as const;
type EventType = (typeof eventTypes)[number];

/** Job that delivers one event to one webhook. The job id is also the message id. */
export const deliverJob = 'deliver';

/** Payload of the job, from which the message is built. */
export interface EventMessage {
  eventType: EventType;
  iTwinId: string;
  enqueuedAt: number;
  content: Record<string, unknown>;
}

/** The active webhooks of an iTwin, of which those that subscribe to an event receive it. */
export type Receivers = Pick<WebhookTable, 'id' | 'event_types' | 'creator_id'>[];

/**
 * Reads the receivers of an iTwin's events. A transaction that reads them together with its first statement, and passes them on
 * when it raises its event, needs no round trip of its own for them.
 */
export function receiversOf(tx: Tx, iTwinId: string): Promise<Receivers> {
  const receivers = readReceivers.all(tx, { iTwinId });
  // The transaction may fail before it raises its event.
  receivers.catch(() => undefined);
  return receivers;
}

const readReceivers = compiledQuery((db, { iTwinId }: { iTwinId: string }) =>
  db
    .selectFrom('webhook')
    .select(['id', 'event_types', 'creator_id'])
    .where('itwin_id', '=', iTwinId)
    .where('is_active', '=', sql.lit(1)),
);

/**
 * Raises an event in the transaction of the change that it reports: schedules a delivery to each active webhook of the iTwin
 * that subscribes to it. The event is therefore sent if and only if the change was committed.
 */
async function raise(
  tx: Tx,
  iTwinId: string,
  eventType: EventType,
  content: Record<string, unknown>,
  receivers: Receivers | Promise<Receivers> = receiversOf(tx, iTwinId),
): Promise<void> {
  for (const { id, event_types, creator_id } of await receivers) {
    if (!(JSON.parse(event_types) as string[]).includes(eventType)) continue;
    const payload: EventMessage = { eventType, iTwinId, enqueuedAt: Date.now(), content };
    await enqueue(tx, { kind: deliverJob, subjectId: id, tenant: iTwinId, userId: creator_id, payload });
  }
}

type Subject = Pick<IModelTable, 'id' | 'itwin_id'>;

/** Raises the creation event: an iModel is initialized, whichever way it was created. */
export async function raiseCreated(
  tx: Tx,
  imodel: Subject & Pick<IModelTable, 'creator_id'>,
  receivers?: Receivers | Promise<Receivers>,
): Promise<void> {
  const content = { imodelId: imodel.id, userId: imodel.creator_id };
  await raise(tx, imodel.itwin_id, 'iModels.iModelCreated.v1', content, receivers);
}

export async function raiseDeleted(tx: Tx, imodel: Subject, userId: string): Promise<void> {
  await raise(tx, imodel.itwin_id, 'iModels.iModelDeleted.v1', { imodelId: imodel.id, userId });
}

export async function raisePushed(
  tx: Tx,
  imodel: Subject,
  changeset: { id: string; index: number; briefcaseId: number },
  userId: string,
  receivers?: Receivers | Promise<Receivers>,
): Promise<void> {
  const content = {
    imodelId: imodel.id,
    changesetId: changeset.id,
    changesetIndex: changeset.index,
    briefcaseId: changeset.briefcaseId,
    userId,
  };
  await raise(tx, imodel.itwin_id, 'iModels.changesetPushed.v1', content, receivers);
}

export async function raiseVersion(
  tx: Tx,
  imodel: Subject,
  version: { id: string; name: string; changesetId: string; changesetIndex: number },
  userId: string,
): Promise<void> {
  const { id, name, changesetId, changesetIndex } = version;
  await raise(tx, imodel.itwin_id, 'iModels.namedVersionCreated.v1', {
    imodelId: imodel.id,
    versionId: id,
    versionName: name,
    changesetId,
    changesetIndex,
    userId,
  });
}
