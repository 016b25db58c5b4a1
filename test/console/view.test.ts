import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Page } from 'playwright-core';
import { isITwinJsInstalled } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { pushSample } from '../../scripts/sample.ts';
import type { Api } from '../support/api.ts';
import { chromium } from '../support/chromium.ts';
import { official, workFolder } from '../support/clients.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer } from '../support/console.ts';
import { difference, pixelsOf, shareOf } from '../support/pixels.ts';
import type { TestServer } from '../support/server.ts';
import { until as untilWithin } from '../support/until.ts';

const skip =
  chromium === undefined ? 'there is no Chromium' : isITwinJsInstalled() ? false : 'iTwin.js is not installed';
const plantProcess = fileURLToPath(new URL('../support/plantProcess.ts', import.meta.url));
const elements = 200;
/** Longest time for a picture to change, milliseconds: Chromium draws by software, and tests run side by side. */
const changedMs = 60_000;

const until = <T>(what: string, find: () => T | undefined | Promise<T | undefined>): Promise<T> =>
  untilWithin(what, find, changedMs);

const isGreen = (red: number, green: number, blue: number): boolean => green > 1.5 * red && green > 1.5 * blue;
const isRed = (red: number, green: number, blue: number): boolean => red > 2 * green && red > 2 * blue;

describe('The 3D view in the console', { skip }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let page: Page;
  let api: Api;
  let iTwinId: string;
  let plant: string;
  let clone: string;

  /** Waits until the canvases show everything. */
  const complete = async (count = 1): Promise<void> => {
    await page
      .locator('canvas[data-state=complete][data-drawn=true]')
      .nth(count - 1)
      .waitFor({ timeout: 60_000 });
    // Two frames: the last chunk is drawn in the next one.
    await page.evaluate('new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))');
  };
  const open = async (iModelId: string, search = '', count = 1): Promise<void> => {
    await page.goto(`${server.origin}/console/imodels/${iModelId}/view${search}`);
    await complete(count);
  };
  const create = async (name: string, ...parameters: string[]): Promise<string> => {
    const work = workFolder();
    try {
      const filePath = path.join(work.path, 'plant.bim');
      await promisify(execFile)(process.execPath, [plantProcess, filePath, ...parameters]);
      const { client, authorization } = await official(server);
      return (await client.iModels.createFromBaseline({ authorization, iModelProperties: { iTwinId, name, filePath } }))
        .id;
    } finally {
      work.remove();
    }
  };
  const drawn = (iModelId: string, index: number): Promise<unknown> =>
    until('the graphics', async () => {
      const { body } = await api.get(`/imodels/${iModelId}/changesets/${index}/graphics`);
      const { state } = (body as { graphics: { state: string } }).graphics;
      assert.notEqual(state, 'failed', JSON.stringify(body));
      return state === 'successful' ? state : undefined;
    });

  before(async () => {
    site = await ConsoleServer.start({
      checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
      graphics: { enabled: true },
    });
    ({ server } = site);
    api = await server.as('olivia');
    iTwinId = await server.iTwin();
    plant = await create('Plant', String(elements));
    await drawn(plant, 0);
    const answer = await api.post(`/imodels/${plant}/clone`, { iTwinId, name: 'Option A' });
    assert.equal(answer.status, 202);
    clone = (answer.headers.get('location') ?? '').slice(-36);
    browser = await ConsoleBrowser.launch(server.origin);
    page = await browser.signedIn(server, 'olivia');
    page.setDefaultTimeout(changedMs);
  });
  after(async () => {
    await browser?.close();
    await site.close();
  });

  test('draws a clone at once, with the pixels of its source', async () => {
    await open(plant);
    const source = await pixelsOf(page);
    assert.ok(shareOf(source, (red, green, blue) => Math.max(red, green, blue) < 225) > 0.02, 'nothing is drawn');
    await open(clone);
    assert.equal(difference(source, await pixelsOf(page)), 0);
    assert.deepEqual(browser.faults, []);
  });

  test('hides and shows a category', async () => {
    await open(plant);
    const all = await pixelsOf(page);
    const slabs = page.getByRole('checkbox', { name: 'Slabs' });
    await slabs.uncheck();
    await until('fewer pixels', async () => (difference(all, await pixelsOf(page)) > 0.01 ? true : undefined));
    await slabs.check();
    await until('the same pixels', async () => (difference(all, await pixelsOf(page)) === 0 ? true : undefined));
  });

  test('tells which element is clicked, shows it in color, and keeps it in the address', async () => {
    await open(plant);
    // Only the slabs remain, so that a place between them is empty and the middle is one.
    const categories = page.getByRole('region', { name: 'Categories' });
    await categories.getByRole('button', { name: 'Hide all' }).click();
    await page.getByRole('checkbox', { name: 'Slabs' }).check();
    await page.getByRole('application').focus();
    await page.keyboard.press('1');
    const before = await pixelsOf(page);
    const box = await page.locator('canvas').boundingBox();
    assert.ok(box !== null);
    await page.mouse.click(box.x + box.width / 2 + 20, box.y + box.height / 2 + 9);
    await page.getByText('Slabs', { exact: true }).first().waitFor();
    const panel = page.getByRole('complementary');
    await panel.getByText('Generic:PhysicalObject').waitFor();
    assert.match(page.url(), /element=0x/);
    const heading = await panel.getByRole('heading').first().textContent();
    assert.match(heading ?? '', /^element \d+00$|^element 0$/);
    const isBlue = (red: number, green: number, blue: number): boolean => blue > 1.3 * red && blue > 1.1 * green;
    assert.ok(shareOf(await pixelsOf(page), isBlue) > shareOf(before, isBlue) + 0.01);
    await page.mouse.click(box.x + 12, box.y + box.height - 12);
    await panel.getByText('Click an element').waitFor();
    assert.doesNotMatch(page.url(), /element=/);
  });

  test('a link leads to the same place and section', async () => {
    await open(plant);
    const first = await pixelsOf(page);
    await page.getByRole('application').focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('+');
    await page.getByRole('button', { name: 'Section' }).click();
    await page.waitForURL(/look=.*section=z_|section=z_.*look=/);
    await until('another picture', async () => (difference(first, await pixelsOf(page)) > 0.02 ? true : undefined));
    const turned = await pixelsOf(page);
    await page.reload();
    await complete();
    assert.ok(difference(turned, await pixelsOf(page)) < 0.002);
  });

  /** Shows the slabs from above: the two cover each other, 23.5 m by 23.5 m at the heights 0 m and 5 m. */
  const openSlabs = async (search = ''): Promise<(x: number, y: number) => Promise<void>> => {
    const [middle, eye, top] = [11.75, 60, 5.3];
    // So little from the south that north is up.
    await open(plant, `?look=${middle}_${middle - 0.005}_${eye}_${middle}_${middle}_${top}${search}`);
    await page.getByRole('region', { name: 'Categories' }).getByRole('button', { name: 'Hide all' }).click();
    await page.getByRole('checkbox', { name: 'Slabs' }).check();
    const box = await page.locator('canvas').boundingBox();
    assert.ok(box !== null);
    // The view has an angle of 40 degrees from its upper to its lower edge.
    const scale = box.height / 2 / ((eye - top) * Math.tan((20 * Math.PI) / 180));
    return (x, y) =>
      page.mouse.click(
        Math.round(box.x + box.width / 2 + (x - middle) * scale),
        Math.round(box.y + box.height / 2 - (y - middle) * scale),
      );
  };

  test('measures the width of a slab that is known', async () => {
    const clickAt = await openSlabs();
    await page.getByRole('button', { name: 'Measure a distance' }).click();
    await clickAt(0.1, 12);
    await clickAt(23.4, 12);
    const text = await page.getByText(/^Distance: /).textContent();
    const distance = Number(/[\d.]+/.exec(text ?? '')?.[0]);
    // A pixel is 6 cm wide.
    assert.ok(Math.abs(distance - 23.3) < 0.15, text ?? '');
  });

  test('a section hides what is on its other side, also from clicks', async () => {
    const heading = page.getByRole('complementary').getByRole('heading').first();
    const clickAt = await openSlabs();
    await clickAt(12, 12);
    await heading.getByText('element 100', { exact: true }).waitFor();
    const below = await openSlabs('&section=z_4_below');
    await below(12, 12);
    await heading.getByText('element 0', { exact: true }).waitFor();
    await page.getByRole('button', { name: 'Other side' }).click();
    await page.waitForURL(/section=z_4_above/);
    await below(12, 12);
    await heading.getByText('element 100', { exact: true }).waitFor();
    // Where the plane leaves nothing, nothing can be clicked.
    const nothing = await openSlabs('&section=z_-1_below');
    await nothing(12, 12);
    await page.getByText('Click an element').waitFor();
  });

  test('is walked through with the keyboard alone, at one height', async () => {
    const lookOf = (): number[] =>
      (new URL(page.url()).searchParams.get('look') ?? '').split('_').filter(Boolean).map(Number);
    await open(plant);
    await page.getByRole('button', { name: 'Walk' }).focus();
    await page.keyboard.press('Enter');
    await page.getByText(/^Walking .* Esc ends/).waitFor();
    // The address follows when the view rests; until then it tells the look from which walking began.
    const begin = await until('a place at the height of eyes', () =>
      Math.abs((lookOf()[2] ?? NaN) - 1.7) < 0.01 ? lookOf() : undefined,
    );
    assert.ok(Math.abs((begin[5] ?? NaN) - (begin[2] ?? NaN)) < 0.01, 'the view is level');
    // A picture is taken after the key: while every frame differs, Chromium takes seconds for one.
    const hold = async (key: string): Promise<void> => {
      const before = await pixelsOf(page);
      await page.keyboard.down(key);
      await page.evaluate(
        'new Promise((done) => { let frames = 6; (function next() { frames-- > 0 ? requestAnimationFrame(next) : done(); })(); })',
      );
      await page.keyboard.up(key);
      await until(`a picture changed by ${key}`, async () =>
        difference(before, await pixelsOf(page)) > 0.02 ? true : undefined,
      );
    };
    await hold('w');
    const walked = await until('another place', () =>
      Math.hypot((lookOf()[0] ?? NaN) - (begin[0] ?? NaN), (lookOf()[1] ?? NaN) - (begin[1] ?? NaN)) > 0.1
        ? lookOf()
        : undefined,
    );
    assert.equal(walked[2], begin[2]);
    await hold('ArrowLeft');
    await until('another direction', () =>
      Math.abs((lookOf()[3] ?? NaN) - (walked[3] ?? NaN)) > 0.05 ? true : undefined,
    );
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Walk', pressed: false }).waitFor();
    await page.getByText(/^Drag to orbit/).waitFor();
    assert.deepEqual(browser.faults, []);
  });

  test('two points side by side follow one camera, and show in color what was added and removed', async () => {
    const sample = await pushSample(await official(server), iTwinId, 'Sample');
    for (const index of [1, 2]) {
      assert.equal((await api.put(`/imodels/${sample}/changesets/${index}/graphics`, {})).status, 202);
      await drawn(sample, index);
    }
    await open(sample, `?at=2&with=${sample}_1`, 2);
    const panel = page.getByRole('complementary');
    await panel.getByText('What differs').waitFor();
    const counts = ((await panel.locator('.view-legend').textContent()) ?? '').match(/\d+/g)?.map(Number) ?? [];
    const [added = 0, removed = 0, changed = 0] = counts;
    assert.ok(added + removed + changed > 0, 'the sample differs between its changesets');
    const [left, right] = [await pixelsOf(page, 0), await pixelsOf(page, 1)];
    assert.equal(shareOf(right, isGreen) > 0.001, added > 0);
    assert.equal(shareOf(left, isRed) > 0.001, removed > 0);
    await panel.getByText('Compared is what is drawn').waitFor();
    await page.getByRole('application').last().focus();
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowUp');
    await until('both to turn', async () =>
      difference(left, await pixelsOf(page, 0)) > 0.005 && difference(right, await pixelsOf(page, 1)) > 0.005
        ? true
        : undefined,
    );
    await page.getByText('Show in color').click();
    await until('no colors', async () => (shareOf(await pixelsOf(page, 1), isGreen) < 0.001 ? true : undefined));
  });

  test('a point that was not drawn says so, is drawn on request, and then shown', async () => {
    const sample = await pushSample(await official(server), iTwinId, 'Undrawn');
    await page.goto(`${server.origin}/console/imodels/${sample}/view?at=1`);
    await page.getByText('There are no graphics of this point').waitFor();
    await page.getByText('This one can be drawn on request.').waitFor();
    await page.getByRole('button', { name: 'Draw it' }).click();
    await complete();
    assert.deepEqual(browser.faults, []);
  });

  test('a drawing is called one, and is shown as a plan without the tools for space', async () => {
    const drawing = await create('Ground floor', '40', '2d');
    await drawn(drawing, 0);
    await open(drawing);
    await page.getByText('A 2D drawing, shown as a plan.').waitFor();
    await page.getByRole('button', { name: 'Measure a distance' }).waitFor();
    assert.equal(await page.getByRole('button', { name: 'Walk' }).count(), 0);
    assert.ok(shareOf(await pixelsOf(page), (red, green, blue) => Math.max(red, green, blue) < 128) > 0.001);
  });

  test('has no serious fault for screen readers', async () => {
    await open(clone, `?with=${plant}_0`, 2);
    assert.deepEqual(await accessibilityFaults(page), []);
  });
});
