import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { sql } from 'kysely';
import { chromium } from '../support/chromium.ts';
import { makeIModel, official } from '../support/clients.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer } from '../support/console.ts';

const skip = chromium === undefined ? 'there is no Chromium' : false;

describe('The family tree in the console', { skip }, () => {
  let site: ConsoleServer;
  let browser: ConsoleBrowser;
  before(async () => {
    site = await ConsoleServer.start();
    browser = await ConsoleBrowser.launch(site.server.origin);
  });
  after(async () => {
    await browser.close();
    await site.close();
  });

  test('shows where each iModel left its source, and follows the keyboard through a thousand', async () => {
    const { server } = site;
    const olivia = await official(server);
    const api = await server.as('olivia');
    const iTwinId = await server.iTwin();
    const source = await makeIModel(olivia, iTwinId, { changesets: 3, name: 'Bridge' });
    await api.post(`/imodels/${source.id}/namedversions`, { name: 'Concept', changesetId: source.changesets[0]?.id });
    const clone = async (of: string, name: string, changesetIndex: number): Promise<string> => {
      const answer = await api.post(`/imodels/${of}/clone`, { iTwinId, name, changesetIndex });
      assert.equal(answer.status, 202, JSON.stringify(answer.body));
      return (answer.headers.get('location') ?? '').slice(-36);
    };
    const middle = await clone(source.id, 'Draft', 2);
    const final = await clone(middle, 'Final', 1);
    assert.equal((await api.delete(`/imodels/${middle}`)).status, 204);
    await sql`insert into imodel (id, itwin_id, name, name_order, search_text, containers_enabled, state, baseline_id, head_index,
        head_changeset_id, creator_id, created_at, clock, next_briefcase_id, inherited_index, lineage_id, source_id, source_kind,
        source_index, source_changeset_id)
      with recursive n (i) as (select 1 union all select i + 1 from n where i < 990)
      select substr(id, 1, 23) || '-' || substr(cast(1000000000000 + i as text), 2), itwin_id, 'Copy ' || i, 'copy ' || i, 'copy',
        containers_enabled, state, baseline_id, 0, '', creator_id, created_at + 1000 + i, clock, next_briefcase_id, 0, lineage_id,
        ${source.id}, 'clone', 0, '' from n, imodel where id = ${final}`.execute(server.services.database.db);

    const page = await browser.signedIn(server, 'olivia');
    await page.goto(`${server.origin}/console/imodels/${final}/family`);
    const tree = page.locator('[role=tree]');
    const row = (text: string) => page.locator('[role=treeitem]', { hasText: text }).first();
    await row('This iModel').waitFor();
    await row('Deleted iModel').getByText('Cloned at changeset 2 after “Concept”').waitFor();
    assert.match((await row('This iModel').textContent()) ?? '', /Final.*Cloned at changeset 1/);
    assert.equal(await row('This iModel').getAttribute('aria-level'), '3');
    assert.equal(await row('Copy 1').getAttribute('aria-setsize'), '991');
    // Rows outside of the window do not exist.
    assert.ok((await page.locator('[role=treeitem]').count()) < 60);

    const active = async (): Promise<string> =>
      (await page.locator(`[id="${await tree.getAttribute('aria-activedescendant')}"]`).textContent()) ?? '';
    await tree.focus();
    await page.keyboard.press('End');
    await row('Copy 990').waitFor();
    assert.match(await active(), /Copy 990/);
    await page.keyboard.press('Home');
    await row('Bridge').waitFor();
    assert.match(await active(), /^Bridge/);
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('ArrowLeft');
    await row('Final').waitFor({ state: 'detached' });
    await page.keyboard.press('ArrowDown');
    await page.keyboard.press('Enter');
    await page.waitForURL((url) => !url.pathname.includes(final));
    await row('This iModel').waitFor();
    assert.match((await row('This iModel').textContent()) ?? '', /Copy 1/);
    assert.deepEqual(await accessibilityFaults(page), []);
    assert.deepEqual(browser.faults, []);
  });
});
