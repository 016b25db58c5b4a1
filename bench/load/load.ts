import { fork } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Job, Loaded, PushJob, RequestJob } from './jobs.ts';

/** The process that generates load, so that it takes no time from the process that measures. */
export interface Load {
  requests(job: Omit<RequestJob, 'kind'>): Promise<Loaded>;
  pushes(job: Omit<PushJob, 'kind'>): Promise<Loaded>;
  stop(): Promise<void>;
}

interface Message {
  ready?: true;
  loaded?: Loaded;
  failure?: string;
}

const jobWithinMs = 300_000;

export async function startLoad(): Promise<Load> {
  const child = fork(fileURLToPath(new URL('process.ts', import.meta.url)), {
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const message = (): Promise<Message> =>
    new Promise((resolve, reject) => {
      const settle = (): void => {
        clearTimeout(timer);
        child.off('message', onMessage).off('exit', onExit).off('error', reject);
      };
      const onMessage = (received: Message): void => {
        settle();
        resolve(received);
      };
      const onExit = (code: number | null): void => {
        settle();
        reject(new Error(`the load process ended with ${code ?? 'a signal'}`));
      };
      const timer = setTimeout(() => {
        settle();
        reject(new Error(`the load took longer than ${jobWithinMs} ms`));
      }, jobWithinMs);
      child.on('message', onMessage).on('exit', onExit).on('error', reject);
    });
  const run = async (job: Job): Promise<Loaded> => {
    const answer = message();
    child.send(job);
    const { loaded, failure } = await answer;
    if (loaded === undefined) throw new Error(failure ?? 'the load process sent no figures');
    return loaded;
  };
  const stop = async (): Promise<void> => {
    child.kill('SIGKILL');
    await ended;
  };
  try {
    await message();
  } catch (error) {
    await stop();
    throw error;
  }
  return {
    requests: (job) => run({ kind: 'requests', ...job }),
    pushes: (job) => run({ kind: 'pushes', ...job }),
    stop,
  };
}
