import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Page } from 'playwright-core';
import sharp from 'sharp';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { chromium } from '../support/chromium.ts';
import { ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import { difference, pixelsOf, shareOf, type Pixels } from '../support/pixels.ts';
import type { TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

const skip =
  chromium === undefined ? 'there is no Chromium' : isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const script = (name: string): string => fileURLToPath(new URL(`../support/${name}`, import.meta.url));
const run = promisify(execFile);

/** Longest time until something is drawn or pushed on a loaded machine, milliseconds. */
const workMs = 120_000;
const elements = 100;
/** Small, because pixels are drawn in software. */
const viewport = { width: 1000, height: 640 };
/** Far outside of the plant, so that the whole picture changes when it is fitted. */
const row = -30;

const isBlue = (red: number, green: number, blue: number): boolean => blue > red + 40 && blue > green + 20;

describe('The story of an iModel in the console', { skip }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let iTwinId: string;
  let source: string;
  let clone: string;
  /** What the 3D view shows of the source at its first changeset. */
  let atFirst: Pixels;
  const dialog = () => page.getByRole('dialog');
  const heading = (name: string) => page.getByRole('heading', { level: 1, name });
  const idIn = (address: string): string => /\/imodels\/([^/?]+)/.exec(address)?.[1] ?? assert.fail(address);
  const tab = (name: string) => page.getByRole('tab', { name, exact: true }).click();

  const push = async (count: number, at: number): Promise<void> => {
    const token = await server.token('olivia');
    const values = [server.origin, token, iTwinId, source, String(count), String(at)];
    await run(process.execPath, ['--conditions=offshoot-source', script('spheresProcess.ts'), ...values]);
  };
  const createFrom = async (file: string): Promise<void> => {
    await page.getByRole('button', { name: 'New iModel' }).first().click();
    await dialog().locator('input[type=file]').setInputFiles(file);
    await dialog().getByRole('button', { name: 'Create from the file' }).click();
  };
  /** What the 3D view shows, when it shows everything. A point that the server did not draw by itself is drawn on request. */
  const drawn = async (): Promise<Pixels> => {
    const draw = page.getByRole('button', { name: 'Draw it' });
    const canvas = page.locator('canvas[data-state=complete]');
    await draw.or(canvas).first().waitFor();
    if (await draw.isVisible()) await draw.click();
    await canvas.waitFor();
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
    return pixelsOf(page);
  };

  before(async () => {
    site = await ConsoleServer.start({
      checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
      graphics: { enabled: true },
    });
    ({ server } = site);
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia', { viewport });
    page.setDefaultTimeout(workMs);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
  });

  test('a file that is not an iModel is refused with the reason, and can be removed', async () => {
    await page.getByRole('button', { name: 'New iTwin' }).first().click();
    await dialog().getByLabel('Name').fill('Water works');
    await dialog().getByRole('button', { name: 'Create' }).click();
    await heading('Water works').waitFor();
    iTwinId = page.url().split('/').at(-1) ?? '';
    const file = path.join(site.folder, 'Holiday.bim');
    writeFileSync(file, 'This is a picture of a beach.'.repeat(1000));
    await createFrom(file);
    await page.getByText('The iModel could not be created.').waitFor();
    await page.getByText('not a SQLite').or(page.getByText('not an iModel')).waitFor();
    await page.getByRole('button', { name: 'Remove it' }).click();
    await heading('Water works').waitFor();
  });

  test('an iModel is created from a file, and its picture appears without a reload', async () => {
    const file = path.join(site.folder, 'Plant.bim');
    await run(process.execPath, [script('plantProcess.ts'), file, String(elements)]);
    await createFrom(file);
    await page.getByText('The iModel is ready.').waitFor();
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await heading('Plant').waitFor();
    source = idIn(page.url());
    await page.evaluate('window.sameDocument = true');
    // The pipes of the plant are steel blue; the picture of an iModel that was not drawn yet is gray.
    await until(
      'the picture of the plant',
      async () => {
        const picture = page.locator('.picture img');
        if ((await picture.count()) === 0) return undefined;
        const bytes = await picture.screenshot().catch(() => undefined);
        if (bytes === undefined) return undefined;
        const data = await sharp(bytes).removeAlpha().raw().toBuffer();
        return shareOf({ data }, isBlue) > 0.005 ? true : undefined;
      },
      workMs,
    );
    assert.equal(await page.evaluate('window.sameDocument'), true);
  });

  test('what iTwin.js pushes grows the timeline without a reload', async () => {
    await tab('Timeline');
    await page.getByText('Baseline').first().waitFor();
    await push(20, row);
    await page.getByText(`row ${row}: 20 vessels`).waitFor();
    await push(3, 2 * row);
    await page.getByText(`row ${2 * row}: 3 vessels`).waitFor();
    assert.equal(await page.evaluate('window.sameDocument'), true);
    assert.equal(await page.getByRole('row').count(), 3);
  });

  test('a clone to a point is watched to its end, and shows in 3D what its source shows at that point', async () => {
    await page.goto(`${server.origin}/console/imodels/${source}/view?at=1`);
    atFirst = await drawn();
    await page.goto(`${server.origin}/console/imodels/${source}/timeline?at=1`);
    await page.getByRole('complementary').getByRole('button', { name: 'Clone to here' }).click();
    await dialog().getByText('The clone will end at changeset 1 of 2.').waitFor();
    await dialog().getByText('Limited to').waitFor();
    await dialog().getByLabel('Name').fill('Option A');
    await dialog().getByRole('button', { name: 'Clone', exact: true }).click();
    await page.getByText('The iModel is ready.').waitFor();
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await heading('Option A').waitFor();
    clone = idIn(page.url());
    await tab('View');
    assert.equal(difference(atFirst, await drawn()), 0);
    await page.goto(`${server.origin}/console/imodels/${source}/view?at=2`);
    assert.ok(difference(atFirst, await drawn()) > 0.01, 'the second changeset does not change the picture');
  });

  test('the family tree shows where the clone left', async () => {
    await page.goto(`${server.origin}/console/imodels/${clone}/family`);
    const own = page.locator('[role=treeitem]', { hasText: 'This iModel' });
    await own.getByText('Cloned at changeset 1').waitFor();
    assert.equal(await own.getAttribute('aria-level'), '2');
    await page.locator('[role=treeitem]', { hasText: 'Plant' }).first().waitFor();
  });

  test('the clone of a deleted iModel still opens in 3D, also in another browser', async () => {
    await page.goto(`${server.origin}/console/imodels/${source}`);
    await page.getByRole('button', { name: 'More actions' }).click();
    await page.getByRole('menuitem', { name: 'Delete the iModel' }).click();
    await dialog().getByRole('button', { name: 'Delete' }).click();
    await heading('Water works').waitFor();
    await server.services.collector.runOnce();
    page = await browser.signedIn(server, 'olivia', { viewport });
    page.setDefaultTimeout(workMs);
    await page.goto(`${server.origin}/console/imodels/${clone}/view`);
    assert.equal(difference(atFirst, await drawn()), 0);
    assert.deepEqual(browser.faults, []);
  });
});
