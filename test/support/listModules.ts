/** Preloaded into a process under test: writes the packages that it has loaded into the file `OFFSHOOT_TEST_MODULES` at its end. */
import { writeFileSync } from 'node:fs';
import { registerHooks } from 'node:module';

const packages = new Set<string>();
registerHooks({
  load(url, context, next) {
    const name = /.*\/node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(url)?.[1];
    if (name !== undefined) packages.add(name);
    return next(url, context);
  },
});
process.on('exit', () =>
  writeFileSync(process.env['OFFSHOOT_TEST_MODULES'] as string, JSON.stringify([...packages].sort())),
);
