/**
 * Computes ids of changesets in a thread of its own: unpacking takes about 10 ms for 64 KiB of a file, which the thread that answers
 * requests must not spend. Files come in pieces, those of several files in turn, so a large one does not hold up the others.
 */
import { parentPort } from 'node:worker_threads';
import { checkDdl, ForbiddenDdlError } from '../checkpoints/itwinjs/ddl.ts';
import { ChangesetFileError, ChangesetIdComputer } from './changesetId.ts';

/** A piece of a file; `parentId` comes with the first one, `end` with the last. */
export interface IdRequest {
  file: number;
  parentId?: string;
  bytes?: Uint8Array;
  end?: boolean;
  /** The rest does not come. */
  forget?: boolean;
}

/** Answers each piece; `id` with the last one, one of the others instead when there is none. */
export interface IdReply {
  file: number;
  id?: string;
  fault?: { unknownFormat: boolean; message: string };
  /** What went wrong here: nothing is known of the file. */
  failure?: string;
}

const computers = new Map<number, ChangesetIdComputer>();

parentPort?.on('message', (request: IdRequest) => {
  const { file } = request;
  if (request.forget === true) return void computers.delete(file);
  const reply: IdReply = { file };
  try {
    const computer = computers.get(file) ?? new ChangesetIdComputer(request.parentId ?? '', { onPrefix: checkPrefix });
    computers.set(file, computer);
    if (request.bytes !== undefined)
      computer.update(Buffer.from(request.bytes.buffer, request.bytes.byteOffset, request.bytes.byteLength));
    if (request.end === true) {
      reply.id = computer.digest();
      computers.delete(file);
    }
  } catch (error) {
    computers.delete(file);
    if (error instanceof ForbiddenDdlError) reply.fault = { unknownFormat: false, message: error.message };
    else if (error instanceof ChangesetFileError)
      reply.fault = { unknownFormat: error.unknownFormat, message: error.message };
    else reply.failure = (error as Error).message;
  }
  parentPort?.postMessage(reply);
});

/**
 * Checks the statements that a changeset carries, as before it is applied: whoever pushed it learns at once that it would never be.
 * What is not understood here passes. What counts is the check before the changeset is applied, of what iTwin.js itself reads.
 * @throws ForbiddenDdlError
 */
function checkPrefix(prefix: Buffer): void {
  let described: unknown;
  try {
    described = JSON.parse(prefix.toString('utf8'));
  } catch {
    return;
  }
  const ddl = typeof described === 'object' && described !== null && 'DDL' in described ? described.DDL : undefined;
  if (typeof ddl === 'string') checkDdl(ddl);
}
