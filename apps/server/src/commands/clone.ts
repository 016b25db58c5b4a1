import { Command } from 'commander';
import { Connection, withConnection, type ConnectionOptions } from './connection.ts';
import { exitCodes, ExitError } from './exit.ts';
import { timeoutOption } from './arguments.ts';
import { follow } from './follow.ts';
import {
  iModelIdOf,
  iTwinIdOf,
  requireOneChangeset,
  selectedChangeset,
  withChangeset,
  type ChangesetOptions,
} from './names.ts';
import { countText } from '../terminal.ts';

interface CloneOptions extends ConnectionOptions, ChangesetOptions {
  itwin?: string;
  fromItwin?: string;
  name?: string;
  description?: string;
  timeout: number;
  json?: boolean;
}

/** `offshoot clone`: clones an iModel and waits for the create operation to finish. */
export function cloneCommand(): Command {
  return withChangeset(withConnection(new Command('clone')), 'to copy up to; all are copied by default')
    .description('Clone an iModel and wait until the clone is usable.')
    .argument('<iModel>', 'iModel to clone: name or id')
    .option('--itwin <name or id>', 'iTwin to create the clone in; by default that of the source')
    .option('--from-itwin <name or id>', 'iTwin of the source, if several iModels have its name')
    .option('--name <name>', "name; the source's by default")
    .option('--description <text>', "description; the source's by default")
    .addOption(timeoutOption('maximum time to wait for the clone', 300))
    .option('--json', 'print one JSON object and no progress')
    .action(clone);
}

async function clone(iModel: string, options: CloneOptions): Promise<void> {
  requireOneChangeset(options);
  const connection = await Connection.open(options);
  const iModelId = await iModelIdOf(connection, iModel, options.fromItwin);
  const iTwinId = await targetOf(connection, iModelId, options);
  const changeset = await selectedChangeset(connection, iModelId, options);
  const began = performance.now();
  const { headers } = await connection.request('POST', `/imodels/${iModelId}/clone`, {
    iTwinId,
    ...(options.name !== undefined && { name: options.name }),
    ...(options.description !== undefined && { description: options.description }),
    ...(changeset !== undefined && changesetProperty(changeset)),
  });
  const acceptedMs = performance.now() - began;
  const location = headers.location ?? '';
  const operation = await follow(
    connection,
    String(headers['create-imodel-operation'] ?? `${location}/operations/create`),
    began + options.timeout,
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
      `${id}\n  ${countText(operation.progress?.totalChangesets ?? 0, 'changeset')}, accepted in ${round(acceptedMs)} ms, usable after ${round(elapsedMs)} ms\n  ${location}\n`,
    );
}

/** @throws ExitError usage if the clone would have the iTwin and the name of its source */
async function targetOf(connection: Connection, sourceId: string, { itwin, name }: CloneOptions): Promise<string> {
  if (itwin !== undefined) return iTwinIdOf(connection, itwin);
  if (name === undefined)
    throw new ExitError(
      exitCodes.usage,
      'a clone in the iTwin of its source needs another name: add --name, or --itwin for another iTwin',
    );
  const { body } = await connection.request('GET', `/imodels/${sourceId}`);
  return (body as { iModel: { iTwinId: string } }).iModel.iTwinId;
}

function changesetProperty(text: string): { changesetIndex: number } | { changesetId: string } {
  return /^\d{1,15}$/.test(text) ? { changesetIndex: Number(text) } : { changesetId: text };
}

function round(ms: number): number {
  return Math.round(ms * 10) / 10;
}
