/** Pictures of the console for the documents, of real iModels in a new installation. */
import { execFile } from 'node:child_process';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { Api } from './api.ts';
import { official, workFolder } from './clients.ts';
import { ConsoleBrowser, ConsoleServer } from './console.ts';
import { until } from './until.ts';

/** Where the pictures of the documents are. */
export const imageFolder = fileURLToPath(new URL('../../docs/images', import.meta.url));
const plantProcess = fileURLToPath(new URL('plantProcess.ts', import.meta.url));
/** Longest time for drawing and for showing what is drawn, milliseconds. */
const drawMs = 120_000;

async function createPlant(site: ConsoleServer, iTwinId: string): Promise<string> {
  const work = workFolder();
  try {
    const filePath = path.join(work.path, 'plant.bim');
    await promisify(execFile)(process.execPath, [plantProcess, filePath, '1300']);
    const { client, authorization } = await official(site.server);
    const made = await client.iModels.createFromBaseline({
      authorization,
      iModelProperties: { iTwinId, name: 'Water works', filePath },
    });
    return made.id;
  } finally {
    work.remove();
  }
}

async function clone(api: Api, iModelId: string, properties: object): Promise<string> {
  const answer = await api.post(`/imodels/${iModelId}/clone`, properties);
  if (answer.status !== 202) throw new Error(`the clone was answered ${answer.status}`);
  return (answer.headers.get('location') ?? '').slice(-36);
}

/** A picture of a page, by the name of its file. */
export interface Screenshot {
  name: string;
  png: Buffer;
}

/** Makes all pictures. Each is made when what the document says about it is shown. */
export async function takeScreenshots(): Promise<Screenshot[]> {
  const site = await ConsoleServer.start({
    checkpoints: { generate: 'auto', delaySeconds: 0 },
    graphics: { enabled: true },
  });
  const { server } = site;
  const browser = await ConsoleBrowser.launch(server.origin);
  try {
    const api = await server.as('olivia');
    const iTwinId = await server.iTwin('olivia', 'Harbour');
    const plant = await createPlant(site, iTwinId);
    await until(
      'the graphics',
      async () => {
        const { body } = await api.get(`/imodels/${plant}/changesets/0/graphics`);
        return (body as { graphics: { state: string } }).graphics.state === 'successful' ? true : undefined;
      },
      drawMs,
    );
    for (const name of ['Water works, tender', 'Water works, as built']) await clone(api, plant, { iTwinId, name });

    const page = await browser.signedIn(server, 'olivia');
    page.setDefaultTimeout(drawMs);
    const taken: Screenshot[] = [];
    const take = async (name: string): Promise<void> => {
      await page.waitForLoadState('networkidle');
      taken.push({ name: `${name}.png`, png: await page.screenshot({ animations: 'disabled' }) });
    };
    await page.goto(`${server.origin}/console/itwins/${iTwinId}`);
    await page.getByText('Water works, tender', { exact: true }).waitFor();
    await page.locator('.card img').nth(2).waitFor();
    await take('console-imodels');
    await page.goto(`${server.origin}/console/imodels/${plant}/view`);
    await page.locator('canvas[data-state=complete]').waitFor();
    await page.getByRole('checkbox', { name: 'Slabs' }).waitFor();
    await take('console-view');
    await page.goto(`${server.origin}/console/imodels/${plant}?clone=head`);
    await page.getByRole('dialog').getByText('named versions').waitFor();
    await take('console-clone');
    return taken;
  } finally {
    await browser.close();
    await site.close();
  }
}
