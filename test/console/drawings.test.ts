import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import type { Api } from '../support/api.ts';
import { chromium } from '../support/chromium.ts';
import { official } from '../support/clients.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import { ended, makeModel } from '../support/graphics.ts';
import { pixelsOf, shareOf } from '../support/pixels.ts';
import { until as untilWithin } from '../support/until.ts';

const skip =
  chromium === undefined ? 'there is no Chromium' : isITwinJsInstalled() ? false : 'iTwin.js is not installed';
/** Longest time for a picture to change, milliseconds: Chromium draws by software, and tests run side by side. */
const changedMs = 60_000;

const until = <T>(what: string, find: () => T | undefined | Promise<T | undefined>): Promise<T> =>
  untilWithin(what, find, changedMs);

describe('Appearance in the view of the console', { skip }, () => {
  let site: ConsoleServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let api: Api;
  let iTwinId: string;

  const create = async (kind: string): Promise<string> => {
    const id = await makeModel(await official(site.server), iTwinId, 'drawingProcess.ts', [kind], kind);
    const { state, error } = await ended(api, id);
    assert.equal(state, 'successful', error?.message);
    return id;
  };
  const open = async (iModelId: string): Promise<void> => {
    await page.goto(`${site.server.origin}/console/imodels/${iModelId}/view`);
    await page.locator('canvas[data-state=complete][data-drawn=true]').waitFor({ timeout: changedMs });
  };
  /** The share of the view that has a color, roughly. */
  const share = async (wanted: readonly [number, number, number], tolerance = 40): Promise<number> =>
    shareOf(await pixelsOf(page), (...rgb) => rgb.every((value, n) => Math.abs(value - (wanted[n] ?? 0)) <= tolerance));
  const appears = (what: string, color: readonly [number, number, number], least: number): Promise<unknown> =>
    until(what, async () => ((await share(color)) > least ? true : undefined));
  const disappears = (what: string, color: readonly [number, number, number]): Promise<unknown> =>
    until(what, async () => ((await share(color)) === 0 ? true : undefined));

  before(async () => {
    site = await ConsoleServer.start({
      checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
      graphics: { enabled: true },
    });
    api = await site.server.as('olivia');
    iTwinId = await site.server.iTwin();
    browser = await ConsoleBrowser.launch(site.server.origin);
    page = await browser.signedIn(site.server, 'olivia');
    page.setDefaultTimeout(changedMs);
  });
  after(async () => {
    await browser?.close();
    await site.close();
  });

  test('a drawing has its fillings and texts, and its subcategories are switched', async () => {
    await open(await create('plan'));
    await appears('the red room', [255, 0, 0], 0.1);
    await appears('the yellow carpet upon it', [255, 255, 0], 0.03);
    await appears('the blue text', [0, 0, 255], 0.002);
    assert.equal(await share([0, 255, 0]), 0, 'what the iModel hides is off at first');
    const red = await share([255, 0, 0]);

    await page.getByText('3 subcategories of Rooms').click();
    await page.getByRole('checkbox', { name: 'Notes' }).uncheck();
    await disappears('the text', [0, 0, 255]);
    assert.ok((await share([255, 0, 0])) > red, 'the room is seen where the text was');
    await page.getByRole('checkbox', { name: 'Drafts' }).check();
    await appears('the green draft', [0, 255, 0], 0.01);
    await page.getByRole('checkbox', { name: 'Rooms (default)' }).uncheck();
    await disappears('the room', [255, 0, 0]);
    await page.getByRole('checkbox', { name: 'Notes' }).check();
    await appears('the text alone', [0, 0, 255], 0.002);
    await page.getByRole('checkbox', { name: 'Rooms', exact: true }).uncheck();
    await disappears('everything with the category', [0, 0, 255]);
    assert.deepEqual(await accessibilityFaults(page), []);
    assert.deepEqual(browser.faults, []);
  });

  test('surfaces have their textures and texts, and their subcategories are switched', async () => {
    const isMagenta = (red: number, green: number, blue: number): boolean => red > 1.5 * green && blue > 1.5 * green;
    const isLime = (red: number, green: number, blue: number): boolean => green > 1.5 * red && green > 1.5 * blue;
    const isOrange = (red: number, green: number, blue: number): boolean => red > 1.2 * green && green > 1.5 * blue;
    const part = async (is: typeof isLime): Promise<number> => shareOf(await pixelsOf(page), is);
    await open(await create('textured'));
    await until('the first color of the textures', async () => ((await part(isMagenta)) > 0.02 ? true : undefined));
    await until('the second color of the textures', async () => ((await part(isLime)) > 0.005 ? true : undefined));
    assert.ok((await part(isOrange)) > 0.02);
    await appears('the blue letters of the sign', [0, 0, 255], 0.001);
    await page.getByText('3 subcategories of Boxes').click();
    await page.getByRole('checkbox', { name: 'Second' }).uncheck();
    await until('no orange box', async () => ((await part(isOrange)) < 0.001 ? true : undefined));
    assert.ok((await part(isLime)) > 0.005);
    await page.getByRole('checkbox', { name: 'Boxes (default)' }).uncheck();
    await until('no textured boxes', async () =>
      (await part(isMagenta)) + (await part(isLime)) < 0.001 ? true : undefined,
    );
    assert.deepEqual(browser.faults, []);
  });
});
