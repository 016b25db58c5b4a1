/**
 * Computes ids of changesets in a thread of its own: unpacking takes about 10 ms for 64 KiB of a file, which would block the
 * thread that answers requests. Files arrive in pieces, and pieces of several files alternate, so a large file does not delay
 * the others.
 */
import { hash } from 'node:crypto';
import { parentPort } from 'node:worker_threads';
import { checkDdl, ForbiddenDdlError } from '../checkpoints/itwinjs/ddl.ts';
import { ChangesetFileError, ChangesetIdComputer } from './changesetId.ts';

/** A piece of a file. The first one has `parentId`, the last one has `end`. */
export interface IdRequest {
  file: number;
  parentId?: string;
  bytes?: Uint8Array;
  end?: boolean;
  /** Whether the answer has the hash of `bytes`. */
  withHash?: boolean;
  /** No more pieces follow, although the file is incomplete. */
  forget?: boolean;
}

/** The answer to each piece. The last one has `id`, or `fault` or `failure` if no id can be computed. */
export interface IdReply {
  file: number;
  id?: string;
  /** SHA-256 of the bytes, hex, if it was asked for. */
  sha256?: string;
  fault?: { unknownFormat: boolean; message: string };
  /** An error of the thread itself, which says nothing about the file. */
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
    if (request.bytes !== undefined) {
      const { buffer, byteOffset, byteLength } = request.bytes;
      const bytes = Buffer.from(buffer, byteOffset, byteLength);
      if (request.withHash === true) reply.sha256 = hash('sha256', bytes, 'hex');
      computer.update(bytes);
    }
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
 * Checks the statements that a changeset contains in the same way as before it is applied, so that the client learns at once
 * that the changeset would be refused later. Statements that are not understood here pass. The check before the changeset is
 * applied, on what iTwin.js itself reads, is the authoritative one.
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
