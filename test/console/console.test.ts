import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { sampleBaseline } from '../../scripts/sample.ts';
import { loadConfig } from '../../apps/server/src/config.ts';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official, type MadeIModel } from '../support/clients.ts';
import { accessibilityFaults, addChangesets, ConsoleBrowser, ConsoleServer, holds } from '../support/console.ts';
import { people, type TestServer } from '../support/server.ts';

const last = 100_000;
/** Clones that the console may make in a minute in these tests. */
const clones = 6;

const tiers = {
  ...loadConfig({}, { env: {} }).tiers,
  Unlimited: { general: [{ requests: 1_000_000, seconds: 60 }], operations: {} },
  Enterprise: {
    general: [{ requests: 1_000_000, seconds: 60 }],
    operations: { 'clone-imodel': { requests: clones, seconds: 60 } },
  },
};

describe('The console in a browser', { skip: chromium === undefined && 'there is no Chromium here' }, () => {
  let running: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let source: MadeIModel;
  let iTwinId: string;
  const address = (place: string): string => `${server.origin}/console/${place}`;
  const inaccessible: string[] = [];
  /** Notes the accessibility faults of what is shown. */
  const examine = async (tab = page): Promise<void> => {
    inaccessible.push(...(await accessibilityFaults(tab)));
  };
  const dialog = () => page.getByRole('dialog');
  const heading = (name: string | RegExp) => page.getByRole('heading', { level: 1, name });

  before(async () => {
    running = await ConsoleServer.start({ tiers });
    ({ server } = running);
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia');
  });
  after(async () => {
    await browser.close();
    await running.close();
  });

  test('a signed-in user creates an iTwin, and is led there', async () => {
    await page.getByText('Create your first iTwin').waitFor();
    await examine();
    await page.getByRole('button', { name: 'New iTwin' }).first().click();
    await dialog().getByLabel('Name').fill('Harbour bridge');
    await examine();
    await dialog().getByRole('button', { name: 'Create' }).click();
    await heading('Harbour bridge').waitFor();
    iTwinId = page.url().split('/').at(-1) ?? '';
    await page.getByText('Add the first iModel').waitFor();
    await examine();
  });

  test('creates an iModel from a file, watches the upload and opens the iModel', async () => {
    const file = path.join(running.folder, 'Bridge deck.bim');
    writeFileSync(file, sampleBaseline());
    await page.getByRole('button', { name: 'New iModel' }).first().click();
    await dialog().locator('input[type=file]').setInputFiles(file);
    assert.equal(await dialog().getByLabel('Name').inputValue(), 'Bridge deck');
    await examine();
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
    await page.getByText('The iModel is ready.').waitFor();
    await examine();
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await heading('Bridge deck').waitFor();
    await page.locator('.picture img').waitFor();
  });

  test('shows iModels as cards with pictures and as a table, and finds them', async () => {
    const olivia = await official(server);
    source = await makeIModel(olivia, iTwinId, { name: 'Pylons', changesets: 1 });
    await page.goto(address(`itwins/${iTwinId}`));
    await page.locator('.card img').first().waitFor();
    assert.equal(await page.locator('.card').count(), 2);
    await page.getByRole('button', { name: 'Add Pylons to the favorites' }).click();
    await page.getByRole('button', { name: 'Remove Pylons from the favorites' }).waitFor();
    await page.getByRole('searchbox').fill('pyl');
    await page.waitForURL(/q=pyl/);
    await holds(page, "document.querySelectorAll('.card').length === 1");
    await page.getByRole('button', { name: 'Table' }).click();
    await page.getByRole('link', { name: 'Pylons' }).waitFor();
  });

  test('the timeline of 100,000 changesets shows any of them, and holds only the rows in view', async () => {
    await addChangesets(server, source.id, last);
    await page.goto(address(`imodels/${source.id}/timeline`));
    await page.getByText('100,000 changesets').waitFor();
    await page.getByText('Change 100000').waitFor();
    await page.evaluate("document.querySelector('.timeline-scroller').scrollTop = 1e9");
    await page.getByText('Baseline').waitFor();
    await page.getByLabel('Go to number').fill('50000');
    await page.getByRole('button', { name: 'Go', exact: true }).click();
    await page.getByRole('row').getByText('Change 50000', { exact: true }).waitFor();
    await page.getByRole('heading', { name: 'Changeset 50,000' }).waitFor();
    assert.ok((await page.getByRole('row').count()) < 60);
  });

  test('names a point of the timeline, and hides the named version', async () => {
    await page.getByRole('button', { name: 'Name this version' }).click();
    await dialog().getByLabel('Name').fill('Tender');
    await dialog().getByRole('button', { name: 'Create' }).click();
    await page.getByRole('row').getByText('Tender').waitFor();
    await page.getByRole('tab', { name: 'Named versions' }).click();
    await page.getByRole('link', { name: 'Changeset 50,000' }).waitFor();
    await page.getByRole('button', { name: 'Hide' }).click();
    await page.getByRole('button', { name: 'Show' }).waitFor();
  });

  test('creates a role, and gives it to a user', async () => {
    await page.goto(address(`itwins/${iTwinId}?tab=members`));
    await page.getByText('Create a role first').waitFor();
    await examine();
    await page.getByRole('button', { name: 'New role' }).click();
    await dialog().getByLabel('Name').fill('Viewers');
    await examine();
    await dialog().getByRole('button', { name: 'Create' }).click();
    await page.getByRole('heading', { name: 'Viewers' }).waitFor();
    await page.getByRole('button', { name: 'Add a member' }).click();
    await dialog().getByLabel('E-mail').fill(people.max.email);
    await dialog().getByLabel('Viewers').check();
    await dialog().getByRole('button', { name: 'Add a member' }).click();
    await page.getByRole('button', { name: 'Change roles: max Tester' }).waitFor();
  });

  test('shows every other page of an iModel and of an iTwin', async () => {
    const shown: [place: string, text: string][] = [
      [`imodels/${source.id}`, 'Summary'],
      [`imodels/${source.id}/access`, 'Your permissions'],
      [`imodels/${source.id}/work`, 'Nothing is locked.'],
      [`itwins/${iTwinId}?tab=usage`, 'This iTwin'],
      ['nothing/here', 'There is nothing at this address'],
    ];
    for (const [place, text] of shown) {
      await page.goto(address(place));
      await page.getByText(text).waitFor();
    }
  });

  test('clones to a point, shows the operation also after a reload, and opens the clone', async () => {
    await page.goto(address(`imodels/${source.id}/timeline?at=70000`));
    await page.getByRole('complementary').getByRole('button', { name: 'Clone to here' }).click();
    await dialog().getByText('The clone will end at changeset 70,000 of 100,000.').waitFor();
    await dialog().getByText('named versions').waitFor();
    await dialog().getByText(`Limited to ${clones} requests in 60 seconds.`).waitFor();
    await examine();
    // The address says what is open.
    await page.reload();
    await dialog().getByLabel('Name').fill('Pylons for the tender');
    await dialog().getByRole('button', { name: 'Clone', exact: true }).click();
    await page.getByText('The iModel is ready.').waitFor();
    await page.reload();
    await page.getByText('The iModel is ready.').waitFor();
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await heading('Pylons for the tender').waitFor();
    await page.getByText('70,000').waitFor();
    await page.getByRole('link', { name: 'Pylons', exact: true }).waitFor();
  });

  test('clones by keyboard alone', async () => {
    await page.goto(address(`imodels/${source.id}/timeline`));
    await page.getByText('Change 100000').waitFor();
    const press = async (...keys: string[]) => {
      for (const key of keys) await page.keyboard.press(key);
    };
    const focused = async (what: string, test_: string) => {
      for (let n = 0; n < 30; n++) {
        if (await page.evaluate<boolean>(`(() => { const e = document.activeElement; return ${test_}; })()`)) return;
        await press('Tab');
      }
      assert.fail(`the focus does not reach ${what}`);
    };
    await focused('the timeline', "e.dataset.row === '0'");
    await press('ArrowDown', 'PageDown', 'ArrowUp');
    await holds(page, 'Number(document.activeElement.dataset.row) > 1');
    await focused('its button', "(e.getAttribute('aria-label') ?? '').startsWith('Clone to here: changeset')");
    await press('Enter');
    await dialog().waitFor();
    await focused('the name', "e.matches('input') && e.value === 'Pylons (clone)'");
    await page.keyboard.press('End');
    await page.keyboard.type(' by hand');
    await press('Enter');
    await page.getByText('The iModel is ready.').waitFor();
    await focused('Open', "e.textContent === 'Open'");
    await press('Enter');
    await heading('Pylons (clone) by hand').waitFor();
    // Escape closes a dialogue, and the focus returns to what opened it.
    await focused('Clone', "e.textContent === 'Clone'");
    await press('Enter');
    await dialog().waitFor();
    await press('Escape');
    await dialog().waitFor({ state: 'detached' });
    await holds(page, "document.activeElement.textContent === 'Clone'");
  });

  test('a clone still opens after its source was deleted', async () => {
    await page.goto(address(`imodels/${source.id}`));
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Delete the iModel' }).click();
    await dialog().getByText('Its clones stay as they are.').waitFor();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await heading('Harbour bridge').waitFor();
    await page.getByRole('link', { name: 'Pylons for the tender', exact: true }).click();
    await page.getByText('An iModel that was deleted, or that you may not see').waitFor();
    await page.getByRole('tab', { name: 'Timeline' }).click();
    await page.getByText('Change 70000').waitFor();
  });

  test('says in words what a user may not do, and what is not there', async () => {
    const olivias = page;
    page = await browser.signedIn(server, 'max');
    try {
      await page.goto(address(`itwins/${iTwinId}`));
      await page.getByRole('link', { name: 'Bridge deck' }).click();
      await page.getByRole('button', { name: 'Clone', exact: true }).click();
      await dialog().getByText('You need the permission to manage iModels').waitFor();
      assert.ok(await dialog().getByRole('button', { name: 'Clone', exact: true }).isDisabled());
      await page.goto(address(`imodels/${randomUUID()}`));
      await page.getByText('There is no such iModel').waitFor();
      await page.goto(address(`itwins/${iTwinId}?tab=usage`));
      await page.getByText('You may not do this').waitFor();
    } finally {
      await page.context().close();
      page = olivias;
    }
  });

  test('says in words that a limit is reached and how long it lasts, and keeps what was entered', async () => {
    const { id } = await makeIModel(await official(server), iTwinId, { name: 'Limited' });
    const console_ = await server.as('olivia', 'offshoot-console');
    for (let n = 0; n <= clones; n++)
      await console_.post(`/imodels/${id}/clone`, { iTwinId, name: `clone ${randomUUID()}` });
    await page.goto(address(`imodels/${id}?clone=head`));
    await dialog().getByRole('button', { name: 'Clone', exact: true }).click();
    await dialog().getByText('Too many requests').waitFor();
    assert.match((await dialog().getByRole('alert').textContent()) ?? '', /Try again in \d+ seconds?\./);
    assert.equal(await dialog().getByLabel('Name').inputValue(), 'Limited (clone)');
  });

  test('forks with history from the same dialogue', async () => {
    const { id } = await makeIModel(await official(server), iTwinId, { name: 'Forked', changesets: 2 });
    await page.goto(address(`imodels/${id}?clone=head`));
    await dialog().getByRole('combobox', { name: 'As' }).click();
    await page.getByRole('option', { name: 'Fork with history' }).click();
    await dialog().getByText('knows what it was forked from').waitFor();
    await examine();
    await dialog().getByRole('button', { name: 'Fork', exact: true }).click();
    await page.getByRole('heading', { name: 'Forking' }).waitFor();
    await page.getByText('The iModel is ready.').waitFor();
  });

  test('shows how a copy into another data center goes, until it can be opened', async () => {
    const { id } = await makeIModel(await official(server), iTwinId, { name: 'Under way' });
    const { db } = server.services.database;
    const under = (state: 'scheduled' | 'successful', done: number) =>
      db
        .updateTable('operation')
        .set({
          state,
          cloned_from_imodel_id: randomUUID(),
          cloned_from_changeset_id: '',
          changesets: 40,
          changesets_done: done / 10,
          bytes: 400_000_000,
          bytes_done: done * 1_000_000,
          finished_at: state === 'successful' ? Date.now() : null,
        })
        .where('imodel_id', '=', id)
        .execute();
    await db.updateTable('imodel').set({ state: 'notInitialized' }).where('id', '=', id).execute();
    await under('scheduled', 100);
    await page.goto(address(`imodels/${id}`));
    await page.getByText('10 of 40 changesets').waitFor();
    await page.getByText('100 MB of 400 MB').waitFor();
    await page.getByRole('button', { name: 'Cancel the creation' }).waitFor();
    await examine();
    await under('scheduled', 300);
    await page.getByText('30 of 40 changesets').waitFor();
    await db.updateTable('imodel').set({ state: 'initialized' }).where('id', '=', id).execute();
    await under('successful', 400);
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await heading('Under way').waitFor();
  });

  test('says that the server is gone, and goes on when it is back', async () => {
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Bridge deck', exact: true }).waitFor();
    await page.context().setOffline(true);
    await page.getByRole('button', { name: 'New iModel' }).click();
    await dialog().getByLabel('Name').fill('While away');
    await dialog().getByRole('button', { name: 'Create an empty iModel' }).click();
    await dialog().getByText('The server does not answer').waitFor();
    await examine();
    await page.context().setOffline(false);
    await dialog().getByRole('button', { name: 'Create an empty iModel' }).click();
    await heading('While away').waitFor();
  });

  test('a failed creation says why, and can be removed', async () => {
    const { id } = await makeIModel(await official(server), iTwinId, { name: 'Broken' });
    const { db } = server.services.database;
    await db.updateTable('imodel').set({ state: 'notInitialized', failed_at: 1 }).where('id', '=', id).execute();
    await db
      .updateTable('operation')
      .set({ state: 'failed', failure_reason: 'The file is not an iModel.', finished_at: 1 })
      .where('imodel_id', '=', id)
      .execute();
    await page.goto(address(`imodels/${id}`));
    await page.getByText('The iModel could not be created.').waitFor();
    await page.getByText('The file is not an iModel.').waitFor();
    await page.getByRole('button', { name: 'Remove it' }).click();
    await heading('Harbour bridge').waitFor();
  });

  test('fits into a narrow window, and speaks German', async () => {
    const olivias = page;
    // High enough that no card is out of view: browsers do not compute the colors of those.
    page = await browser.signedIn(server, 'olivia', { viewport: { width: 360, height: 2400 }, locale: 'de-DE' });
    try {
      for (const place of ['', `itwins/${iTwinId}`]) {
        await page.goto(address(place));
        await page.locator('.card').first().waitFor();
        assert.equal(await page.evaluate('document.documentElement.lang'), 'de');
        assert.ok(await page.evaluate<boolean>('document.documentElement.scrollWidth <= innerWidth'), place);
      }
    } finally {
      await page.context().close();
      page = olivias;
    }
  });

  test('a new tab is signed in without a question; signing out ends the session', async () => {
    const tab = await page.context().newPage();
    await tab.goto(address(`itwins/${iTwinId}`));
    await tab.getByRole('heading', { level: 1, name: 'Harbour bridge' }).waitFor();
    await tab.getByRole('button', { name: /^Account of/ }).click();
    await tab.getByRole('menuitem', { name: 'Sign out' }).click();
    await tab.locator('form button').first().click();
    await tab.waitForURL(address(''));
    await tab.getByRole('button', { name: 'Sign in' }).waitFor();
    await tab.close();
  });

  // Whole pages are examined in pages.test.ts.
  test('no dialogue and no empty page has a serious accessibility fault, in the light and the dark theme', () => {
    assert.deepEqual(inaccessible, []);
  });

  test('no page met an error, broke its policy or asked another host', () => {
    assert.deepEqual(browser.faults, []);
  });
});
