import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import type { Page, Request, Route } from 'playwright-core';
import { sampleBaseline } from '../../scripts/sample.ts';
import type { Api } from '../support/api.ts';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official, type MadeIModel } from '../support/clients.ts';
import { ConsoleBrowser, ConsoleServer, holds } from '../support/console.ts';
import type { TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

/** Longest time for a page to follow on a machine with much other work, milliseconds. */
const shownMs = 60_000;
/** Most presses of Tab until an element has the focus. */
const mostTabs = 60;

const skip = chromium === undefined && 'there is no Chromium here';

/** Holds requests back until the test lets them go. */
class Gate {
  readonly held: Route[] = [];
  #open = false;

  readonly hold = async (route: Route): Promise<void> => {
    if (this.#open) await route.continue();
    else this.held.push(route);
  };

  async open(): Promise<void> {
    this.#open = true;
    await Promise.all(this.held.splice(0).map((route) => route.continue().catch(() => undefined)));
  }
}

const isUpload = (url: URL): boolean => url.searchParams.has('sig') || url.pathname.includes('/blobs/');

describe('Forms of the console', { skip }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let api: Api;
  let iTwinId: string;
  let source: MadeIModel;
  let file: string;
  const address = (place: string): string => `${server.origin}/console/${place}`;
  const dialog = () => page.getByRole('dialog');
  const heading = (name: string) => page.getByRole('heading', { level: 1, name, exact: true });
  const iModelsNamed = async (name: string, ofITwin = iTwinId): Promise<string[]> => {
    const { body } = await api.get(`/imodels?iTwinId=${ofITwin}&name=${encodeURIComponent(name)}`);
    return (body as { iModels: { id: string }[] }).iModels.map(({ id }) => id);
  };
  /** Counts the requests that a page sends. */
  const count = (wanted: (request: Request) => boolean): (() => number) => {
    let found = 0;
    page.on('request', (request) => {
      if (wanted(request)) found++;
    });
    return () => found;
  };
  const tabTo = async (what: string, wanted: string): Promise<void> => {
    for (let n = 0; n < mostTabs; n++) {
      if (await page.evaluate<boolean>(`(() => { const e = document.activeElement; return ${wanted}; })()`)) return;
      await page.keyboard.press('Tab');
    }
    assert.fail(`the focus does not reach ${what}`);
  };
  const startUpload = async (name: string): Promise<Gate> => {
    const gate = new Gate();
    await page.route((url) => isUpload(url), gate.hold);
    await page.goto(address(''));
    await page.getByRole('link', { name: 'Harbour', exact: true }).click();
    await page.getByRole('button', { name: 'New iModel' }).first().click();
    await dialog().locator('input[type=file]').setInputFiles(file);
    await dialog().getByLabel('Name').fill(name);
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
    await until('the upload', () => (gate.held.length > 0 ? true : undefined), shownMs);
    return gate;
  };

  before(async () => {
    site = await ConsoleServer.start();
    ({ server } = site);
    api = await server.as('olivia');
    iTwinId = await server.iTwin('olivia', 'Harbour');
    source = await makeIModel(await official(server), iTwinId, { name: 'Deck', changesets: 2 });
    file = path.join(site.folder, 'Bridge deck.bim');
    writeFileSync(file, sampleBaseline());
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia');
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });
  /** Every test has a page of its own in the same session. */
  const fresh = async (): Promise<void> => {
    const context = page.context();
    await page.close({ runBeforeUnload: false });
    page = await context.newPage();
    page.setDefaultTimeout(shownMs);
  };

  test('an iModel is created from a file by keyboard alone, and its progress is told to screen readers', async () => {
    await fresh();
    const gate = new Gate();
    await page.route((url) => isUpload(url), gate.hold);
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Deck', exact: true }).waitFor();
    await tabTo('New iModel', "e.textContent === 'New iModel'");
    await page.keyboard.press('Enter');
    await dialog().waitFor();
    // A dialogue takes the focus when it has opened, which may be after the first press.
    const chooser = await until(
      'the choice of a file',
      async () => {
        await tabTo('the file', "e.matches('[role=dialog] input[type=file]')");
        const choosing = page.waitForEvent('filechooser', { timeout: 3000 }).catch(() => undefined);
        await page.keyboard.press('Enter');
        return choosing;
      },
      shownMs,
    );
    await chooser.setFiles(file);
    await holds(page, "document.querySelector('[role=dialog] input').value === 'Bridge deck'");
    await tabTo('the name', "e.matches('[role=dialog] input') && e.value === 'Bridge deck'");
    await page.keyboard.press('End');
    await page.keyboard.type(' by hand');
    await tabTo('Create', "e.textContent === 'Create from the file'");
    await page.keyboard.press('Enter');
    const bar = dialog().getByRole('progressbar', { name: 'Uploading' });
    await bar.waitFor();
    assert.match((await bar.getAttribute('aria-valuenow')) ?? '', /^\d+$/);
    await dialog()
      .getByRole('status')
      .filter({ hasText: /^Uploading: \d+%$/ })
      .waitFor({ state: 'attached' });
    await gate.open();
    await page.getByRole('status').getByText('The iModel is ready.').waitFor();
    await holds(page, "document.activeElement.textContent === 'Open'");
    await page.keyboard.press('Enter');
    await heading('Bridge deck by hand').waitFor();
  });

  test('an iModel is cloned into another iTwin as a fork by keyboard alone', async () => {
    await fresh();
    const target = await server.iTwin('olivia', 'Airport');
    await page.goto(address(`imodels/${source.id}`));
    await heading('Deck').waitFor();
    await tabTo('Clone', "e.textContent === 'Clone'");
    await page.keyboard.press('Enter');
    await dialog().getByText('The clone will contain all 2 changesets').waitFor();
    await tabTo('the target', "e.id === 'clone-target'");
    const gate = new Gate();
    const isSearch = (url: URL): boolean => url.searchParams.get('$search') !== null;
    await page.route(isSearch, gate.hold);
    await page.keyboard.press('Control+A');
    await page.keyboard.type('Air');
    await page.getByRole('option', { name: 'Airport' }).waitFor();
    await page.keyboard.press('ArrowDown');
    const isActive =
      "document.getElementById(document.activeElement.getAttribute('aria-activedescendant'))?.textContent";
    await holds(page, `${isActive} === 'Airport'`);
    // What the server answers later must not move the focus to another iTwin.
    const answered = page.waitForResponse((response) => isSearch(new URL(response.url())));
    await gate.open();
    await (await answered).finished();
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
    await page.keyboard.press('Enter');
    await holds(page, "document.activeElement.value === 'Airport'");
    await tabTo('the kind', "e.matches('[role=combobox]') && e.id !== 'clone-target'");
    await page.keyboard.press('Enter');
    await page.getByRole('option', { name: 'Fork with history' }).waitFor();
    // The list takes the focus after it has opened.
    await holds(page, "document.activeElement.matches('[role=option]')");
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowDown');
    await holds(page, "document.activeElement.textContent.startsWith('Fork with history')");
    await page.keyboard.press('Enter');
    await tabTo('Create the fork', "e.matches('[role=dialog] button[type=submit]')");
    await page.keyboard.press('Enter');
    await page.getByRole('link', { name: 'Open', exact: true }).waitFor();
    const [made] = await iModelsNamed('Deck (clone)', target);
    const { body } = await api.get(`/imodels/${made}/operations/create`);
    const { forkedFrom } = (body as { createOperation: { forkedFrom: { iModelId: string } | null } }).createOperation;
    assert.equal(forkedFrom?.iModelId, source.id);
  });

  test('a double click sends one request', async () => {
    await fresh();
    const clones = count((request) => request.method() === 'POST' && request.url().endsWith('/clone'));
    const shares = count((request) => request.method() === 'POST' && request.url().endsWith('/shares'));
    const twice = () =>
      page.evaluate(
        "(() => { const button = document.querySelector('[role=dialog] button[type=submit]'); button.click(); button.click(); })()",
      );
    await page.goto(address(`imodels/${source.id}?clone=head`));
    await dialog().getByLabel('Name').fill('Cloned once');
    await dialog().locator('button[type=submit]:enabled').waitFor();
    await twice();
    await page.getByText('The iModel is ready.').waitFor();
    assert.equal(clones(), 1);
    await page.goto(address(`imodels/${source.id}/shares`));
    await page.getByRole('button', { name: 'New share' }).click();
    await dialog().getByLabel('Name').fill('Shared once');
    await dialog().locator('button[type=submit]:enabled').waitFor();
    await twice();
    await dialog().getByLabel('Header for requests to the API').waitFor();
    assert.equal(shares(), 1);
  });

  test('a clone whose answer comes after somebody left the page does not lead back', async () => {
    await fresh();
    const gate = new Gate();
    await page.route(/\/clone$/, gate.hold);
    await page.goto(address(`imodels/${source.id}`));
    await page.getByRole('button', { name: 'Clone', exact: true }).click();
    await dialog().getByLabel('Name').fill('Cloned behind');
    await dialog().locator('button[type=submit]:enabled').click();
    await until('the request', () => (gate.held.length > 0 ? true : undefined), shownMs);
    await page.goBack();
    await dialog().waitFor({ state: 'detached' });
    const refreshed = page.waitForResponse((response) => response.url().endsWith('/clone'));
    await gate.open();
    await refreshed;
    await until('the clone', async () => (await iModelsNamed('Cloned behind'))[0], shownMs);
    await page.getByRole('tab', { name: 'Timeline' }).click();
    await page.getByText('2 changesets').waitFor();
    assert.match(page.url(), new RegExp(`${source.id}/timeline$`));
  });

  test('leaving during an upload asks first, and ends it without a trace', async () => {
    await fresh();
    const gate = await startUpload('Left');
    const asked: string[] = [];
    let leave = false;
    page.on('dialog', (question) => {
      asked.push(question.type());
      void (leave ? question.accept() : question.dismiss());
    });
    assert.equal((await iModelsNamed('Left')).length, 1);
    // Back, reload, and staying both times.
    await page.evaluate('history.back()');
    await until('the question', () => (asked.includes('confirm') ? true : undefined), shownMs);
    await page.evaluate('setTimeout(() => location.reload())');
    await until('the question', () => (asked.includes('beforeunload') ? true : undefined), shownMs);
    assert.equal(await dialog().getByRole('progressbar').count(), 1);
    leave = true;
    await page.evaluate('history.back()');
    await dialog().waitFor({ state: 'detached' });
    await until('no iModel', async () => ((await iModelsNamed('Left')).length === 0 ? true : undefined), shownMs);
    await gate.open();
  });

  test('an upload is cancelled also before it has begun, and its name is free', async () => {
    await fresh();
    const gate = new Gate();
    await page.route((url) => url.pathname === '/imodels', gate.hold);
    await page.route(isUpload, (route) => assert.fail(`uploads ${route.request().url()}`));
    await page.goto(address(`itwins/${source.iTwinId}?tab=members`));
    await page.getByText('olivia Tester').first().waitFor();
    await page.getByRole('tab', { name: 'iModels' }).click();
    await until('the list', () => (gate.held.length > 0 ? true : undefined), shownMs);
    await gate.held.shift()?.continue();
    await page.getByRole('button', { name: 'New iModel' }).first().click();
    await dialog().locator('input[type=file]').setInputFiles(file);
    await dialog().getByLabel('Name').fill('Cancelled');
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
    await until(
      'the request',
      () => (gate.held.some((each) => each.request().method() === 'POST') ? true : undefined),
      shownMs,
    );
    await dialog().getByRole('button', { name: 'Cancel' }).click();
    await gate.open();
    await dialog().getByRole('button', { name: 'Create from the file' }).waitFor();
    await until('no iModel', async () => ((await iModelsNamed('Cancelled')).length === 0 ? true : undefined), shownMs);
    assert.equal(await dialog().getByRole('alert').count(), 0);
  });

  test('an upload that broke off with the connection is made again under the same name', async () => {
    await fresh();
    let broken = true;
    const removes = (route: Route) => route.request().method() === 'DELETE';
    await page.route(
      (url) => isUpload(url) || /^\/imodels\/[^/]+$/.test(url.pathname),
      (route) => (broken && (removes(route) || route.request().method() === 'PUT') ? route.abort() : route.continue()),
    );
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('button', { name: 'New iModel' }).first().click();
    await dialog().locator('input[type=file]').setInputFiles(file);
    await dialog().getByLabel('Name').fill('Again');
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
    await dialog().getByText('The server does not answer').waitFor();
    broken = false;
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
    await page.getByText('The iModel is ready.').waitFor();
    assert.equal((await iModelsNamed('Again')).length, 1);
  });

  test('a search keeps what is typed while the page follows, and shows the answer to the last', async () => {
    await fresh();
    await page.addInitScript(`
      const replaceState = history.replaceState;
      history.replaceState = function (...all) {
        replaceState.apply(this, all);
        const input = document.querySelector('input[type=search]');
        // The next letter comes between the new address and the page that shows it.
        if (input?.value !== 'de' || !String(all[2]).includes('q=de')) return;
        Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(input, 'dec');
        input.dispatchEvent(new Event('input', { bubbles: true }));
      };
    `);
    const gate = new Gate();
    await page.route(/search=de(?:&|$)/i, gate.hold);
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Deck', exact: true }).waitFor();
    await page.getByRole('searchbox').fill('de');
    await page.waitForURL(/q=dec/);
    assert.equal(await page.getByRole('searchbox').inputValue(), 'dec');
    await gate.open();
    // A space at the end is not taken away while somebody goes on.
    await page.getByRole('searchbox').pressSequentially('k ');
    await page.waitForURL(/q=deck$/);
    await page.getByRole('link', { name: 'Deck', exact: true }).waitFor();
    assert.equal(await page.getByRole('searchbox').inputValue(), 'deck ');
    await page.getByRole('searchbox').fill('nothing of this name');
    await page.getByText('Nothing found').waitFor();
    await page.getByRole('button', { name: 'Clear the search' }).click();
    await page.getByRole('link', { name: 'Deck', exact: true }).waitFor();
  });

  test('a star that is pressed twice ends as it was, whatever the network does', async () => {
    await fresh();
    const gate = new Gate();
    await page.route(
      (url) => url.pathname.startsWith('/imodels/favorites/'),
      (route) => (route.request().method() === 'PUT' ? gate.hold(route) : route.continue()),
    );
    const removals = count((request) => request.method() === 'DELETE');
    await page.goto(address(`imodels/${source.id}`));
    await page.getByRole('button', { name: 'Add Deck to the favorites' }).click();
    await page.getByRole('button', { name: 'Remove Deck from the favorites' }).click();
    await page.getByRole('button', { name: 'Add Deck to the favorites' }).waitFor();
    assert.equal(removals(), 0, 'the second waits for the first');
    const removed = page.waitForResponse((response) => response.request().method() === 'DELETE');
    await gate.open();
    await removed;
    const { body } = await api.get(`/imodels/favorites?iTwinId=${iTwinId}`);
    assert.deepEqual((body as { iModels: unknown[] }).iModels, []);
  });

  for (const first of ['the iModel', 'its creation'] as const)
    test(`a new iModel opens although it was read before it was ready, when ${first} is answered first`, async () => {
      await fresh();
      const [gate, later] = [new Gate(), new Gate()];
      let reads = 0;
      await page.route(
        (url) => url.pathname === `/imodels/${source.id}`,
        async (route) => {
          if (reads++ > 0) return gate.hold(route);
          const response = await route.fetch();
          const { iModel } = (await response.json()) as { iModel: object };
          const answer = { response, json: { iModel: { ...iModel, state: 'notInitialized' } } };
          if (first === 'its creation') await until('the creation', () => (created ? true : undefined), shownMs);
          await route.fulfill(answer);
          await later.open();
        },
      );
      let created = false;
      await page.route(
        (url) => url.pathname === `/imodels/${source.id}/operations/create`,
        (route) => (first === 'its creation' ? route.continue() : later.hold(route)),
      );
      page.on('requestfinished', (request) => {
        created ||= request.url().endsWith('/operations/create');
      });
      await page.goto(address(`imodels/${source.id}/creation`));
      await page.getByRole('link', { name: 'Open', exact: true }).click();
      await until('another read', () => (gate.held.length > 0 ? true : undefined), shownMs);
      await gate.open();
      await page.getByRole('tab', { name: 'Timeline' }).waitFor();
    });

  test('a changeset is named only when it is known which one it is', async () => {
    await fresh();
    const gate = new Gate();
    await page.route(/afterIndex=/, gate.hold);
    await page.goto(address(`imodels/${source.id}/timeline?at=1`));
    await page.getByRole('heading', { name: 'Changeset 1' }).waitFor();
    await page.getByRole('button', { name: 'Make the checkpoint' }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Name this version' }).count(), 0);
    await gate.open();
    await page.getByRole('button', { name: 'Name this version' }).waitFor();
    // The dialogue to clone leaves the rest of the address as it is.
    await page.getByRole('button', { name: 'Clone', exact: true }).click();
    await dialog().getByRole('button', { name: 'Cancel' }).click();
    await dialog().waitFor({ state: 'detached' });
    await page.getByRole('heading', { name: 'Changeset 1' }).waitFor();
  });

  test('no page met an error', () => {
    assert.deepEqual(browser.faults, []);
  });
});
