import { Connection } from './connection.ts';
import { iTwinIdOf } from './names.ts';
import { bytesText, printDone, printList, type Column } from './output.ts';
import { resourceCommand, type ResourceOptions } from './resource.ts';
import type { Command } from 'commander';

interface Used {
  used: number;
  limit: number | null;
}
interface Usage {
  iTwin: Record<'bytes' | 'iModels' | 'webhooks' | 'repositories', Used>;
  organization: Record<'bytes' | 'iModels', Used> | null;
  limits: Record<string, number | null>;
}
interface Row extends Used {
  of: string;
  what: string;
}

const text = ({ what }: Row, value: number | null): string =>
  value === null ? 'none' : what === 'bytes' ? bytesText(value) : String(value);
const columns: Column<Row>[] = [
  { title: 'OF', of: ({ of }) => of },
  { title: 'WHAT', of: ({ what }) => what },
  { title: 'USED', of: (row) => text(row, row.used) },
  { title: 'LIMIT', of: (row) => text(row, row.limit) },
];

/** `offshoot usage`: usage and limits of an iTwin. */
export function usageCommand(): Command {
  return resourceCommand(
    'usage',
    'Show the storage and other usage of an iTwin, with the limits. For its administrators.',
  )
    .argument('<iTwin>', 'name or id')
    .action(show);
}

async function show(iTwin: string, options: ResourceOptions): Promise<void> {
  const connection = await Connection.open(options);
  const { body } = await connection.request('GET', `/itwins/${await iTwinIdOf(connection, iTwin)}/usage`);
  const { usage } = body as { usage: Usage };
  if (options.json === true) {
    printDone({ ...usage }, '', options);
    return;
  }
  const rows = (of: string, used: Record<string, Used> | null) =>
    Object.entries(used ?? {}).map(([what, each]) => ({ of, what, ...each }));
  printList([...rows('iTwin', usage.iTwin), ...rows('organization', usage.organization)], columns, options);
}
