/**
 * `npm run bench -- clone [--json]`: runs the benchmarks from a checkout: those of `offshoot bench`, and those that need
 * tools of the checkout. Starts PostgreSQL for `throughput` unless a database is given.
 */
import { benchCommand } from '../apps/server/src/commands/bench.ts';
import { startPostgres } from '../test/support/postgres.ts';
import { consoleCommand } from './console/command.ts';
import { growthCommand } from './growth/command.ts';
import { peersCommand } from './peers/command.ts';
import { testingCommand } from './testing.ts';
import { viewerCommand } from './viewer/command.ts';

const given = process.argv.slice(2);
const postgres =
  given[0] === 'throughput' && !given.includes('--database-url') && !given.includes('--help')
    ? await startPostgres({ durable: true })
    : undefined;
try {
  await benchCommand()
    .addCommand(peersCommand())
    .addCommand(growthCommand())
    .addCommand(testingCommand())
    .addCommand(consoleCommand())
    .addCommand(viewerCommand())
    .parseAsync([...given, ...(postgres === undefined ? [] : ['--database-url', postgres.url])], { from: 'user' });
} finally {
  await postgres?.stop();
}
