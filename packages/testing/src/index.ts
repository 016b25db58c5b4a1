import { Hub } from './hub.ts';
import { installationOf, type OffshootOptions } from './installation.ts';
import { ServerProcess } from './serverProcess.ts';

export type { CloneOptions, Hub } from './hub.ts';
export type { OffshootOptions } from './installation.ts';

/** Limit of a start without `startTimeoutMs`, milliseconds: a busy build machine needs tens of seconds. */
const startMs = 60_000;

/**
 * Starts a server for tests in a process of its own, with a new data folder on a free port of this machine. It has one iTwin
 * and no rate limits. `stop` ends the process and removes the folder; so does the end of the test process, however it ends.
 *
 * ```ts
 * const hub = await startOffshoot();
 * const fixture = await hub.createIModel('plant.bim');
 * const iModelId = await hub.clone(fixture); // one for each test
 * await hub.stop();
 * ```
 * @throws Error with the end of the server's log if it does not start in time
 */
export async function startOffshoot(options: OffshootOptions = {}): Promise<Hub> {
  const installation = installationOf(options);
  const server = await ServerProcess.start(installation, {
    timeoutMs: options.startTimeoutMs ?? startMs,
    showLog: options.showLog ?? false,
  });
  return new Hub(server, installation);
}
