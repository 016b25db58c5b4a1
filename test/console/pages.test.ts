import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { chromium } from '../support/chromium.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import { consolePages, fillConsole, type ConsolePage, type Shown } from '../support/consolePages.ts';
import { focusFaults, motionFaults, sidewaysFaults } from '../support/pageChecks.ts';
import { until } from '../support/until.ts';

const desk = { width: 1280, height: 900 };
/** Longest time for a page to follow the width of its window on a machine with much other work, milliseconds. */
const followMs = 20_000;
const phone = { width: 390, height: 844 };

describe('Every page of the console', { skip: chromium === undefined && 'there is no Chromium here' }, () => {
  let site: ConsoleServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let shown: Shown;
  /** The page of each title. */
  const titles = new Map<string, string>();

  before(async () => {
    site = await ConsoleServer.start();
    shown = await fillConsole(site.server);
    browser = await ConsoleBrowser.launch(site.server.origin);
    page = await browser.signedIn(site.server, 'olivia', { viewport: desk });
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  const open = async ({ place, ready }: ConsolePage): Promise<void> => {
    await page.setViewportSize(desk);
    await page.goto(`${site.server.origin}/console/${place(shown)}`);
    await ready(page);
  };
  /** What holds for the page that is shown, at the width of a desk and of a phone. */
  const examine = async (tab: Page, name: string): Promise<void> => {
    const title = await tab.title();
    assert.equal(titles.get(title) ?? name, name, `the title "${title}" is that of another page`);
    titles.set(title, name);
    assert.equal(await tab.getByRole('heading', { level: 1 }).count(), 1, 'one heading of the first level');
    assert.deepEqual(await motionFaults(tab), []);
    assert.deepEqual(await focusFaults(tab), []);
    assert.deepEqual(await accessibilityFaults(tab), []);
    await tab.setViewportSize(phone);
    // Lists follow the width of the window a moment later.
    let sideways: string[] = [];
    await until(
      'nothing outside of the window',
      async () => ((sideways = await sidewaysFaults(tab)).length === 0 ? true : undefined),
      followMs,
    ).catch(() => undefined);
    assert.deepEqual(sideways, []);
  };

  test('is in the list of these tests', async () => {
    await page.getByRole('link', { name: 'Harbour bridge' }).waitFor();
    const paths = await page.evaluate<string[]>('Object.keys(__TSR_ROUTER__.routesByPath)');
    const routes = new Set(paths.map((path) => (path === '/' ? path : path.replace(/\/$/, ''))));
    assert.deepEqual(
      [...new Set(consolePages.flatMap(({ route }) => route ?? []))].sort(),
      [...routes].sort(),
      'the pages of test/support/consolePages.ts are those of the router',
    );
    await page.goto(`${site.server.origin}/console/itwins/${shown.iTwinId}`);
    await page.getByRole('tab').first().waitFor();
    assert.deepEqual(
      [...new Set(consolePages.flatMap(({ tab }) => tab ?? []))],
      await page.getByRole('tab').allTextContents(),
    );
  });

  for (const each of consolePages)
    test(`${each.name} can be read, and used by keyboard and on a phone`, async () => {
      await open(each);
      await examine(page, [each.route ?? each.name, each.tab].join(' '));
    });

  test('the page to sign in can be read, and used by keyboard and on a phone', async () => {
    const tab = await browser.open({ viewport: desk });
    await tab.goto(`${site.server.origin}/console/`);
    await tab.locator('.sign-in button').waitFor();
    await examine(tab, 'the page to sign in');
    await tab.context().close();
  });

  test('no page met an error, broke its policy or asked another host', () => {
    assert.deepEqual(browser.faults, []);
  });
});
