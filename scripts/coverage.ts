/** Prints the coverage that c8 has just measured, one line for each directory: the end of `npm run coverage`. */
import { readFileSync } from 'node:fs';
import path from 'node:path';

interface Counts {
  lines: { total: number; covered: number };
  branches: { total: number; covered: number };
}

const summary = JSON.parse(readFileSync('coverage/coverage-summary.json', 'utf8')) as Record<string, Counts>;
const directories = new Map<string, Counts>();
for (const [file, { lines, branches }] of Object.entries(summary)) {
  const name = file === 'total' ? file : path.relative('.', path.dirname(file));
  const sum = directories.get(name) ?? { lines: { total: 0, covered: 0 }, branches: { total: 0, covered: 0 } };
  for (const [into, from] of [[sum.lines, lines] as const, [sum.branches, branches] as const]) {
    into.total += from.total;
    into.covered += from.covered;
  }
  directories.set(name, sum);
}
const share = ({ total, covered }: { total: number; covered: number }): string =>
  `${(total === 0 ? 100 : (100 * covered) / total).toFixed(1)} %`.padStart(9);
console.log(`${'directory'.padEnd(50)}${'lines'.padStart(9)}${'branches'.padStart(9)}`);
for (const [name, { lines, branches }] of [...directories].sort(([a], [b]) => a.localeCompare(b)))
  console.log(`${name.padEnd(50)}${share(lines)}${share(branches)}`);
