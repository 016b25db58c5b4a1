import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official, type MadeIModel } from '../support/clients.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import type { PersonName, TestServer } from '../support/server.ts';

describe('Briefcases and locks in the console', { skip: chromium === undefined && 'there is no Chromium here' }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let iModel: MadeIModel;
  /** Shows the page to a user. */
  const openedBy = async (who: PersonName): Promise<Page> => {
    const page = await browser.signedIn(server, who);
    page.setDefaultTimeout(60_000);
    await page.goto(`${server.origin}/console/imodels/${iModel.id}/work`);
    await page.getByRole('heading', { name: 'Briefcases', exact: true }).waitFor();
    return page;
  };

  before(async () => {
    site = await ConsoleServer.start();
    ({ server } = site);
    const iTwinId = await server.iTwin();
    await server.grant(iTwinId, 'max', ['imodels_webview', 'imodels_read', 'imodels_write']);
    iModel = await makeIModel(await official(server), iTwinId, { name: 'Bridge' });
    for (const who of ['olivia', 'max'] as const) {
      const api = await server.as(who);
      const acquired = await api.post(`/imodels/${iModel.id}/briefcases`, { deviceName: `${who}'s computer` });
      assert.equal(acquired.status, 201);
      const { briefcaseId } = (acquired.body as { briefcase: { briefcaseId: number } }).briefcase;
      const locked = await api.patch(`/imodels/${iModel.id}/locks`, {
        briefcaseId,
        changesetId: '',
        lockedObjects: [{ lockLevel: 'exclusive', objectIds: who === 'max' ? ['0x20', '0x21'] : ['0x30'] }],
      });
      assert.equal(locked.status, 200, JSON.stringify(locked.body));
    }
    browser = await ConsoleBrowser.launch(server.origin);
  });
  after(async () => {
    await browser?.close();
    await site.close();
  });

  const locks = (page: Page) => page.getByRole('list', { name: 'Locks' }).getByRole('listitem');
  const releases = (page: Page) => page.getByRole('button', { name: /^Release briefcase/ });

  test('shows who holds which locks, and lets a user release only the own briefcase', async () => {
    const page = await openedBy('max');
    await locks(page).filter({ hasText: "yours · max's computer · Exclusive: 2 elements" }).waitFor();
    await locks(page).filter({ hasText: "olivia Tester · olivia's computer · Exclusive: 1 element" }).waitFor();
    await releases(page).first().waitFor();
    assert.equal(await releases(page).count(), 1);
    await page.context().close();
  });

  test('a manager of iModels releases the briefcase of anybody, with its locks', async () => {
    const page = await openedBy('olivia');
    await locks(page).filter({ hasText: 'max Tester' }).waitFor();
    await releases(page).nth(1).waitFor();
    await page
      .getByRole('listitem')
      .filter({ hasText: "max Tester · max's computer · acquired" })
      .getByRole('button')
      .click();
    await page.getByRole('dialog').getByText('It belongs to somebody else: max Tester.').waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.getByRole('dialog').getByRole('button', { name: 'Release' }).click();
    await page.getByRole('dialog').waitFor({ state: 'detached' });
    await page.getByText('max Tester').first().waitFor({ state: 'detached' });
    assert.equal(await locks(page).count(), 1);
    assert.equal(await releases(page).count(), 1);
    assert.deepEqual(browser.faults, []);
  });
});
