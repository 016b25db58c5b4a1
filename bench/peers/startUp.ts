import { spawn } from 'node:child_process';
import { existsSync, readdirSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { launcher, startChild } from '../../apps/server/src/bench/common.ts';
import { alone, alternate, median, note, residentMiB, timed, withFolder, type Budget, type Figure } from '../common.ts';
import { Api, makeInstallation } from '../installation.ts';

/** Time without requests before the memory is read. */
const restMs = 1500;

/** What runs: the sources of the checkout, as `npm start` does, or the compiled code, which the package installs. */
interface Program {
  file: string;
  /** Follows the name of a figure. */
  suffix: string;
}

const fromSources: Program = { file: launcher, suffix: '' };

/** The compiled code, if `npm run build` was run after the last change of a source file. */
function compiledProgram(): Program | undefined {
  const file = fileURLToPath(new URL('../../apps/server/dist/cli.js', import.meta.url));
  const sources = fileURLToPath(new URL('../../apps/server/src', import.meta.url));
  const changed = (name: string): number => statSync(path.join(sources, name)).mtimeMs;
  const isCurrent =
    existsSync(file) &&
    readdirSync(sources, { recursive: true, encoding: 'utf8' }).every(
      (name) => changed(name) <= statSync(file).mtimeMs,
    );
  if (isCurrent) return { file, suffix: ', compiled' };
  note('the compiled program: left out, because `npm run build` was not run after the last change');
  return undefined;
}

export interface StartFigures {
  start: Figure;
  memory: Figure;
  others: Figure[];
}

/**
 * Start of a server with default settings and one empty iTwin to its first answer, its memory at rest, and what short commands take
 * against it. With `quick` only the first two.
 */
export async function measureStart(budget: Budget, rounds: number, quick: boolean): Promise<StartFigures> {
  const fromSource = await measureProgram(fromSources, budget, rounds, quick);
  const compiled = quick ? undefined : compiledProgram();
  if (compiled === undefined) return fromSource;
  const { start, memory, others } = await measureProgram(compiled, budget, rounds, quick);
  return { ...fromSource, others: [...fromSource.others, start, memory, ...others] };
}

async function measureProgram(
  { file, suffix }: Program,
  budget: Budget,
  rounds: number,
  quick: boolean,
): Promise<StartFigures> {
  return withFolder(async (dataDir) => {
    const { token } = await makeInstallation(dataDir, undefined, async () => undefined);
    writeFileSync(path.join(dataDir, 'bench.json'), JSON.stringify({ dataDir, logLevel: 'error' }));
    const [starts, memory]: [number[], number[]] = [[], []];
    const commands = ['--version', 'imodels'].map((name): CommandTimes => ({ name, wall: [], cpu: [], memory: [] }));
    await alternate(budget, rounds, budget.secondsLeft * 0.5, async () => {
      const began = performance.now();
      const server = await startChild(dataDir, undefined, file);
      try {
        await new Api(server.origin, token).json('GET', '/itwins');
        starts.push(performance.now() - began);
        await pause(restMs);
        memory.push(residentMiB(server.pid) ?? NaN);
        if (quick) return;
        for (const command of commands) await measureCommand(file, command, server.origin, token);
      } finally {
        await server.stop();
      }
    });
    return {
      start: alone(`start of the server to its first answer${suffix}`, 'ms', median(starts)),
      memory: alone(`memory at rest (resident)${suffix}`, 'MiB', median(memory)),
      others: quick ? [] : commands.flatMap((command) => commandFigures(command, suffix)),
    };
  });
}

interface CommandTimes {
  name: string;
  wall: number[];
  cpu: number[];
  memory: number[];
}

/** Time, CPU time and memory of one short command. */
async function measureCommand(program: string, command: CommandTimes, origin: string, token: string): Promise<void> {
  const args = command.name.startsWith('--') ? [command.name] : [command.name, '--url', origin, '--token', token];
  const used = { cpuMs: 0, memoryMiB: 0 };
  command.wall.push(await timed(async () => Object.assign(used, await resourcesOf(program, args))));
  command.cpu.push(used.cpuMs);
  command.memory.push(used.memoryMiB);
}

function commandFigures({ name, wall, cpu, memory }: CommandTimes, suffix: string): Figure[] {
  const what = `offshoot ${name}${suffix}`;
  return [
    alone(what, 'ms', median(wall)),
    alone(`${what}: CPU time`, 'ms', median(cpu)),
    alone(`${what}: most memory`, 'MiB', median(memory)),
  ];
}

/** Reports what the process has used when it exits. */
const reporter = `data:text/javascript,${encodeURIComponent(
  `import { writeSync } from 'node:fs';
   process.on('exit', () => {
     const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
     writeSync(3, JSON.stringify({ cpuMs: (userCPUTime + systemCPUTime) / 1000, memoryMiB: maxRSS / 1024 }));
   });`,
)}`;

async function resourcesOf(program: string, args: readonly string[]): Promise<{ cpuMs: number; memoryMiB: number }> {
  const child = spawn(process.execPath, ['--import', reporter, program, ...args], {
    stdio: ['ignore', 'ignore', 'inherit', 'pipe'],
    timeout: 60_000,
  });
  let report = '';
  child.stdio[3]?.on('data', (text: Buffer) => (report += text.toString()));
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  if (code !== 0) throw new Error(`offshoot ${args[0] ?? ''} ended with ${code ?? 'a signal'}`);
  return JSON.parse(report) as { cpuMs: number; memoryMiB: number };
}
