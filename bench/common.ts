import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { childrenOf } from '../test/support/processes.ts';

/** A figure of Offshoot, beside another way to do the same if there is one. */
export interface Figure {
  what: string;
  unit: Unit;
  offshoot: number | null;
  /** Slowest percent, for figures in milliseconds. */
  p99?: number;
  beside: string | null;
  peer: number | null;
  /** How many times as fast Offshoot is as the other: above 1 it is faster. */
  ratio: number | null;
}

export type Unit = '/s' | 'MB/s' | 'ms' | 's' | 'MiB' | 'KiB';

/** The time that a benchmark may take. */
export class Budget {
  readonly #until: number;
  constructor(seconds: number) {
    this.#until = performance.now() + seconds * 1000;
  }

  get secondsLeft(): number {
    return (this.#until - performance.now()) / 1000;
  }

  /** Whether something that takes this long still fits. Says so on stderr if it does not. */
  allows(what: string, seconds: number): boolean {
    if (this.secondsLeft >= seconds) return true;
    note(`${what}: left out, because the time of the benchmark is used up`);
    return false;
  }
}

/** Says something on stderr; stdout belongs to the result. */
export function note(text: string): void {
  process.stderr.write(`${text}\n`);
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] ?? NaN) + (sorted[middle] ?? NaN)) / 2;
}

/** Three significant digits; null for what is no number. */
export function rounded(value: number): number | null {
  return Number.isFinite(value) ? Number(value.toPrecision(3)) : null;
}

/**
 * Compares rounds of Offshoot with those of another, taken in turn. The ratio is the median of the ratios of each round,
 * so that load on the machine that comes and goes affects both sides alike.
 */
export function compare(
  what: string,
  unit: Unit,
  offshoot: readonly number[],
  beside: string,
  peer: readonly number[] | null,
): Figure {
  const ratios = (peer ?? []).map((value, round) => {
    const ours = offshoot[round] ?? NaN;
    return unit.endsWith('/s') ? ours / value : value / ours;
  });
  return {
    what,
    unit,
    offshoot: rounded(median(offshoot)),
    beside,
    peer: peer === null ? null : rounded(median(peer)),
    ratio: rounded(median(ratios)),
  };
}

/** A figure without anything beside it. */
export function alone(what: string, unit: Unit, value: number | null): Figure {
  return { what, unit, offshoot: value === null ? null : rounded(value), beside: null, peer: null, ratio: null };
}

/** Runs rounds until all are done or the time is nearly used up; at least one. */
export async function alternate(
  budget: Budget,
  rounds: number,
  reserveSeconds: number,
  round: (n: number) => Promise<void>,
): Promise<void> {
  for (let n = 0; n < rounds; n++) {
    const began = performance.now();
    await round(n);
    if (budget.secondsLeft - reserveSeconds < (performance.now() - began) / 1000) return;
  }
}

/** Milliseconds that something takes. */
export async function timed(action: () => unknown): Promise<number> {
  const began = performance.now();
  await action();
  return performance.now() - began;
}

/** Runs something with a temporary folder, and removes it. */
export async function withFolder<T>(use: (folder: string) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-bench-'));
  try {
    return await use(folder);
  } finally {
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
  }
}

/**
 * Runs a program to its end. @returns what it printed to stdout
 * @throws Error if it fails or takes longer than a minute
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: { cwd?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'], timeout: 60_000 });
  let [output, errors] = ['', ''];
  child.stdout.on('data', (text: Buffer) => (output += text.toString()));
  child.stderr.on('data', (text: Buffer) => (errors += text.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${program} ended with ${code ?? 'a signal'}: ${errors}`);
  return output;
}

/** Whether a program is installed. */
export async function isInstalled(program: string, ...args: string[]): Promise<boolean> {
  return runProgram(program, args).then(
    () => true,
    () => false,
  );
}

/** Resident memory of a process and its children, MiB; null where /proc does not exist. */
export function residentMiB(pid: number): number | null {
  try {
    const own = Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) / 1024;
    return childrenOf(pid).reduce((sum, child) => sum + (residentMiB(child) ?? 0), own);
  } catch {
    return null;
  }
}

/** Runs one comparison. If it fails, says so on stderr and goes on without its figures. */
export async function attempt<T>(what: string, run: () => Promise<T>): Promise<T | undefined> {
  try {
    return await run();
  } catch (error) {
    note(`${what}: not measured, ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    return undefined;
  }
}
