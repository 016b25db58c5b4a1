import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import path from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Page } from 'playwright-core';
import { pushSample } from '../../scripts/sample.ts';
import type { Api } from '../../test/support/api.ts';
import { chromium } from '../../test/support/chromium.ts';
import { official, workFolder, type Official } from '../../test/support/clients.ts';
import { ConsoleBrowser, ConsoleServer } from '../../test/support/console.ts';
import { until } from '../../test/support/until.ts';
import { note, timed } from '../common.ts';

const plantProcess = fileURLToPath(new URL('../../test/support/plantProcess.ts', import.meta.url));
/** Elements of the model without changesets. */
const elements = 1300;
/** Longest time for a drawing or a page, milliseconds. */
const shownMs = 120_000;

/** An iModel to copy, up to its last changeset. */
interface Source {
  what: string;
  id: string;
  head: number;
}

/** Milliseconds of each round. */
export interface SourceTimes {
  what: string;
  clone: number[];
  copy: number[];
}

interface Site {
  origin: string;
  api: Api;
  client: Official;
  page: Page;
  iTwinId: string;
}

/** Clones in the console and copies by the official client, in turn, each until its picture is on the screen. */
export async function measureConsole(rounds: number): Promise<SourceTimes[]> {
  if (chromium === undefined) throw new Error('this benchmark needs Chromium');
  const server = await ConsoleServer.start({
    checkpoints: { generate: 'auto', delaySeconds: 0, firstRetrySeconds: 0 },
    graphics: { enabled: true },
  });
  try {
    const { server: running } = server;
    const browser = await ConsoleBrowser.launch(running.origin);
    try {
      const page = await browser.signedIn(running, 'olivia');
      page.setDefaultTimeout(shownMs);
      const site: Site = {
        origin: running.origin,
        api: await running.as('olivia'),
        client: await official(running),
        page,
        iTwinId: await running.iTwin(),
      };
      return await measure(site, rounds);
    } finally {
      await browser.close();
    }
  } finally {
    await server.close();
  }
}

async function measure(site: Site, rounds: number): Promise<SourceTimes[]> {
  const sources = [await makePlant(site), await makeSample(site)];
  const times = sources.map(({ what }): SourceTimes => ({ what, clone: [], copy: [] }));
  // The first page loads the code of the view, which the browser keeps.
  for (const source of sources) await show(site, source);
  for (let round = 1; round <= rounds; round++)
    for (const [n, source] of sources.entries()) {
      times[n]?.clone.push(await timeClone(site, source));
      times[n]?.copy.push(await timed(() => copyByClient(site, source)));
      note(`round ${round} of ${rounds}: ${source.what}`);
    }
  return times;
}

async function makePlant({ client: { client, authorization }, iTwinId, api }: Site): Promise<Source> {
  const work = workFolder();
  try {
    const filePath = path.join(work.path, 'plant.bim');
    await promisify(execFile)(process.execPath, [plantProcess, filePath, String(elements)]);
    const { id } = await client.iModels.createFromBaseline({
      authorization,
      iModelProperties: { iTwinId, name: 'Plant', filePath },
    });
    await drawn(api, id, 0);
    return { what: `${elements.toLocaleString('en-US')} elements, no changesets`, id, head: 0 };
  } finally {
    work.remove();
  }
}

async function makeSample({ client, iTwinId, api }: Site): Promise<Source> {
  const id = await pushSample(client, iTwinId, 'Sample');
  const { body } = await api.get(`/imodels/${id}/changesets?$orderBy=index desc&$top=1`);
  const head = (body as { changesets: { index: number }[] }).changesets[0]?.index ?? 0;
  await drawn(api, id, head);
  return { what: `the sample iModel, ${head} changesets`, id, head };
}

/** Waits until a point is drawn. Asks for it, which has no effect if it is scheduled or drawn already. */
async function drawn(api: Api, iModelId: string, index: number): Promise<void> {
  await api.put(`/imodels/${iModelId}/changesets/${index}/graphics`, {});
  await until(
    'the graphics',
    async () => {
      const { body } = await api.get(`/imodels/${iModelId}/changesets/${index}/graphics`);
      const { state } = (body as { graphics: { state: string } }).graphics;
      if (state === 'failed') throw new Error(JSON.stringify(body));
      return state === 'successful' ? true : undefined;
    },
    shownMs,
  );
}

/** From the click in the dialogue, over the page of the operation, to the picture. */
async function timeClone({ origin, page }: Site, { id }: Source): Promise<number> {
  await page.goto(`${origin}/console/imodels/${id}?clone=head`);
  const dialogue = page.getByRole('dialog');
  await dialogue.getByLabel('Name').fill(randomUUID());
  const button = dialogue.getByRole('button', { name: 'Clone', exact: true });
  await button.and(page.locator(':enabled')).waitFor();
  return timed(async () => {
    await button.click();
    await page.getByRole('link', { name: 'Open', exact: true }).click();
    await page.getByRole('tab', { name: 'View', exact: true }).click();
    await seen(page);
  });
}

/** Downloads the baseline and the changesets, makes an iModel of them, has it drawn, and opens it. */
async function copyByClient(site: Site, { id: iModelId, head }: Source): Promise<void> {
  const { client, authorization } = site.client;
  const work = workFolder();
  try {
    const { body } = await site.api.get(`/imodels/${iModelId}/baselinefile`);
    const { href } = (body as { baselineFile: { _links: { download: { href: string } } } }).baselineFile._links
      .download;
    const filePath = path.join(work.path, 'baseline.bim');
    await pipeline(Readable.fromWeb((await fetch(href)).body as never), createWriteStream(filePath));
    const { id } = await client.iModels.createFromBaseline({
      authorization,
      iModelProperties: { iTwinId: site.iTwinId, name: randomUUID(), filePath },
    });
    if (head > 0) {
      const changesets = await client.changesets.downloadList({
        authorization,
        iModelId,
        targetDirectoryPath: path.join(work.path, 'changesets'),
      });
      const { briefcaseId } = await client.briefcases.acquire({ authorization, iModelId: id });
      for (const { id: changesetId, parentId, filePath: file } of changesets.sort((a, b) => a.index - b.index))
        await client.changesets.create({
          authorization,
          iModelId: id,
          changesetProperties: { id: changesetId, ...(parentId !== '' && { parentId }), briefcaseId, filePath: file },
        });
    }
    await drawn(site.api, id, head);
    await show(site, { id });
  } finally {
    work.remove();
  }
}

async function show({ origin, page }: Site, { id }: Pick<Source, 'id'>): Promise<void> {
  await page.goto(`${origin}/console/imodels/${id}/view`);
  await seen(page);
}

async function seen(page: Page): Promise<void> {
  await page.locator('canvas[data-state=complete][data-drawn=true]').waitFor();
}
