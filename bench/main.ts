/** `npm run bench -- clone [--json]`: the benchmarks of the product, from a checkout. */
import { benchCommand } from '../apps/server/src/commands/bench.ts';

await benchCommand().parseAsync(process.argv.slice(2), { from: 'user' });
