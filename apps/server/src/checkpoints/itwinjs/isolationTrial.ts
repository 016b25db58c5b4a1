/** Run once at a level of isolation, to see whether it works: loads what the iTwin.js process loads first, and writes where that writes. */
import { rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import.meta.resolve('@itwin/core-backend');
const file = path.join(process.argv[2] ?? '', 'isolation-trial');
writeFileSync(file, '');
rmSync(file);
