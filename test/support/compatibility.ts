import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { absentAddresses } from '../../apps/server/src/api/absent.ts';
import type { Route } from '../../apps/server/src/api/route.ts';
import { routes } from '../../apps/server/src/api/routes.ts';
import type { CoverageRecord } from './coverage.ts';

export const tableFile = fileURLToPath(new URL('../../docs/compatibility.md', import.meta.url));

const manySuites = 6;
/** Suites that try every route in one way, or use other routes to prove the rules of one; they say nothing of a route's own rules. */
const general = new Set(['permissionMatrix', 'badInput', 'openapi', 'access', 'browser', 'cloneRules']);

/** Where an answer differs from the vendor's service, or goes beyond what is documented of it. Nothing else is known to differ. */
const deviations: Record<string, string> = {
  'clone-imodel':
    'done when the 202 leaves, so the first poll finds `successful`; checkpoints of the source come along',
  'fork-imodel': 'without iTwin.js on the server: with `preserveHistory` only, and FederationGuids are not checked',
  'create-imodel':
    'the empty seed has 1,384,448 bytes (an older schema gave 1,253,376); `geographicCoordinateSystem` is kept with the iModel and not written into the file; creation from a template needs iTwin.js on the server, unless from its baseline',
  'get-create-imodel-operation-details': 'adds `progress`, `failureReason` and times',
  'get-imodel-baseline-file-details': 'the file has the ids of the iModel that it is asked for',
  'complete-imodel-baseline-file-upload':
    'with iTwin.js on the server the file is looked into before it counts: no iModel, or a briefcase, is refused',
  'get-changeset-checkpoint':
    "adds `progress` and `failureReason`; containers are the server's own, with every store: use `@offshoot/itwinjs`",
  'get-named-version-checkpoint': 'as `get-changeset-checkpoint`',
  'get-briefcase-checkpoint': 'as `get-changeset-checkpoint`; the newest usable one',
  'update-imodel-named-version': "without `state` the state stays (a test of the vendor's suite expects `visible`)",
  'acquire-imodel-briefcase':
    "at most 5 unreleased ones a user, iModel and minute, as the clients' suite wants; the documentation says 100; adds `minimumBriefcaseId`, for imports",
  'create-imodel-changeset':
    'from the own briefcase only; adds `recordedBriefcaseId`, with which an import keeps the briefcase that made a changeset',
  'update-imodel-changeset':
    'may be repeated: a lost answer is given again; `DataConflict` too when the bytes do not give the id',
  'get-imodel-rolepermissions-by-role': 'answers all roles, as the sample of the reference does',
  'create-itwin':
    'data centers are those of the configuration; a parent must be of an organization of the caller; accounts are the organizations of the users file, so none is created; `ianaTimeZone` and coordinates are not kept',
  'get-my-itwins': 'without `x-itwin-query-scope` all that the caller may see, as with `all`; accounts are not listed',
  'get-itwin-account': 'in full representation the account has no creator, and was created with its first iTwin',
  'get-my-primary-account': 'as `get-itwin-account`',
  'create-repository': '`capabilities` are empty: no resources, no graphics; no repositories are there by themselves',
  'delete-itwin': 'deletes its iModels too',
  'upload-itwin-image': 'PNG out, 400 × 250 and 800 × 500',
  'create-itwin-group': 'no groups of an outside directory; groups belong to one iTwin',
  'add-itwin-members': 'users are known or not: there are no invitations; who is not known is refused, 422',
  'add-itwin-owner': 'as `add-itwin-members`',
  'get-itwin-roles': 'every role is of the type `Custom`; without paging parameters up to 1,000',
  'get-itwin-groups': 'without paging parameters up to 1,000',
  'get-itwin-member-invitations': 'always empty',
  'get-itwin-member-invitation': 'always 404 `InvitationNotFound`',
  'delete-itwin-member-invitation': 'always 404 `InvitationNotFound`',
  'get-itwin-group-member-invitations': 'always empty',
  'delete-itwin-group-member-invitation': 'always 404 `InvitationNotFound`',
  'create-itwin-webhook':
    'webhooks of one iTwin, at an address of this server; names of the events for pushes and versions are not documented publicly',
};

function callersOf(route: Route, seen: readonly CoverageRecord[]): string {
  const byPackage = new Map<string, Set<string>>();
  for (const caller of seen.flatMap(({ clients }) => clients[route.operationId] ?? [])) {
    const [, who = '', method = ''] = /^(.*?) (`.*`)$/.exec(caller) ?? [];
    byPackage.set(who, (byPackage.get(who) ?? new Set()).add(method));
  }
  if (byPackage.size > 0)
    return [...byPackage]
      .map(([who, methods]) => `${who}: ${[...methods].sort().join(', ')}`)
      .sort()
      .join('; ');
  const all = [
    ...new Set(
      seen
        .filter(({ file, answered }) => !general.has(file) && answered.includes(route.operationId))
        .map(({ file }) => file),
    ),
  ];
  // Security tests use other routes on their way, so they name a route only where no other suite does.
  const own = all.filter((file) => !file.startsWith('security/'));
  const files = own.length > 0 ? own : all;
  // Routes that every suite needs for its setup: a list of all suites would be of no use.
  if (files.length > manySuites) return 'HTTP: most suites';
  return `HTTP: ${files
    .sort()
    .map((file) => `\`${file}\``)
    .join(', ')}`;
}

/** The table of `docs/compatibility.md`: every route, who verified it in a run of all tests, and what differs. */
export function compatibilityTable(folder: string): string {
  const seen = readdirSync(folder).map(
    (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as CoverageRecord,
  );
  const known = new Set(routes.map(({ operationId }) => operationId));
  const stray = Object.keys(deviations).filter((operationId) => !known.has(operationId));
  if (stray.length > 0) throw new Error(`deviations of routes that are not there: ${stray.join(', ')}`);
  const untried = routes.filter((route) => callersOf(route, seen) === 'HTTP: ').map(({ operationId }) => operationId);
  if (untried.length > 0) throw new Error(`no suite gets a good answer from ${untried.join(', ')}`);
  const absent = absentAddresses.map(
    ({ paths, message }) => `| \`${(paths[0] as string).replace(/:(\w+)/g, '{$1}')}\` and below | ${message} |`,
  );
  const rows = routes.map(
    (route) =>
      `| ${route.method} | \`${route.path.replace(/:(\w+)/g, '{$1}')}\` | ${callersOf(route, seen)} | ${deviations[route.operationId] ?? ''} |`,
  );
  return [
    '# Compatibility',
    '',
    'Written by `npm run compatibility` from what a run of all tests saw; `npm test` fails when this page is not what it would write.',
    'A published client is named where one has the call (`test/conformance.test.ts` calls every method of each); else the suites whose',
    'plain requests were answered by 2xx. Every route is also in the permission matrix (`test/permissionMatrix.test.ts`) and gets bad',
    'input (`test/badInput.test.ts`). All of it on SQLite with files, PostgreSQL with S3, and PostgreSQL with Azure Blob. An empty last',
    'column means that no difference is known.',
    '',
    '`test/platformClients.test.ts` calls every method of `@itwin/itwins-client` 1.1.0 and 1.6.1, the first and the newest version that the',
    'npm registry offers. It does not offer `@itwin/itwins-client` 3.0 and `@itwin/access-control-client` 3.7 and 4.1: their requests are',
    'sent as their public source sends them, and the table names these "by its requests".',
    '',
    '`test/browser.test.ts` runs the management client and `@itwin/imodels-access-frontend` in Chromium, from another origin.',
    '`test/checkpoints.test.ts` runs iTwin.js itself: briefcases, pushes, read-only opens from checkpoints, on sources, clones and forks.',
    '',
    '| | address | verified by | differs |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
    'Addresses of the platform that clients ask for and that are not there. They answer 404 `NotFound` with the reason:',
    '',
    '| address | answer |',
    '| --- | --- |',
    ...absent,
    '',
  ].join('\n');
}
