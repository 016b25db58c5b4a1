import { setTimeout as pause } from 'node:timers/promises';
import type { Connection } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { progressBar } from './progress.ts';

/** The properties of a create operation that commands use. */
export interface CreateOperation {
  state: string;
  clonedFrom: { iModelId: string; changesetId: string } | null;
  progress?: { changesets: number; totalChangesets: number };
  failureReason?: string | null;
}

/**
 * Polls the create operation until it ends. The interval doubles from 100 ms to at most 2 s.
 * @param words what is created, for the progress bar and for messages
 */
export async function follow(
  connection: Connection,
  address: string,
  until: number,
  show: boolean,
  words: { what: string; doing: string } = { what: 'clone', doing: 'cloning' },
): Promise<CreateOperation> {
  const bar = progressBar(`${words.doing} [{bar}] {value}/{total} changesets`, show);
  try {
    for (let waitMs = 100; ; waitMs = Math.min(waitMs * 2, 2000)) {
      const { body } = await connection.request('GET', address);
      const operation = (body as { createOperation: CreateOperation }).createOperation;
      const { changesets = 0, totalChangesets = 0 } = operation.progress ?? {};
      if (bar?.isActive === true) bar.update(changesets);
      else bar?.start(totalChangesets, changesets);
      if (operation.state !== 'scheduled' && operation.state !== 'waitingForFile') return operation;
      if (performance.now() + waitMs > until)
        throw new ExitError(exitCodes.unreachable, `the ${words.what} is not ready yet; check its state at ${address}`);
      await pause(waitMs);
    }
  } finally {
    bar?.stop();
  }
}
