import { readFileSync } from 'node:fs';
import { EmbeddedIssuer } from '../../apps/server/src/access/embeddedIssuer.ts';
import { clientsOf, type Official } from '../../scripts/clients.ts';
import { Api } from './api.ts';
import { ServerProcess } from './serverProcess.ts';
import { Installation, people } from './server.ts';

/** Clock ticks per second in /proc; fixed by the kernel's interface. */
const ticksPerSecond = 100;

/** A server in a separate process, for attacks that would block the test itself if the server shared its process. */
export class IsolatedServer {
  readonly token: string;
  readonly #installation: Installation;
  readonly #process: ServerProcess;

  private constructor(installation: Installation, process: ServerProcess, token: string) {
    this.#installation = installation;
    this.#process = process;
    this.token = token;
  }

  /** Starts it on SQLite and files, with Olivia as its user. */
  static async start(): Promise<IsolatedServer> {
    const installation = await Installation.create('sqlite');
    const process = new ServerProcess(installation.config());
    await process.start();
    const issuer = await EmbeddedIssuer.open(installation.dataDir);
    return new IsolatedServer(
      installation,
      process,
      await issuer.mint(people.olivia, { applicationId: 'suite', scope: 'itwin-platform', lifeSeconds: 3600 }),
    );
  }

  get origin(): string {
    return this.#process.origin;
  }

  async api(): Promise<Api> {
    return new Api(this.origin, this.token);
  }

  async official(): Promise<Official> {
    return clientsOf(this.origin, this.token);
  }

  async iTwin(): Promise<string> {
    const { body } = await (
      await this.api()
    ).post('/itwins', { displayName: 'attacked', class: 'Endeavor', subClass: 'Project' });
    return (body as { iTwin: { id: string } }).iTwin.id;
  }

  /** Runs an attack and measures the processor time of the server meanwhile, which, unlike elapsed time, does not depend on the load of the machine. */
  async measureCpu<T>(attack: () => Promise<T>): Promise<{ result: T; cpuMs: number }> {
    const before = this.#cpuMs();
    const result = await attack();
    return { result, cpuMs: this.#cpuMs() - before };
  }

  /** User and system time of the process and its threads. */
  #cpuMs(): number {
    const stat = readFileSync(`/proc/${this.#process.pid}/stat`, 'utf8');
    // proc(5): the name, in parentheses, may contain spaces; utime and stime are fields 14 and 15.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return ((Number(fields[11]) + Number(fields[12])) * 1000) / ticksPerSecond;
  }

  async end(): Promise<void> {
    await this.#process.end();
    this.#installation.remove();
  }
}
