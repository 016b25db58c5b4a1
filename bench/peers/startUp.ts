import { spawn } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startChild } from '../../apps/server/src/bench/common.ts';
import { alone, alternate, median, residentMiB, timed, withFolder, type Budget, type Figure } from '../common.ts';
import { Api, makeInstallation } from '../installation.ts';

const program = fileURLToPath(new URL('../../apps/server/bin/offshoot.cjs', import.meta.url));
/** Time without requests before the memory is read. */
const restMs = 1500;

/** Start of a server with default settings to its first answer, and its memory at rest. */
export async function measureStart(budget: Budget, rounds: number): Promise<{ start: Figure; memory: Figure }> {
  return withFolder(async (dataDir) => {
    const { token } = await makeInstallation(dataDir, undefined, async () => undefined);
    writeFileSync(path.join(dataDir, 'bench.json'), JSON.stringify({ dataDir, logLevel: 'error' }));
    const [starts, memory]: [number[], number[]] = [[], []];
    await alternate(budget, rounds, budget.secondsLeft * 0.5, async () => {
      const began = performance.now();
      const server = await startChild(dataDir, undefined);
      try {
        await new Api(server.origin, token).json('GET', '/itwins');
        starts.push(performance.now() - began);
        await pause(restMs);
        memory.push(residentMiB(server.pid) ?? NaN);
      } finally {
        await server.stop();
      }
    });
    return {
      start: alone('start of the server to its first answer', 'ms', median(starts)),
      memory: alone('memory at rest (resident)', 'MiB', median(memory)),
    };
  });
}

/** Time, CPU time and memory of short commands. */
export async function measureCommands(
  budget: Budget,
  rounds: number,
  origin: string,
  token: string,
): Promise<Figure[]> {
  const figures: Figure[] = [];
  for (const args of [['--version'], ['imodels', '--url', origin, '--token', token]]) {
    const [wall, cpu, memory]: [number[], number[], number[]] = [[], [], []];
    await alternate(budget, rounds, budget.secondsLeft * 0.9, async () => {
      const used = { cpuMs: 0, memoryMiB: 0 };
      wall.push(await timed(async () => Object.assign(used, await resourcesOf(args))));
      cpu.push(used.cpuMs);
      memory.push(used.memoryMiB);
    });
    const name = `offshoot ${args[0] ?? ''}`;
    figures.push(
      alone(name, 'ms', median(wall)),
      alone(`${name}, CPU time`, 'ms', median(cpu)),
      alone(`${name}, most memory`, 'MiB', median(memory)),
    );
  }
  return figures;
}

/** Reports what the process has used when it exits. */
const reporter = `data:text/javascript,${encodeURIComponent(
  `import { writeSync } from 'node:fs';
   process.on('exit', () => {
     const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
     writeSync(3, JSON.stringify({ cpuMs: (userCPUTime + systemCPUTime) / 1000, memoryMiB: maxRSS / 1024 }));
   });`,
)}`;

async function resourcesOf(args: readonly string[]): Promise<{ cpuMs: number; memoryMiB: number }> {
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
