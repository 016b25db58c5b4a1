/**
 * The process that draws iModels. The geometry library of iTwin.js is native code that may crash on a model, so it runs
 * neither in the server nor in the process that makes checkpoints. Handles one request over IPC.
 */
import { inspect } from 'node:util';
import type { WorkerMessage } from '../../checkpoints/itwinjs/worker.ts';
import { startITwinJs } from '../../checkpoints/itwinjs/itwinjs.ts';
import type { DrawingRequest, DrawingResult } from '../drawing.ts';
import { makeGraphics } from './make.ts';

process.on('message', (request: DrawingRequest | 'end') => {
  if (request === 'end') process.exit(0);
  started
    .then(() => makeGraphics(request, (elements) => send({ applied: elements })))
    .then((result) => send({ result }), crash);
});
process.on('disconnect', () => process.exit(0));
const started = startITwinJs({ cacheDir: process.argv[2] ?? '.' });
started.catch(crash);

function send(message: WorkerMessage<DrawingResult>): void {
  process.send?.(message);
}

function crash(error: unknown): never {
  console.error(inspect(error));
  process.exit(1);
}
