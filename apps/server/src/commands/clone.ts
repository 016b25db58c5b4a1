import { Command } from 'commander';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { follow } from './follow.ts';

interface CloneOptions extends ConnectionOptions {
  itwin: string;
  name?: string;
  description?: string;
  changeset?: string;
  timeout: string;
  json?: boolean;
}

/** `offshoot clone`: clones an iModel and waits for the create operation to finish. */
export function cloneCommand(): Command {
  return withConnection(new Command('clone'))
    .description('Clone an iModel and wait until the clone is usable.')
    .argument('<iModelId>', 'iModel to clone')
    .requiredOption('--itwin <id>', 'iTwin to create the clone in')
    .option('--name <name>', "name; the source's by default")
    .option('--description <text>', "description; the source's by default")
    .option(
      '--changeset <id or index>',
      'last changeset to copy; 0 copies the baseline only, all are copied by default',
    )
    .option('--timeout <seconds>', 'maximum time to wait for the clone', '300')
    .option('--json', 'print one JSON object and no progress')
    .action(clone);
}

async function clone(iModelId: string, options: CloneOptions): Promise<void> {
  const timeoutMs = Number(options.timeout) * 1000;
  if (!(timeoutMs > 0)) throw new ExitError(exitCodes.usage, `'${options.timeout}' is not a number of seconds`);
  const connection = await Connection.open(options);
  const began = performance.now();
  const { headers } = await connection.request('POST', `/imodels/${encodeURIComponent(iModelId)}/clone`, {
    iTwinId: options.itwin,
    ...(options.name !== undefined && { name: options.name }),
    ...(options.description !== undefined && { description: options.description }),
    ...(options.changeset !== undefined && changesetProperty(options.changeset)),
  });
  const acceptedMs = performance.now() - began;
  const location = headers.location ?? '';
  const operation = await follow(
    connection,
    String(headers['create-imodel-operation'] ?? `${location}/operations/create`),
    began + timeoutMs,
    options.json !== true,
  );
  const elapsedMs = performance.now() - began;
  const id = location.slice(location.lastIndexOf('/') + 1);

  if (options.json === true)
    process.stdout.write(
      `${JSON.stringify({ id, location, state: operation.state, clonedFrom: operation.clonedFrom, failureReason: operation.failureReason ?? null, acceptedMs: round(acceptedMs), elapsedMs: round(elapsedMs) })}\n`,
    );
  if (operation.state !== 'successful')
    throw new ExitError(exitCodes.failed, `the clone ${id} failed: ${operation.failureReason ?? operation.state}`);
  if (options.json !== true)
    process.stdout.write(
      `${id}\n  ${operation.progress?.totalChangesets ?? 0} changesets, accepted in ${round(acceptedMs)} ms, usable after ${round(elapsedMs)} ms\n  ${location}\n`,
    );
}

function changesetProperty(text: string): { changesetIndex: number } | { changesetId: string } {
  return /^\d{1,15}$/.test(text) ? { changesetIndex: Number(text) } : { changesetId: text };
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
