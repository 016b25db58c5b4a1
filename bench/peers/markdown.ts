import type { PeersReport } from './run.ts';

/** The figures as a table, with date and machine. */
export function toMarkdown({
  machine,
  ratios,
  clonesPerSecond,
  coldStartMs,
  idleRssMiB,
  figures,
}: PeersReport): string {
  const day = new Date().toISOString().slice(0, 10);
  const head = `${day}: ${machine.cpu}, ${machine.cores} cores, ${machine.memoryGiB} GiB, Node ${machine.node.slice(1)}, ${machine.os}; ${machine.settings}.`;
  const text = (value: number | null): string => (value === null ? '-' : value.toLocaleString('en-US'));
  const row = (cells: string[]): string => `| ${cells.join(' | ')} |`;
  const table =
    figures === undefined
      ? [
          row(['figure', 'value']),
          row(['---', '---:']),
          ...Object.entries(ratios).map(([name, value]) => row([name, `${text(value)} ×`])),
          ...Object.entries(clonesPerSecond).map(([count, value]) =>
            row([`clones/s, ${count} at a time`, text(value)]),
          ),
          row(['coldStartMs', text(coldStartMs)]),
          row(['idleRssMiB', text(idleRssMiB)]),
        ]
      : [
          row(['what', 'unit', 'Offshoot', 'beside it', 'its figure', 'times as fast']),
          row(['---', '---', '---:', '---', '---:', '---:']),
          ...figures.map(({ what, unit, offshoot, p99, beside, peer, ratio }) =>
            row([
              what,
              unit,
              p99 === undefined ? text(offshoot) : `${text(offshoot)} (p99 ${text(p99)})`,
              beside ?? '',
              beside === null ? '' : text(peer),
              ratio === null ? '' : `${text(ratio)} ×`,
            ]),
          ),
        ];
  return `${head}\n\n${table.join('\n')}`;
}
