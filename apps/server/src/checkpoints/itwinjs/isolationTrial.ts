/**
 * Runs once at an isolation level to check that it works. Resolves the first package that the iTwin.js process loads,
 * and writes to the same folder.
 */
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import.meta.resolve('@itwin/core-backend');
const file = path.join(process.argv[2] ?? '', 'isolation-trial');
writeFileSync(file, '');
rmSync(file);
