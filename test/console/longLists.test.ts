import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import type { Page } from 'playwright-core';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official } from '../support/clients.ts';
import { accessibilityFaults, addChangesets, ConsoleBrowser, ConsoleServer, holds } from '../support/console.ts';
import { loadConfig } from '../../apps/server/src/config.ts';
import type { TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

const count = 10_000;
const changesets = 100_000;
/** Longest time for a list to be scrolled to its end, milliseconds: tests run side by side. */
const scrolledMs = 180_000;

const unlimited = { general: [{ requests: 1_000_000, seconds: 60 }], operations: {} };
const tiers = { ...loadConfig({}, { env: {} }).tiers, Unlimited: unlimited, Enterprise: unlimited };

/** Adds copies of an iModel to its iTwin, so that there are 10,000. */
async function addIModels({ services }: TestServer, iModelId: string): Promise<void> {
  await sql`insert into imodel (id, itwin_id, name, name_order, search_text, containers_enabled, state, baseline_id, head_index,
      head_changeset_id, creator_id, created_at, clock, next_briefcase_id, inherited_index, lineage_id, source_id, source_kind,
      source_index, source_changeset_id)
    with recursive n (i) as (select 2 union all select i + 1 from n where i < ${count})
    select substr(id, 1, 23) || '-' || substr(cast(1000000000000 + i as text), 2), itwin_id, printf('Model %05d', i),
      printf('model %05d', i), printf('model %05d', i), containers_enabled, state, baseline_id, 0, '', creator_id,
      created_at + i, clock, next_briefcase_id, 0, id, id, 'clone', 0, '' from n, imodel where id = ${iModelId}`.execute(
    services.database.db,
  );
}

describe('Long lists in the console', { skip: chromium === undefined && 'there is no Chromium here' }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let iTwinId: string;
  let iModelId: string;
  const address = (place: string): string => `${server.origin}/console/${place}`;
  const isShown = (name: string): Promise<boolean> =>
    page
      .getByRole('link', { name, exact: true })
      .isVisible()
      .catch(() => false);
  /** Scrolls to the end as often as it moves away. @returns the largest number of entries that existed at once */
  const scrollToEnd = async (entries: string, scroll: string): Promise<number> => {
    let most = 0;
    await until(
      'the end of the list',
      async () => {
        await page.evaluate(scroll);
        most = Math.max(most, await page.locator(entries).count());
        return (await isShown(`Model ${count}`)) || undefined;
      },
      scrolledMs,
    );
    return most;
  };

  before(async () => {
    site = await ConsoleServer.start({ tiers });
    ({ server } = site);
    iTwinId = await server.iTwin();
    iModelId = (await makeIModel(await official(server), iTwinId, { name: 'Model 00001', changesets: 1 })).id;
    await addIModels(server, iModelId);
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia');
    page.setDefaultTimeout(60_000);
  });
  after(async () => {
    await browser?.close();
    await site.close();
  });

  test('10,000 iModels are scrolled as cards to the last one, and only those in view exist', async () => {
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Model 00001', exact: true }).waitFor();
    const most = await scrollToEnd('.card', 'scrollTo(0, document.documentElement.scrollHeight)');
    assert.ok(most < 100, `${most} cards exist`);
    const last = page.getByRole('listitem').filter({ hasText: `Model ${count}` });
    assert.equal(await last.getAttribute('aria-posinset'), String(count));
    assert.equal(await last.getAttribute('aria-setsize'), String(count));
    await page.evaluate('scrollTo(0, document.documentElement.scrollHeight / 2)');
    await page
      .getByRole('link', { name: /^Model 050\d\d$/ })
      .first()
      .waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
  });

  test('the next page is read also when the browser reports the end of the list late', async () => {
    const late = await page.context().newPage();
    // As on a busy machine: the entry of a frame in which the end was out of view comes together with the newest one.
    await late.addInitScript(`IntersectionObserver = class extends IntersectionObserver {
      constructor(callback, options) {
        super((entries, observer) => callback([{ isIntersecting: false, target: entries[0].target }, ...entries], observer), options);
      }
    };`);
    await late.goto(address(`itwins/${iTwinId}`));
    await late.getByRole('link', { name: 'Model 00001', exact: true }).waitFor();
    await holds(
      late,
      `(scrollTo(0, document.documentElement.scrollHeight), document.documentElement.scrollHeight > 60_000)`,
    );
    await late.close();
  });

  test('the card with the focus keeps it while the list is scrolled, and Tab goes on from there', async () => {
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Model 00002', exact: true }).focus();
    // The list grows by a page each time its end comes near, so one step may not lead that far.
    await until(
      'the hundredth card',
      async () => {
        await page.evaluate('scrollTo(0, 8000)');
        return (await page.getByRole('link', { name: 'Model 00100', exact: true }).isVisible()) ? true : undefined;
      },
      60_000,
    );
    assert.equal(await page.evaluate('document.activeElement.textContent'), 'Model 00002');
    const focused = 'document.activeElement.textContent';
    await page.keyboard.press('Tab');
    await holds(page, `${focused} !== 'Model 00002'`);
    for (let n = 0; n < 60 && (await page.evaluate(focused)) !== 'Model 00016'; n++) await page.keyboard.press('Tab');
    assert.equal(await page.evaluate(focused), 'Model 00016');
  });

  test('10,000 iModels are scrolled as a table to the last one, and only the rows in view exist', async () => {
    await page.goto(address(`itwins/${iTwinId}?as=table`));
    await page.getByRole('link', { name: 'Model 00001', exact: true }).waitFor();
    const most = await scrollToEnd(
      '[role=row]',
      "(() => { const e = document.querySelector('.imodel-table'); e.scrollTop = e.scrollHeight; })()",
    );
    assert.ok(most < 60, `${most} rows exist`);
    const last = page.getByRole('row').filter({ hasText: `Model ${count}` });
    assert.equal(await last.getAttribute('aria-rowindex'), String(count + 1));
    assert.equal(await page.getByRole('table').getAttribute('aria-rowcount'), String(count + 1));
    assert.deepEqual(await accessibilityFaults(page), []);
  });

  test('a page that cannot be read says so, and is read on request', async () => {
    await page.goto(address(`itwins/${iTwinId}`));
    await page.getByRole('link', { name: 'Model 00001', exact: true }).waitFor();
    await page.route(/continuationToken/, (route) => route.fulfill({ status: 403, body: '{}' }));
    // A page that was under way may arrive, which moves the end.
    await holds(
      page,
      "(scrollTo(0, document.documentElement.scrollHeight), document.querySelector('[role=alert]') !== null)",
    );
    await page.unroute(/continuationToken/);
    await page.getByRole('button', { name: 'Show more' }).click();
    await page.getByRole('alert').waitFor({ state: 'detached' });
  });

  test('100,000 changesets are scrolled from the newest to the baseline, and only the rows in view exist', async () => {
    await addChangesets(server, iModelId, changesets);
    await page.goto(address(`imodels/${iModelId}/timeline`));
    await page.getByText('Change 100000', { exact: true }).waitFor();
    const at = (share: number) =>
      page.evaluate(
        `(() => { const e = document.querySelector('.timeline-scroller'); e.scrollTop = e.scrollHeight * ${share}; })()`,
      );
    for (const [share, shown] of [
      [0.25, /^Change 7499\d$/],
      [0.5, /^Change 4999\d$/],
      [0.75, /^Change 2499\d$/],
      [1, 'Baseline'],
    ] as const) {
      await at(share);
      await page.getByRole('row').getByText(shown).first().waitFor();
      assert.ok((await page.getByRole('row').count()) < 60);
    }
  });

  test('no page met an error, broke its policy or asked another host', () => {
    assert.deepEqual(browser.faults, []);
  });
});
