/** The process of a view back end. It ends with the server that started it. */
import { inspect } from 'node:util';
import type { BackendMessage, BackendSettings } from '../protocol.ts';
import { runBackend, type BackendLog } from './backend.ts';

const log: BackendLog = { error: ({ err }, message) => console.error(message, err ?? '') };

process.on('message', (settings: BackendSettings) => {
  runBackend(process.argv[2] ?? '.', settings, (open) => send({ open }), log).then(({ port }) => send({ port }), crash);
});
process.on('disconnect', () => process.exit(0));

function send(message: BackendMessage): void {
  process.send?.(message);
}

function crash(error: unknown): never {
  console.error(inspect(error));
  process.exit(1);
}
