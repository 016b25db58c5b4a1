import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Page } from 'playwright-core';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { pushSample, sampleChangesets } from '../../scripts/sample.ts';
import type { Api } from '../support/api.ts';
import { chromium } from '../support/chromium.ts';
import { official, workFolder } from '../support/clients.ts';
import { ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import type { TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';
import {
  difference,
  drawnShare,
  isViewerBuilt,
  middleOf,
  pictureOf,
  viewInBrowser,
  viewMs,
  type Picture,
} from '../support/viewer.ts';

const missing =
  chromium === undefined ? 'there is no Chromium' : isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const unbuilt = isViewerBuilt ? false : 'the viewer is not built: npm run viewer';
const plantProcess = fileURLToPath(new URL('../support/plantProcess.ts', import.meta.url));
const elements = 200;
/** Views at the same time. */
const atOnce = 20;
const memoryMiB = 1024;

describe('The iTwin viewer', { skip: missing }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let api: Api;
  let iTwinId: string;
  let plant: string;
  let sample: string;

  const derive = async (kind: 'clone' | 'fork', source: string, body: object): Promise<string> => {
    const answer = await api.post(`/imodels/${source}/${kind}`, { iTwinId, ...body });
    assert.equal(answer.status, 202, JSON.stringify(answer.body));
    return (answer.headers.get('location') ?? '').slice(-36);
  };
  const view = async (page: Page, iModelId: string, at?: number): Promise<Picture> => {
    await page.goto(`${server.origin}/viewer/?iModel=${iModelId}${at === undefined ? '' : `&at=${at}`}`);
    return pictureOf(page);
  };

  before(async () => {
    site = await ConsoleServer.start({
      checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
      graphics: { enabled: false },
      viewer: { enabled: true, memoryMiB },
    });
    ({ server } = site);
    api = await server.as('olivia');
    iTwinId = await server.iTwin();
    const work = workFolder();
    try {
      const filePath = path.join(work.path, 'plant.bim');
      await promisify(execFile)(process.execPath, [plantProcess, filePath, String(elements)]);
      const { client, authorization } = await official(server);
      const iModelProperties = { iTwinId, name: 'Plant', filePath };
      plant = (await client.iModels.createFromBaseline({ authorization, iModelProperties })).id;
    } finally {
      work.remove();
    }
    sample = await pushSample(await official(server), iTwinId, 'Sample');
    browser = await ConsoleBrowser.launch(server.origin);
  });
  after(async () => {
    await browser?.close();
    await site.close();
  });

  describe('as a page of the server', { skip: unbuilt }, () => {
    let page: Page;
    let source: Picture;

    before(async () => {
      page = await browser.signedIn(server, 'olivia');
    });

    test('opens from the console, in a tab of its own, and signs in without a question', async () => {
      await page.goto(`${server.origin}/console/imodels/${plant}`);
      const link = page.getByRole('link', { name: 'Open in iTwin viewer' });
      const [tab] = await Promise.all([page.context().waitForEvent('page'), link.click()]);
      await tab.waitForURL(`${server.origin}/viewer/?iModel=${plant}`);
      source = await pictureOf(tab);
      assert.ok(drawnShare(source) > 0.02, 'nothing is drawn');
      await tab.close();
    });

    test('shows a clone made a moment before with the pixels of its source', async () => {
      const clone = await derive('clone', plant, { name: 'Option A' });
      assert.equal(difference(source, await view(page, clone)), 0);
    });

    test('shows a clone at an earlier point and a fork as the source was at their changesets', async () => {
      const [clone, fork] = [
        await derive('clone', sample, { name: 'Earlier', changesetIndex: 1 }),
        await derive('fork', sample, { name: 'Fork' }),
      ];
      const head = await view(page, sample);
      const earlier = await view(page, sample, 1);
      assert.ok(difference(head, earlier) > 0.0005, 'the changesets of the sample change what is drawn');
      assert.equal(difference(earlier, await view(page, clone)), 0);
      assert.equal(difference(head, await view(page, fork)), 0);
    });

    test('lists the models, and the properties of the element that is clicked', async () => {
      const shown = await view(page, plant);
      for (const model of ['Equipment', 'Piping', 'Structure'])
        await page.getByText(model, { exact: true }).waitFor({ timeout: viewMs });
      const place = middleOf(shown);
      await page.locator('canvas').first().click({ position: place, force: true });
      await page.getByText('Properties', { exact: true }).waitFor({ timeout: viewMs });
      const grid = page.locator('.property-grid-widget');
      for (const text of ['Category', 'Model', /^element \d+$/])
        await grid.getByText(text).first().waitFor({ timeout: viewMs });
    });

    test('shows nothing to somebody who may not see the iModel', async () => {
      const stranger = await browser.signedIn(server, 'max');
      await stranger.goto(`${server.origin}/viewer/?iModel=${plant}`);
      const alert = stranger.getByRole('alert');
      await alert.waitFor();
      assert.match((await alert.textContent()) ?? '', /does not exist, or you may not see it/);
      assert.equal(await stranger.locator('canvas').count(), 0);
      await stranger.context().close();
    });

    test('goes on when the back end was killed', async () => {
      const before = await view(page, plant);
      for (const pid of backEnds()) process.kill(pid, 'SIGKILL');
      await until('the end of the back end', () => (backEnds().length === 0 ? true : undefined));
      await page.getByText('Structure', { exact: true }).waitFor({ timeout: viewMs });
      assert.equal(difference(before, await view(page, plant)), 0);
    });

    test('requests nothing from other hosts, and breaks no rule but for the web font', () => {
      // When a page is left while the property grid of the package is still reading, it asks for favorites that have ended.
      const ofPackages = ['https://fonts.googleapis.com/', 'Favorite Properties must be first initialized'];
      assert.deepEqual(
        browser.faults.filter((fault) => !ofPackages.some((text) => fault.includes(text))),
        [],
      );
    });
  });

  test(`${atOnce} views at once are answered within the memory limit`, { timeout: 2 * viewMs }, async () => {
    const clones = await Promise.all(
      Array.from({ length: atOnce / 2 }, (_, n) => derive('clone', plant, { name: `View ${n}` })),
    );
    const token = await server.token('olivia');
    const iModels = [
      ...clones.map((iModelId) => ({ iTwinId, iModelId })),
      ...clones.map((_, n) => ({ iTwinId, iModelId: sample, changesetId: sampleChangesets()[n % 2]?.id ?? '' })),
    ];
    for (const index of [1, 2]) await api.put(`/imodels/${sample}/changesets/${index}/checkpoint`, {});
    const found = await viewInBrowser(browser, { server: server.origin, token, iModels });
    assert.equal(found.length, atOnce);
    for (const { fault, tileBytes = 0 } of found) {
      assert.equal(fault, undefined);
      assert.ok(tileBytes > 100);
    }
    for (const pid of backEnds()) assert.ok(residentMiB(pid) < memoryMiB, `${residentMiB(pid)} MiB`);
  });

  test('core-frontend without a permission opens nothing', async () => {
    const token = await server.token('max');
    const [found] = await viewInBrowser(browser, {
      server: server.origin,
      token,
      iModels: [{ iTwinId, iModelId: plant, changesetId: '' }],
    });
    assert.notEqual(found?.fault, undefined);
    assert.equal(found?.elements, undefined);
  });
});

/** Processes of the back end below this one. */
function backEnds(): number[] {
  const statusOf = (pid: string): string[] => {
    try {
      return readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/^.*\) /, '')
        .split(' ');
    } catch {
      return [];
    }
  };
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name) && statusOf(name)[1] === String(process.pid) && statusOf(name)[0] !== 'Z')
    .filter((pid) => readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('/viewer/'))
    .map(Number);
}

function residentMiB(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
}
