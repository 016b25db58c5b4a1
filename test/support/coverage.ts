import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import { fileURLToPath } from 'node:url';
import { routes } from '../../apps/server/src/api/routes.ts';
import type { Route } from '../../apps/server/src/api/route.ts';

/** Folder in which each test process writes its record for the table of `docs/compatibility.md`; set by `scripts/test.ts`. */
const folder = process.env['OFFSHOOT_TEST_COVERAGE'];

/** Record of one test process: operations that were answered with 2xx, and which client calls requested which operations. */
export interface CoverageRecord {
  /** Path of the test below `test`, without its extension. */
  file: string;
  answered: string[];
  clients: Record<string, string[]>;
}

const answered = new Set<string>();
const clients = new Map<string, Set<string>>();
let caller = '';
const testFile = path.relative(fileURLToPath(new URL('..', import.meta.url)), process.argv[1] ?? '');
// A server process that a test starts is not a test.
if (folder !== undefined && testFile.endsWith('.test.ts'))
  process.on('exit', () => {
    const file = testFile.slice(0, -'.test.ts'.length).replaceAll(path.sep, '/');
    const seen: CoverageRecord = {
      file,
      answered: [...answered],
      clients: Object.fromEntries([...clients].map(([operation, callers]) => [operation, [...callers]])),
    };
    if (answered.size > 0)
      writeFileSync(path.join(folder, `${file.replaceAll('/', '-')}-${process.pid}.json`), JSON.stringify(seen));
  });

/** Records every request of a test server. */
export function recordCoverage(server: Server): void {
  server.on('request', ({ method, url }: IncomingMessage, response: ServerResponse) => {
    const route = routeOf(method ?? '', url ?? '');
    if (route === undefined) return;
    if (caller !== '') clients.set(route.operationId, (clients.get(route.operationId) ?? new Set()).add(caller));
    response.once('finish', () => response.statusCode < 300 && answered.add(route.operationId));
  });
}

/** Runs one call of a client, and attributes the requests meanwhile to it. */
export async function callAs<T>(name: string, call: () => Promise<T>): Promise<T> {
  caller = name;
  try {
    return await call();
  } finally {
    caller = '';
  }
}

const patterns = routes
  .map((route) => ({
    route,
    pattern: new RegExp(`^${route.path.replace(/:\w+/g, '[^/]+')}/?$`),
    fixed: route.path.split('/').filter((part) => !part.startsWith(':')).length,
  }))
  // Fixed words take precedence over parameters, as in the router.
  .sort((a, b) => b.fixed - a.fixed);

function routeOf(method: string, url: string): Route | undefined {
  const pathname = url.split('?')[0] ?? '';
  return patterns.find(({ route, pattern }) => route.method === method && pattern.test(pathname))?.route;
}

/** Public methods of a client package's operations, such as `iModels.getSingle`, read from its type declarations. */
export function methodsOf(packageName: string, getters: Record<string, string>): string[] {
  const root = path.dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`));
  const declarations = path.join(root, 'lib/cjs/operations');
  const methods: string[] = [];
  for (const group of readdirSync(declarations, { withFileTypes: true }).filter((entry) => entry.isDirectory())) {
    for (const file of readdirSync(path.join(declarations, group.name)).filter((name) =>
      name.endsWith('Operations.d.ts'),
    )) {
      const getter = getters[file.replace('.d.ts', '')];
      if (getter === undefined) throw new Error(`${packageName} has operations that this suite does not know: ${file}`);
      for (const [, method] of readFileSync(path.join(declarations, group.name, file), 'utf8').matchAll(
        /^ {4}(?!constructor)([a-zA-Z]+)\(/gm,
      ))
        methods.push(`${getter}.${method}`);
    }
  }
  return methods.sort();
}

/** Public methods of a class, read from its type declarations. */
export function methodsOfClass(packageName: string, name: string): string[] {
  const root = path.dirname(createRequire(import.meta.url).resolve(`${packageName}/package.json`));
  const declared = readFileSync(path.join(root, `lib/cjs/${name}.d.ts`), 'utf8');
  return [...declared.matchAll(/^ {4}(?!constructor)([a-zA-Z0-9]+)\(/gm)].map(([, method]) => method as string).sort();
}
