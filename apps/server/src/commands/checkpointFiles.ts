/** Checkpoints as commands use them: made on request, and downloaded as files. */
import { existsSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { anywhere } from '../http/outbound.ts';
import type { Connection } from './connection.ts';
import { downloadFile, type RemoteFile } from './download.ts';
import { exitCodes, ExitError } from './exit.ts';
import { progressBar } from './progress.ts';

/** The properties of a checkpoint that commands use. */
export interface Checkpoint {
  changesetIndex: number;
  changesetId: string | null;
  state: string;
  size: number;
  progress: { changesets: number; totalChangesets: number };
  failureReason: string | null;
  _links: { download: { href: string } | null };
}

/** Longest pause between two questions for the state, milliseconds; the first one is 100 ms. */
const longestPauseMs = 2000;

/**
 * Makes the checkpoint of a changeset unless it exists, and waits until it is available.
 * @throws ExitError failed if it cannot be made, unreachable if it takes too long
 */
export async function requestCheckpoint(
  connection: Connection,
  iModelId: string,
  changeset: string,
  { timeoutMs, show }: { timeoutMs: number; show: boolean },
): Promise<Checkpoint> {
  const until = performance.now() + timeoutMs;
  const address = `/imodels/${iModelId}/changesets/${changeset}/checkpoint`;
  const bar = progressBar('making [{bar}] {value}/{total} changesets', show);
  try {
    for (let method = 'PUT', waitMs = 100; ; method = 'GET', waitMs = Math.min(waitMs * 2, longestPauseMs)) {
      const { checkpoint } = (await connection.request(method, address)).body as { checkpoint: Checkpoint };
      const { changesets, totalChangesets } = checkpoint.progress;
      if (bar?.isActive === true) bar.setTotal(totalChangesets);
      else bar?.start(totalChangesets, changesets);
      bar?.update(changesets);
      if (checkpoint.state === 'successful') return checkpoint;
      if (checkpoint.state !== 'scheduled')
        throw new ExitError(
          exitCodes.failed,
          `the checkpoint of changeset ${checkpoint.changesetIndex} was not made: ${checkpoint.failureReason ?? checkpoint.state}`,
        );
      if (performance.now() + waitMs > until)
        throw new ExitError(
          exitCodes.unreachable,
          `the checkpoint of changeset ${checkpoint.changesetIndex} is still being made; run the command again to wait on`,
        );
      await pause(waitMs);
    }
  } finally {
    bar?.stop();
  }
}

/** Downloads the file of a checkpoint. @throws ExitError, as `saveFile` does */
export async function downloadCheckpoint(
  { changesetIndex, size, _links }: Checkpoint,
  target: string,
  options: SaveOptions,
): Promise<void> {
  if (_links.download === null)
    throw new ExitError(exitCodes.refused, 'the server gives no download link: is imodels_read permitted?');
  await saveFile(
    { url: _links.download.href, size, what: `the checkpoint of changeset ${changesetIndex}` },
    target,
    options,
  );
}

interface SaveOptions {
  silenceMs: number;
  overwrite: boolean;
  show: boolean;
}

/** @throws ExitError usage if there is a file */
export function requireAbsent(target: string): void {
  if (existsSync(target)) throw new ExitError(exitCodes.usage, `${target} exists; give --force to overwrite it`);
}

/**
 * Downloads a file beside its target, which appears when it is complete.
 * @throws ExitError usage if the target exists or its folder does not, and what the download throws
 */
export async function saveFile(
  file: RemoteFile,
  target: string,
  { silenceMs, overwrite, show }: SaveOptions,
): Promise<void> {
  if (!overwrite) requireAbsent(target);
  const part = `${target}.part`;
  const mebibyte = 2 ** 20;
  if (!existsSync(path.dirname(target)))
    throw new ExitError(exitCodes.usage, `there is no folder ${path.dirname(target)}`);
  const bar = progressBar('downloading [{bar}] {value}/{total} MiB, {eta} s left', show && file.size > mebibyte);
  bar?.start(Math.ceil(file.size / mebibyte), 0);
  try {
    await downloadFile(file, part, {
      silenceMs,
      outlet: anywhere,
      received: (bytes) => bar?.update(Math.floor(bytes / mebibyte)),
    });
    renameSync(part, target);
  } finally {
    bar?.stop();
    rmSync(part, { force: true });
  }
}
