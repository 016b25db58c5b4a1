'use strict';
const { lstatSync, mkdirSync } = require('node:fs');
const { enableCompileCache } = require('node:module');
const { homedir } = require('node:os');
const { join } = require('node:path');

/**
 * Lets V8 keep compiled modules in the cache folder of the user, which saves a third of the time to start. The folder must belong to
 * this user alone: whoever can write to it could run code as this user. Without such a folder, and while coverage is measured, there
 * is no cache.
 *
 * Plain JavaScript, so that the cache is in use before the first TypeScript module is loaded: Node then takes the modules
 * without their types from the cache as well, and does not load its own compiler, which takes 60 ms and 15 MiB.
 */
function useCompileCache() {
  if (process.env.NODE_V8_COVERAGE !== undefined) return;
  try {
    const folder = join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'offshoot');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = lstatSync(folder);
    const isOwn = uid === process.getuid?.() && (mode & 0o022) === 0;
    if (isOwn) enableCompileCache(join(folder, 'compiled'));
  } catch {
    // A user without a home, such as one of a container, or a read-only file system: the modules are compiled at each start.
  }
}

// Keys, users, models and compiled code are nobody else's, whatever the umask of the shell.
process.umask(0o077);
useCompileCache();
