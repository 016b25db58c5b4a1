/** `npm run bench -- clone [--json]`: the benchmarks of the product, from a checkout. One that needs PostgreSQL and is given none starts one. */
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
