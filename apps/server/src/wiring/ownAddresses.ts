import { readFileSync } from 'node:fs';
import path from 'node:path';
import type { Config } from '../config.ts';
import { writeFileDurably } from '../storage/durable.ts';

const fileName = 'addresses.json';
/** Most addresses kept: servers on PostgreSQL may share a data folder, and stopped servers stay listed. */
const most = 64;

/**
 * The origins at which clients on this machine, and those that know the public address, reach a server.
 * @param port port that the server listens on
 */
export function originsOf({ host, publicUrl }: Pick<Config, 'host' | 'publicUrl'>, port: number): string[] {
  const here = ['localhost', '127.0.0.1', '[::1]'];
  const names = {
    localhost: here,
    '0.0.0.0': here,
    '::': here,
    '127.0.0.1': here.slice(0, 2),
    '::1': ['localhost', '[::1]'],
  }[host] ?? [host.includes(':') ? `[${host}]` : host];
  const origins = names.map((name) => new URL(`http://${name}:${port}`).origin);
  return publicUrl === undefined ? origins : [...origins, new URL(publicUrl).origin];
}

/** The origins that the servers of a data folder recorded when they started; empty if none ever started. */
export function ownOrigins(dataDir: string): string[] {
  try {
    return JSON.parse(readFileSync(path.join(dataDir, fileName), 'utf8')) as string[];
  } catch (error) {
    const { code = '' } = error as NodeJS.ErrnoException;
    if (['ENOENT', 'ENOTDIR'].includes(code) || error instanceof SyntaxError) return [];
    throw error;
  }
}

/**
 * Records the origins of a server, so that commands mint tokens only for them.
 * @param alone no other server runs on the data folder, so the recorded origins are obsolete
 */
export function noteOrigins(dataDir: string, origins: readonly string[], alone: boolean): void {
  const others = alone ? [] : ownOrigins(dataDir).filter((origin) => !origins.includes(origin));
  writeFileDurably(path.join(dataDir, fileName), JSON.stringify([...origins, ...others].slice(0, most)));
}
