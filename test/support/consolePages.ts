/** Every page of the console, and an installation that has something to show on each of them. */
import type { Page } from 'playwright-core';
import { makeIModel, official } from './clients.ts';
import { people, type TestServer } from './server.ts';

/** What the pages show. */
export interface Shown {
  iTwinId: string;
  /** With changesets, named versions, briefcases, locks, shares and clones. */
  iModelId: string;
  /** Whose creation failed. */
  failedId: string;
}

export interface ConsolePage {
  name: string;
  /** The pattern of its address in the router; undefined for what is shown in place of a page. */
  route: string | undefined;
  /** The tab of the iTwin. */
  tab?: string;
  /** Its address. */
  place: (shown: Shown) => string;
  /** What is there once the page has everything. */
  ready: (page: Page) => Promise<void>;
}

const text = (wanted: string) => (page: Page) => page.getByText(wanted).first().waitFor();
const heading = (name: string) => (page: Page) => page.getByRole('heading', { name, exact: true }).first().waitFor();
const tab = (name: string, label: string, ready: ConsolePage['ready']): ConsolePage => ({
  name: `the ${name} of an iTwin`,
  route: '/itwins/$iTwinId',
  tab: label,
  place: ({ iTwinId }) => `itwins/${iTwinId}?tab=${name}`,
  ready,
});
const ofIModel = (name: string, ready: ConsolePage['ready'], search = ''): ConsolePage => ({
  name: `the ${name} of an iModel`,
  route: `/imodels/$iModelId/${name}`,
  place: ({ iModelId }) => `imodels/${iModelId}/${name}${search}`,
  ready,
});

/** Every page, once. */
export const consolePages: readonly ConsolePage[] = [
  { name: 'the list of iTwins', route: '/', place: () => '', ready: text('Harbour bridge') },
  {
    name: 'the iModels of an iTwin',
    route: '/itwins/$iTwinId',
    tab: 'iModels',
    place: ({ iTwinId }) => `itwins/${iTwinId}`,
    ready: (page) => page.locator('.card img').first().waitFor(),
  },
  {
    name: 'the iModels of an iTwin as a table',
    route: '/itwins/$iTwinId',
    tab: 'iModels',
    place: ({ iTwinId }) => `itwins/${iTwinId}?as=table`,
    ready: (page) => page.getByRole('link', { name: 'Deck', exact: true }).waitFor(),
  },
  tab('members', 'Members', text('max Tester')),
  tab('groups', 'Groups', text('Site team')),
  tab('webhooks', 'Webhooks', text('https://receiver.example.test/hook')),
  tab('usage', 'Usage', text('This iTwin')),
  {
    name: 'an iModel',
    route: '/imodels/$iModelId',
    place: ({ iModelId }) => `imodels/${iModelId}`,
    ready: async (page) => {
      await page.locator('.picture img').waitFor();
      await page.getByRole('rowheader', { name: 'Changesets' }).waitFor();
    },
  },
  ofIModel('view', text('There are no graphics of this point')),
  ofIModel('timeline', heading('Changeset 2'), '?at=2'),
  ofIModel('versions', text('Tender')),
  ofIModel('family', (page) => page.getByRole('treeitem').nth(1).waitFor()),
  ofIModel('access', text('Your permissions')),
  ofIModel('shares', text('For the contractor')),
  ofIModel('work', (page) => page.getByRole('list', { name: 'Locks' }).getByText('Exclusive').waitFor()),
  {
    name: 'the creation of an iModel',
    route: '/imodels/$iModelId/creation',
    place: ({ failedId }) => `imodels/${failedId}/creation`,
    ready: text('The iModel could not be created.'),
  },
  {
    name: 'an address without a page',
    route: undefined,
    place: () => 'nothing/here',
    ready: text('There is nothing at this address'),
  },
  {
    name: 'an iModel that is not there',
    route: undefined,
    place: () => 'imodels/00000000-0000-4000-8000-000000000000',
    ready: text('There is no such iModel'),
  },
];

async function expectOk(what: string, answer: Promise<{ status: number; body: unknown }>): Promise<unknown> {
  const { status, body } = await answer;
  if (status >= 300) throw new Error(`${what}: ${status} ${JSON.stringify(body)}`);
  return body;
}

/** Fills an installation with long names, and with something in every list. */
export async function fillConsole(server: TestServer): Promise<Shown> {
  const api = await server.as('olivia');
  const olivia = await official(server);
  const iTwinId = await server.iTwin('olivia', 'Harbour bridge');
  await server.iTwin('olivia', 'Northern approach road, lots 3 to 7, including the retaining walls at Fährhausstraße');
  const source = await makeIModel(olivia, iTwinId, {
    name: 'Deck',
    description: 'Superstructure with its bearings, expansion joints, and the equipment for maintenance.',
    changesets: 3,
  });
  const named = await makeIModel(olivia, iTwinId, {
    name: 'Pylons_and_stay_cables_2026-11-28_rev-17_for_the_tender_without_a_single_space',
  });
  const failed = await makeIModel(olivia, iTwinId, { name: 'Foundations' });
  const { db } = server.services.database;
  await db.updateTable('imodel').set({ state: 'notInitialized', failed_at: 1 }).where('id', '=', failed.id).execute();
  await db
    .updateTable('operation')
    .set({ state: 'failed', failure_reason: 'The file is not an iModel.', finished_at: Date.now() })
    .where('imodel_id', '=', failed.id)
    .execute();

  await server.grant(iTwinId, 'max', ['imodels_webview', 'imodels_read']);
  const site = `/accesscontrol/itwins/${iTwinId}`;
  const roles = [
    ['Viewers', ['imodels_webview']],
    [
      'Engineers of the contractor and of all subcontractors',
      ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage', 'imodels_delete', 'webhooks_maintainer'],
    ],
  ] as const;
  for (const [displayName, permissions] of roles)
    await expectOk('a role', api.post(`${site}/roles`, { displayName, description: 'Made by the tests', permissions }));
  await expectOk(
    'a group',
    api.post(`${site}/groups`, { name: 'Site team', description: '', members: [people.max.email] }),
  );
  await expectOk(
    'a webhook',
    api.post(`/itwins/${iTwinId}/webhooks`, {
      callbackUrl: 'https://receiver.example.test/hook',
      eventTypes: ['iModels.changesetPushed.v1'],
      isActive: true,
    }),
  );
  const at = `/imodels/${source.id}`;
  for (const [index, name] of ['Concept', 'Tender'].entries())
    await expectOk(
      'a named version',
      api.post(`${at}/namedversions`, {
        name,
        description: 'As it was sent to the authorities',
        changesetId: source.changesets[index]?.id,
      }),
    );
  await expectOk(
    'a share',
    api.post(`${at}/shares`, {
      name: 'For the contractor',
      permission: 'imodels_webview',
      expiresAt: new Date(Date.now() + 86_400_000).toISOString(),
    }),
  );
  await expectOk(
    'extended data',
    api.post(`${at}/changesets/2/extendeddata`, {
      data: Buffer.from(JSON.stringify({ survey: 'north side' })).toString('base64'),
    }),
  );
  await expectOk(
    'locks',
    api.patch(`${at}/locks`, {
      briefcaseId: source.briefcaseId,
      changesetId: source.changesets.at(-1)?.id,
      lockedObjects: [{ lockLevel: 'exclusive', objectIds: ['0x20', '0x21'] }],
    }),
  );
  await expectOk('a clone', api.post(`${at}/clone`, { iTwinId, name: 'Deck, variant B', changesetIndex: 2 }));
  await expectOk('a favorite', api.put(`/imodels/favorites/${named.id}`));
  return { iTwinId, iModelId: source.id, failedId: failed.id };
}
