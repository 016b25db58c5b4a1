import { fileURLToPath } from 'node:url';
import type { Route } from '../../apps/server/src/api/route.ts';
import { routes } from '../../apps/server/src/api/routes.ts';

export const tableFile = fileURLToPath(new URL('../../docs/compatibility.md', import.meta.url));

/** Suites that try, over plain HTTP, what no published client calls; by tag or operation. */
const suites: Record<string, string> = {
  Shares: 'shares',
  Webhooks: 'webhooks',
  iTwins: 'itwins',
  Favorites: 'groupsDataMarks',
  Recents: 'groupsDataMarks',
  'Access control': 'permissions',
  Permissions: 'permissions',
};

/** Where an answer differs from the vendor's service, or goes beyond what is documented of it. Nothing else is known to differ. */
const deviations: Record<string, string> = {
  'clone-imodel': 'done when the 202 leaves, so the first poll finds `successful`; checkpoints of the source come along',
  'fork-imodel': 'without iTwin.js on the server: with `preserveHistory` only, and FederationGuids are not checked',
  'create-imodel': 'the empty seed has 1,384,448 bytes (an older schema gave 1,253,376); `geographicCoordinateSystem` is kept with the iModel and not written into the file; creation from a template needs iTwin.js on the server, unless from its baseline',
  'get-create-imodel-operation-details': 'adds `progress`, `failureReason` and times',
  'get-imodel-baseline-file-details': 'the file has the ids of the iModel that it is asked for',
  'complete-imodel-baseline-file-upload': 'with iTwin.js on the server the file is opened before it counts',
  'get-changeset-checkpoint': 'adds `progress` and `failureReason`; containers are the server\'s own: use `@offshoot/itwinjs`',
  'get-named-version-checkpoint': 'as `get-changeset-checkpoint`',
  'get-briefcase-checkpoint': 'as `get-changeset-checkpoint`; the newest usable one',
  'update-imodel-named-version': 'without `state` the state stays (a test of the vendor\'s suite expects `visible`)',
  'acquire-imodel-briefcase': 'at most 5 unreleased ones a user, iModel and minute, as the clients\' suite wants; the documentation says 100',
  'create-imodel-changeset': 'from the own briefcase only',
  'update-imodel-changeset': 'may be repeated: a lost answer is given again',
  'get-imodel-rolepermissions-by-role': 'answers all roles, as the sample of the reference does',
  'create-itwin': 'one data center, that of the server',
  'delete-itwin': 'deletes its iModels too',
  'upload-itwin-image': 'PNG out, 400 × 250 and 800 × 500',
  'create-itwin-group': 'no groups of an outside directory; groups belong to one iTwin',
  'add-itwin-members': 'users are known or not: there are no invitations',
  'create-itwin-webhook': 'webhooks of one iTwin, at an address of this server; names of the events for pushes and versions are not documented publicly',
};

function callersOf(route: Route, seen: ReadonlyMap<string, ReadonlySet<string>>): string {
  const callers = [...(seen.get(route.operationId) ?? [])];
  const byPackage = new Map<string, string[]>();
  for (const caller of callers) {
    const [, who = '', method = ''] = /^(.*?) (`.*`)$/.exec(caller) ?? [];
    byPackage.set(who, [...(byPackage.get(who) ?? []), method]);
  }
  if (byPackage.size > 0) return [...byPackage].map(([who, methods]) => `${who}: ${methods.toSorted().join(', ')}`).toSorted().join('; ');
  const suite = suites[route.tag];
  if (suite === undefined) throw new Error(`nothing verifies ${route.operationId}: name the suite that does`);
  return `HTTP, \`test/${suite}.test.ts\``;
}

/** The table of `docs/compatibility.md`: every route, who verified it in this run, and what differs. */
export function compatibilityTable(seen: ReadonlyMap<string, ReadonlySet<string>>): string {
  const known = new Set(routes.map(({ operationId }) => operationId));
  const stray = Object.keys(deviations).filter((operationId) => !known.has(operationId));
  if (stray.length > 0) throw new Error(`deviations of routes that are not there: ${stray.join(', ')}`);
  const rows = routes.map((route) => `| ${route.method} | \`${route.path.replace(/:(\w+)/g, '{$1}')}\` | ${callersOf(route, seen)} | ${deviations[route.operationId] ?? ''} |`);
  return [
    '# Compatibility',
    '',
    'Written by `npm run compatibility` from what the published clients call in `test/conformance.test.ts`, which fails when this page',
    'is not what it would write. Every route is also in the permission matrix (`test/permissionMatrix.test.ts`) and gets bad input',
    '(`test/badInput.test.ts`), on SQLite and on PostgreSQL. An empty last column means that no difference is known.',
    '',
    '`test/browser.test.ts` runs the management client and `@itwin/imodels-access-frontend` in Chromium, from another origin.',
    '`test/checkpoints.test.ts` runs iTwin.js itself: briefcases, pushes, read-only opens from checkpoints, on sources, clones and forks.',
    '',
    '| | address | verified by | differs |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
  ].join('\n');
}
