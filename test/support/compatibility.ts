import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { absentAddresses } from '../../apps/server/src/api/absent.ts';
import type { Route } from '../../apps/server/src/api/route.ts';
import { routes } from '../../apps/server/src/api/routes.ts';
import type { CoverageRecord } from './coverage.ts';

export const tableFile = fileURLToPath(new URL('../../docs/compatibility.md', import.meta.url));

/** Known differences from the vendor's service, and extensions of its documented responses. */
const deviations: Record<string, string> = {
  'clone-imodel':
    'complete before the 202 is sent, so the first poll returns `successful`; the clone has the checkpoints of its source',
  'fork-imodel': 'without iTwin.js on the server, requires `preserveHistory` and does not check FederationGuids',
  'create-imodel':
    'the empty seed has 1,384,448 bytes (an older schema gave 1,253,376); `geographicCoordinateSystem` is stored with the iModel and not written into the file; creation from a template requires iTwin.js on the server, except from its baseline',
  'get-create-imodel-operation-details': 'adds `progress`, `failureReason` and times',
  'get-imodel-baseline-file-details': 'the file contains the ids of the requested iModel',
  'complete-imodel-baseline-file-upload':
    'with iTwin.js on the server, the file is examined first: a file that is not an iModel, or is a briefcase, is rejected',
  'get-changeset-checkpoint':
    'adds `progress` and `failureReason`; the server itself serves the containers, with every store: use `@offshoot/itwinjs`',
  'make-changeset-checkpoint':
    'an address of this server: the API makes checkpoints of named versions only; 409 `CheckpointsNotMade` where none are made',
  'get-changeset-graphics':
    'an address of this server: binary glTF and a table of elements, drawn from the checkpoint and shared by clones',
  'make-changeset-graphics': 'an address of this server; 409 `GraphicsNotMade` where nothing is drawn',
  'read-viewer': 'an address of this server: the RPC protocol of viewers that are built on iTwin.js',
  'call-viewer': 'as `read-viewer`, with the parameters in the body',
  'get-named-version-checkpoint': 'as `get-changeset-checkpoint`',
  'get-briefcase-checkpoint': 'as `get-changeset-checkpoint`; returns the newest usable checkpoint',
  'update-imodel-named-version':
    "without `state`, the state is unchanged (a test of the vendor's suite expects `visible`)",
  'acquire-imodel-briefcase':
    "at most 5 unreleased briefcases per user, iModel and minute, as the clients' suite expects; the documentation says 100; adds `minimumBriefcaseId`, for imports",
  'create-imodel-changeset':
    'only from a briefcase of the caller; adds `recordedBriefcaseId`, with which an import keeps the briefcase that created a changeset',
  'update-imodel-changeset':
    'can be repeated and then returns the same response; also `DataConflict` if the bytes do not match the id',
  'get-imodel-rolepermissions-by-role': 'returns all roles, as the sample in the reference does',
  'create-itwin':
    'the data centers are those of the configuration; a parent must belong to an organization of the caller; accounts are the organizations of the users file, so none is created; `ianaTimeZone` and coordinates are not stored',
  'get-my-itwins':
    'without `x-itwin-query-scope`, returns everything that the caller can access, as with `all`; accounts are not listed',
  'get-itwin-account':
    'in full representation, the account has no creator, and its creation time is that of its first iTwin',
  'get-my-primary-account': 'as `get-itwin-account`',
  'create-repository': '`capabilities` are empty: no resources, no graphics; there are no built-in repositories',
  'delete-itwin': 'deletes its iModels too',
  'upload-itwin-image': 'images are returned as PNG, 400 × 250 and 800 × 500',
  'create-itwin-group': 'no groups from an external directory; a group belongs to one iTwin',
  'add-itwin-members': 'there are no invitations: an unknown user is rejected with 422',
  'add-itwin-owner': 'as `add-itwin-members`',
  'get-itwin-roles': 'every role has the type `Custom`; without paging parameters, returns up to 1,000',
  'get-itwin-groups': 'without paging parameters, returns up to 1,000',
  'get-itwin-member-invitations': 'always empty',
  'get-itwin-member-invitation': 'always 404 `InvitationNotFound`',
  'delete-itwin-member-invitation': 'always 404 `InvitationNotFound`',
  'get-itwin-group-member-invitations': 'always empty',
  'delete-itwin-group-member-invitation': 'always 404 `InvitationNotFound`',
  'create-itwin-webhook':
    'webhooks of one iTwin, at an address of this server; the event names for pushes and versions are not publicly documented',
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
  // No names of suites: each new test would change the page, and only the run of all tests knows it.
  // Tests of the console need Chromium, and the page must not depend on what a machine has.
  const answered = seen.some((each) => !each.file.startsWith('console/') && each.answered.includes(route.operationId));
  return answered ? 'plain requests' : '';
}

/** The table of `docs/compatibility.md`: every route, who verified it in a run of all tests, and what differs. */
export function compatibilityTable(folder: string): string {
  const seen = readdirSync(folder).map(
    (name) => JSON.parse(readFileSync(path.join(folder, name), 'utf8')) as CoverageRecord,
  );
  const known = new Set(routes.map(({ operationId }) => operationId));
  const unknown = Object.keys(deviations).filter((operationId) => !known.has(operationId));
  if (unknown.length > 0) throw new Error(`deviations of unknown routes: ${unknown.join(', ')}`);
  const untried = routes.filter((route) => callersOf(route, seen) === '').map(({ operationId }) => operationId);
  if (untried.length > 0) throw new Error(`no suite receives a 2xx response from ${untried.join(', ')}`);
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
    '`npm run compatibility` writes this page from a run of all tests; `npm test` fails if the page is out of date.',
    'Each route names the published clients that call it (`test/conformance.test.ts` calls every method of each), or else plain requests, of',
    'which at least one received a 2xx response. Every route is also part of the permission matrix (`test/permissionMatrix.test.ts`) and',
    'receives invalid input (`test/badInput.test.ts`). Tests of the API run on SQLite and on PostgreSQL, and those of files on each store:',
    "folders, S3 and Azure Blob. An empty last column means that no difference from the vendor's service is known.",
    '',
    '`test/platformClients.test.ts` calls every method of `@itwin/itwins-client` 1.1.0 and 1.6.1, the first and the newest version that the',
    'npm registry offers. It does not offer `@itwin/itwins-client` 3.0 or `@itwin/access-control-client` 3.7 and 4.1: the test sends their',
    'requests as their public source does, and the table marks them "by its requests".',
    '',
    '`test/browser.test.ts` runs the management client and `@itwin/imodels-access-frontend` in Chromium, from another origin.',
    '`test/checkpoints.test.ts` runs iTwin.js itself: briefcases, pushes, read-only opens from checkpoints, on sources, clones and forks.',
    'Viewers that are built on iTwin.js 5.1 to 5.13 can use the back end of the server, and so can those on 4.11',
    '([viewer.md](viewer.md#versions)).',
    '',
    '| | address | verified by | differs |',
    '| --- | --- | --- | --- |',
    ...rows,
    '',
    'Addresses of the platform that clients request and that this server does not implement. They return 404 `NotFound` with the reason:',
    '',
    '| address | answer |',
    '| --- | --- |',
    ...absent,
    '',
  ].join('\n');
}
