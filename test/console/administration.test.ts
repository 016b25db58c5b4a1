import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official, type MadeIModel } from '../support/clients.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer, holds } from '../support/console.ts';
import { people, type TestServer } from '../support/server.ts';

describe('Administration in the console', { skip: chromium === undefined && 'there is no Chromium here' }, () => {
  let running: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let iModel: MadeIModel;
  let iTwinId: string;
  const inaccessible: string[] = [];
  const address = (place: string): string => `${server.origin}/console/${place}`;
  const dialog = () => page.getByRole('dialog');
  const button = (name: string | RegExp) => page.getByRole('button', { name });
  const examine = async (): Promise<void> => {
    inaccessible.push(...(await accessibilityFaults(page)));
  };

  before(async () => {
    running = await ConsoleServer.start();
    ({ server } = running);
    iTwinId = await server.iTwin();
    iModel = await makeIModel(await official(server), iTwinId, { name: 'Harbour', changesets: 2 });
    const olivia = await server.as('olivia');
    for (const [displayName, permissions] of [
      ['Viewers', ['imodels_webview']],
      ['Engineers', ['imodels_webview', 'imodels_read', 'imodels_write']],
    ] as const)
      assert.equal(
        (await olivia.post(`/accesscontrol/itwins/${iTwinId}/roles`, { displayName, description: '', permissions }))
          .status,
        201,
      );
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia');
  });
  after(async () => {
    await browser.close();
    await running.close();
  });

  test('a group gets users and roles, and is deleted', async () => {
    await page.goto(address(`itwins/${iTwinId}?tab=groups`));
    await page.getByText('No groups').waitFor();
    await examine();
    await button('New group').click();
    await dialog().getByLabel('Name').fill('Site team');
    await dialog().getByLabel('Users').fill(`${people.max.email}\nnobody@example.test`);
    await examine();
    await dialog().getByRole('button', { name: 'Create' }).click();
    await dialog().getByText('Somebody in this list is unknown').waitFor();
    await dialog().getByLabel('Users').fill(people.max.email);
    await dialog().getByRole('button', { name: 'Create' }).click();
    await page.getByRole('heading', { name: 'Site team' }).waitFor();
    await page.getByText('max Tester').waitFor();
    await button('Roles of group Site team').click();
    await dialog().getByLabel('Viewers').check();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('Viewers', { exact: true }).waitFor();
    const max = await server.as('max');
    assert.equal((await max.get(`/imodels/${iModel.id}`)).status, 200);
    // From one role to another, and to none.
    await button('Roles of group Site team').click();
    await dialog().getByLabel('Viewers').uncheck();
    await dialog().getByLabel('Engineers').check();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('Engineers', { exact: true }).waitFor();
    await button('Roles of group Site team').click();
    await dialog().getByLabel('Engineers').uncheck();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('No roles: the group gives its users no permissions yet.').waitFor();
    await button('Change group Site team').click();
    await dialog().getByLabel('Name').fill('Works team');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByRole('heading', { name: 'Works team' }).waitFor();
    await button('Delete group Works team').click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await page.getByText('No groups').waitFor();
  });

  test('a webhook shows its secret once, is paused, changed and deleted', async () => {
    await page.goto(address(`itwins/${iTwinId}?tab=webhooks`));
    await page.getByText('No webhooks').waitFor();
    await button('New webhook').click();
    await dialog().getByLabel('Address').fill('https://receiver.example.test/hook');
    await examine();
    await dialog().getByRole('button', { name: 'Create' }).click();
    await dialog().getByText('The server shows this once.').waitFor();
    const secret = await dialog().getByLabel('Secret').inputValue();
    assert.ok(secret.length >= 16);
    await examine();
    await dialog().getByRole('button', { name: 'Done' }).click();
    await page.getByText('Active', { exact: true }).waitFor();
    await button('Pause webhook https://receiver.example.test/hook').click();
    await page.getByText('Paused', { exact: true }).waitFor();
    await button('Failed messages').click();
    await page.getByText('No message has failed for good.').waitFor();
    await examine();
    await button('Change webhook https://receiver.example.test/hook').click();
    await dialog().getByLabel('iModel deleted').uncheck();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('iModel created, Changeset pushed, Named version created').waitFor();
    await button('Delete webhook https://receiver.example.test/hook').click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await page.getByText('No webhooks').waitFor();
  });

  test('a share works with the key that is shown once, until it is revoked', async () => {
    await page.goto(address(`imodels/${iModel.id}/shares`));
    await page.getByText('No shares').waitFor();
    await button('New share').click();
    await dialog().getByLabel('Name').fill('For the contractor');
    await examine();
    await dialog().getByRole('button', { name: 'Create' }).click();
    const header = await dialog().getByLabel('Header for requests to the API').inputValue();
    await examine();
    await dialog().getByRole('button', { name: 'Done' }).click();
    await page.getByText('For the contractor').waitFor();
    const authorization = header.replace('Authorization: ', '');
    const look = async (): Promise<number> =>
      (await fetch(`${server.origin}/imodels/${iModel.id}`, { headers: { authorization } })).status;
    assert.equal(await look(), 200);
    await button('Revoke share For the contractor').click();
    await dialog().getByRole('button', { name: 'Revoke' }).click();
    await page.getByText('No shares').waitFor();
    assert.equal(await look(), 401);
  });

  test('an iModel gets permissions of its own, which replace those of the iTwin, and returns to them', async () => {
    const olivia = await server.as('olivia');
    const roles = (await olivia.get(`/accesscontrol/itwins/${iTwinId}/roles`)).body as {
      roles: { id: string; displayName: string }[];
    };
    const viewers = roles.roles.find(({ displayName }) => displayName === 'Viewers');
    await olivia.post(`/accesscontrol/itwins/${iTwinId}/members/users`, {
      members: [{ email: people.max.email, roleIds: [viewers?.id] }],
    });
    const max = await server.as('max');
    const look = async (): Promise<number> => (await max.get(`/imodels/${iModel.id}`)).status;
    assert.equal(await look(), 200);
    await page.goto(address(`imodels/${iModel.id}/access`));
    await page.getByText('There are none of its own').waitFor();
    await button('Give permissions').click();
    await dialog().getByText('The first permission replaces all permissions of the iTwin').waitFor();
    await dialog().getByRole('combobox', { name: 'Role' }).click();
    await page.getByRole('option', { name: 'Engineers' }).click();
    await examine();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('These replace the permissions of the iTwin.').waitFor();
    await button('Change permissions: Engineers').waitFor();
    await examine();
    assert.notEqual(await look(), 200);
    await button('Use those of the iTwin').click();
    await dialog().getByRole('button', { name: 'Use those of the iTwin' }).click();
    await page.getByText('There are none of its own').waitFor();
    assert.equal(await look(), 200);
    // By e-mail, for one user.
    await button('Give permissions').click();
    await dialog().getByRole('combobox', { name: 'Permissions for' }).click();
    await page.getByRole('option', { name: 'a user' }).click();
    await dialog().getByLabel('E-mail or id of the user').fill('nobody@example.test');
    await dialog().getByRole('button', { name: 'Save' }).click();
    await dialog().getByText('There is no such user').waitFor();
    await dialog().getByLabel('E-mail or id of the user').fill(people.max.email);
    await dialog().getByRole('button', { name: 'Save' }).click();
    await button('Change permissions: max Tester').click();
    for (const name of ['View iModels', 'Read iModels']) await dialog().getByLabel(name).uncheck();
    await dialog().getByText('Without any permission the holder may not see the iModel.').waitFor();
    await dialog().getByRole('button', { name: 'Save' }).click();
    await page.getByText('May not see the iModel', { exact: true }).waitFor();
    assert.notEqual(await look(), 200);
    await button('Use those of the iTwin').click();
    await dialog().getByRole('button', { name: 'Use those of the iTwin' }).click();
    await page.getByText('There are none of its own').waitFor();
  });

  test('extended data of a changeset stands in its details', async () => {
    const olivia = await server.as('olivia');
    const data = Buffer.from(JSON.stringify({ survey: 'north side' })).toString('base64');
    const attached = await olivia.post(`/imodels/${iModel.id}/changesets/1/extendeddata`, { data });
    assert.equal(attached.status, 201, JSON.stringify(attached.body));
    await page.goto(address(`imodels/${iModel.id}/timeline?at=1`));
    await page.getByText('north side').waitFor();
    await page.goto(address(`imodels/${iModel.id}/timeline?at=2`));
    await page.getByRole('heading', { name: 'Changeset 2' }).waitFor();
    await holds(page, "document.querySelector('.json') === null");
  });

  test('an iModel is created from a template, as it is at the last changeset', async () => {
    await page.goto(address(`imodels/${iModel.id}?clone=head`));
    await dialog().getByRole('combobox', { name: 'As' }).click();
    await page.getByRole('option', { name: 'New iModel from this template' }).click();
    await examine();
    const sent = page.waitForRequest((request) => request.method() === 'POST' && request.url().endsWith('/imodels'));
    await dialog().getByRole('button', { name: 'Create' }).click();
    const { template } = (await sent).postDataJSON() as { template: unknown };
    assert.deepEqual(template, { iModelId: iModel.id, changesetId: iModel.changesets.at(-1)?.id });
  });

  test('somebody who may only look is offered no changes', async () => {
    const tab = await browser.signedIn(server, 'max');
    for (const [place, text] of [
      [`itwins/${iTwinId}?tab=groups`, 'No groups'],
      [`imodels/${iModel.id}/shares`, 'No shares'],
      [`imodels/${iModel.id}/access`, 'There are none of its own'],
    ] as const) {
      await tab.goto(address(place));
      await tab.getByText(text).waitFor();
      for (const name of ['New group', 'New share', 'Give permissions'])
        assert.equal(await tab.getByRole('button', { name }).count(), 0);
    }
    await tab.goto(address(`itwins/${iTwinId}`));
    await tab.getByRole('tab', { name: 'Usage' }).waitFor();
    assert.equal(await tab.getByRole('tab', { name: 'Webhooks' }).count(), 0);
    await tab.close();
  });

  // Whole pages are examined in pages.test.ts.
  test('no dialogue and no empty page has a serious accessibility fault', () => {
    assert.deepEqual([...new Set(inaccessible)], []);
  });
});
