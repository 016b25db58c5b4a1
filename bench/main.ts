/**
 * `npm run bench -- clone [--json]`: runs the benchmarks from a checkout. Starts PostgreSQL for `throughput` unless a
 * database is given.
 */
import { benchCommand } from '../apps/server/src/commands/bench.ts';
import { startPostgres } from '../test/support/postgres.ts';

const given = process.argv.slice(2);
const postgres =
  given[0] === 'throughput' && !given.includes('--database-url') && !given.includes('--help')
    ? await startPostgres({ durable: true })
    : undefined;
try {
  await benchCommand().parseAsync([...given, ...(postgres === undefined ? [] : ['--database-url', postgres.url])], {
    from: 'user',
  });
} finally {
  await postgres?.stop();
}
