import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { IncomingMessage, Server } from 'node:http';
import { routes } from '../../apps/server/src/api/routes.ts';
import type { Route } from '../../apps/server/src/api/route.ts';

/** Which routes a server was asked for, under the name of who asked. */
export class Coverage {
  /** Names of callers by operation id. */
  readonly seen = new Map<string, Set<string>>();
  #caller = '';

  /** Watches every request of a server. */
  watch(server: Server): void {
    server.on('request', ({ method, url }: IncomingMessage) => {
      const route = routeOf(method ?? '', url ?? '');
      if (route === undefined || this.#caller === '' || method === 'OPTIONS') return;
      const callers = this.seen.get(route.operationId) ?? new Set();
      this.seen.set(route.operationId, callers.add(this.#caller));
    });
  }

  /** Runs one call; the requests that come meanwhile are its own. */
  async as<T>(caller: string, call: () => Promise<T>): Promise<T> {
    this.#caller = caller;
    try {
      return await call();
    } finally {
      this.#caller = '';
    }
  }
}

const patterns = routes
  .map((route) => ({ route, pattern: new RegExp(`^${route.path.replace(/:\w+/g, '[^/]+')}/?$`), fixed: route.path.split('/').filter((part) => !part.startsWith(':')).length }))
  // Fixed words win over parameters, as in the router.
  .sort((a, b) => b.fixed - a.fixed);

function routeOf(method: string, url: string): Route | undefined {
  const pathname = url.split('?')[0] ?? '';
  return patterns.find(({ route, pattern }) => route.method === method && pattern.test(pathname))?.route;
}

/** Public methods of a client package's operations, as `iModels.getSingle`, read from its own type declarations. */
export function methodsOf(packageName: string, getters: Record<string, string>): string[] {
  const root = path.dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`));
  const folder = path.join(root, 'lib/cjs/operations');
  const methods: string[] = [];
  for (const group of readdirSync(folder, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
    for (const file of readdirSync(path.join(folder, group.name)).filter((name) => name.endsWith('Operations.d.ts'))) {
      const getter = getters[file.replace('.d.ts', '')];
      if (getter === undefined) throw new Error(`${packageName} has operations that this suite does not know: ${file}`);
      for (const [, method] of readFileSync(path.join(folder, group.name, file), 'utf8').matchAll(/^ {4}(?!constructor)([a-zA-Z]+)\(/gm)) methods.push(`${getter}.${method}`);
    }
  }
  return methods.sort();
}

/** Public methods of one class, read from its type declarations. */
export function methodsOfClass(packageName: string, name: string): string[] {
  const root = path.dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`));
  const declared = readFileSync(path.join(root, `lib/cjs/${name}.d.ts`), 'utf8');
  return [...declared.matchAll(/^ {4}(?!constructor)([a-zA-Z0-9]+)\(/gm)].map(([, method]) => method as string).sort();
}
