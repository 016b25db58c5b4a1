import { execFile, fork, type ChildProcess } from 'node:child_process';
import type { Readable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import type { Installation } from './installation.ts';

/** Environment variable with the folder that the server process removes when it ends. */
export const folderVariable = 'OFFSHOOT_TESTING_FOLDER';

/** Oldest version of Node that runs the server. */
const oldestNode = 24;
/** Limit of an orderly shutdown, and of a command, milliseconds. A process that exceeds it is killed. */
const stopMs = 10_000;
const commandMs = 60_000;
/** End of the log that errors contain, characters. */
const tailLength = 8000;
/** Longest ready line, characters: it has about 800. */
const longestLine = 65_536;

// The sources run in a checkout, what is compiled from them in an installed package.
const program = fileURLToPath(
  new URL(`./child${import.meta.url.slice(import.meta.url.lastIndexOf('.'))}`, import.meta.url),
);

/** The line that `offshoot start --json` prints when the server is ready. */
export interface ReadyLine {
  origin: string;
  iTwinId: string;
  token: string;
}

/** A server in a process of its own. */
export class ServerProcess {
  readonly ready: ReadyLine;
  readonly #child: ChildProcess;
  readonly #ended: Promise<void>;

  private constructor(child: ChildProcess, ready: ReadyLine, ended: Promise<void>) {
    this.#child = child;
    this.ready = ready;
    this.#ended = ended;
  }

  /**
   * @param options.timeoutMs longest wait for the ready line
   * @throws Error with the end of the log if the server ends, or is not ready in time; then its folder is removed
   */
  static async start(
    installation: Installation,
    { timeoutMs, showLog }: { timeoutMs: number; showLog: boolean },
  ): Promise<ServerProcess> {
    requireNode();
    const child = fork(
      program,
      ['start', '--json', '--config', installation.configFile, '--data', installation.dataDir],
      // The channel to the parent closes when this process ends, however it ends; then the server ends too.
      {
        cwd: installation.folder,
        env: { ...environment(), [folderVariable]: installation.folder },
        execArgv: [],
        stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
      },
    );
    const { stdout, stderr } = child as ChildProcess & { stdout: Readable; stderr: Readable };
    const tail = tailOf(stderr, showLog);
    const ended = new Promise<void>((resolve) => {
      child.once('exit', () => resolve());
      child.once('error', () => resolve());
    });
    try {
      const ready = await readyLine(child, stdout, timeoutMs, tail);
      // A test process that forgets `stop` ends nevertheless.
      for (const handle of [child, child.channel, stdout, stderr]) unref(handle);
      return new ServerProcess(child, ready, ended);
    } catch (error) {
      child.kill('SIGKILL');
      await ended;
      installation.remove();
      throw error;
    }
  }

  /** Ends the process; kills it if it does not end in time. */
  async stop(): Promise<void> {
    const child = this.#child;
    if (child.exitCode !== null || child.signalCode !== null) return;
    // This timer, unlike the child, also keeps the test process alive until the server has ended.
    const late = setTimeout(() => child.kill('SIGKILL'), stopMs);
    child.ref();
    if (child.connected) child.disconnect();
    await this.#ended;
    clearTimeout(late);
  }
}

/**
 * Runs a command of the command line to its end.
 * @returns what it printed
 * @throws Error with its error output
 */
export function runCommand(args: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [program, ...args],
      { env: environment(), timeout: commandMs, killSignal: 'SIGKILL' },
      (error, stdout, stderr) =>
        error === null
          ? resolve(stdout)
          : reject(new Error(`offshoot ${args[0] ?? ''} failed: ${stderr.trim() || error.message}`)),
    );
  });
}

function requireNode(): void {
  if (Number(process.versions.node.split('.')[0]) < oldestNode)
    throw new Error(`@offshoot/testing needs Node ${oldestNode} or later; this is Node ${process.versions.node}`);
}

/** The environment of this process without settings for another server and without options for the test runner's Node. */
function environment(): NodeJS.ProcessEnv {
  return Object.fromEntries(
    Object.entries(process.env).filter(([name]) => !name.startsWith('OFFSHOOT_') && name !== 'NODE_OPTIONS'),
  );
}

/** Keeps the end of a stream. @returns a function that gives what has been kept */
function tailOf(stream: Readable, show: boolean): () => string {
  let tail = '';
  stream.setEncoding('utf8').on('data', (text: string) => {
    tail = (tail + text).slice(-tailLength);
    if (show) process.stderr.write(text);
  });
  return () => tail.trim();
}

function readyLine(child: ChildProcess, stdout: Readable, timeoutMs: number, tail: () => string): Promise<ReadyLine> {
  return new Promise((resolve, reject) => {
    const fail = (reason: string): void => {
      clearTimeout(timer);
      const log = tail();
      reject(new Error(`The Offshoot server did not start: ${reason}.${log === '' ? '' : ` Its log:\n${log}`}`));
    };
    const timer = setTimeout(() => fail(`it was not ready after ${timeoutMs} ms`), timeoutMs);
    child.once('error', (error) => fail(error.message));
    // `close` comes after `exit`, when the whole log has been read.
    child.once('close', (code, signal) => fail(`its process ended with ${signal ?? `exit code ${code ?? 'unknown'}`}`));
    let printed = '';
    stdout.setEncoding('utf8').on('data', (text: string) => {
      if (printed.length <= longestLine) printed += text;
      const end = printed.indexOf('\n');
      if (end === -1) return;
      clearTimeout(timer);
      const ready = parseLine(printed.slice(0, end));
      if (ready === undefined) fail(`it printed '${printed.slice(0, 200)}' instead of its ready line`);
      else if (ready.iTwinId === null || ready.token === null)
        fail('it has no embedded issuer of tokens, which the settings must not switch off');
      else resolve(ready as ReadyLine);
    });
  });
}

/** The values of a ready line; undefined if the text is none. They are null without an embedded issuer. */
function parseLine(text: string): Record<keyof ReadyLine, string | null> | undefined {
  try {
    const line = JSON.parse(text) as Record<keyof ReadyLine, string | null> | null;
    return typeof line?.origin === 'string' ? line : undefined;
  } catch {
    return undefined;
  }
}

/** Lets the test process end although this handle is open. Pipes are sockets, which their type does not say. */
function unref(handle: object | null | undefined): void {
  (handle as { unref?: () => void } | null | undefined)?.unref?.();
}
