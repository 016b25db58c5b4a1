import { lstatSync, mkdirSync } from 'node:fs';
import { enableCompileCache } from 'node:module';
import { homedir } from 'node:os';
import path from 'node:path';

/**
 * Lets V8 keep compiled modules in the cache folder of the user, which saves a third of the time to start. The folder must belong to
 * this user alone: whoever can write to it could run code as this user. Without such a folder, and while coverage is measured, there
 * is no cache.
 */
export function compileCache(): void {
  if (process.env['NODE_V8_COVERAGE'] !== undefined) return;
  try {
    const folder = path.join(process.env['XDG_CACHE_HOME'] ?? path.join(homedir(), '.cache'), 'offshoot');
    mkdirSync(folder, { recursive: true, mode: 0o700 });
    const { uid, mode } = lstatSync(folder);
    const isOwn = uid === process.getuid?.() && (mode & 0o022) === 0;
    if (isOwn) enableCompileCache(path.join(folder, 'compiled'));
  } catch {
    // A user without a home, such as one of a container, or a read-only file system: the modules are compiled at each start.
  }
}
