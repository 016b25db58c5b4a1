/** A worker thread with one connection, for statements that would occupy the main thread for too long. */
import { parentPort, workerData } from 'node:worker_threads';
import { openConnection, type ConnectionUse } from './connection.ts';
import { answer, EndedTransactionError, type Request } from './requests.ts';

type ThreadRequest = { id: number } & Request;

export type ThreadReply =
  | { id: number; rows: unknown[]; changes: number }
  | { id: number; error: { message: string; errcode: number | undefined; transactionEnded: boolean } };

const { file, use } = workerData as { file: string; use: ConnectionUse };
const connection = openConnection(file, use);
const port = parentPort;
if (port === null) throw new Error('this module runs in a worker thread only');

port.on('message', (request: ThreadRequest | 'close') => {
  if (request === 'close') {
    connection.close();
    port.close();
    return;
  }
  let reply: ThreadReply;
  try {
    reply = { id: request.id, ...answer(connection, request) };
  } catch (error) {
    const { message, errcode } = error as Error & { errcode?: number };
    reply = { id: request.id, error: { message, errcode, transactionEnded: error instanceof EndedTransactionError } };
  }
  port.postMessage(reply);
});
