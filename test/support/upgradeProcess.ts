/** Upgrades a database in a separate process, which a test kills: `fork` with the configuration as its argument. */
import { openDatabase } from '../../apps/server/src/db/database.ts';

const config = JSON.parse(process.argv[2] as string) as Parameters<typeof openDatabase>[0];
process.send?.('upgrading');
await (await openDatabase(config)).close();
process.disconnect();
