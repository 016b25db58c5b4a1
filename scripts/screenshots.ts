/** Makes the pictures of the console in `docs/images`, with real iModels in a new installation: `npm run screenshots`. */
import { execFile } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import sharp from 'sharp';
import type { Api } from '../test/support/api.ts';
import { official, workFolder } from '../test/support/clients.ts';
import { ConsoleBrowser, ConsoleServer } from '../test/support/console.ts';
import { until } from '../test/support/until.ts';

const folder = fileURLToPath(new URL('../docs/images', import.meta.url));
const plantProcess = fileURLToPath(new URL('../test/support/plantProcess.ts', import.meta.url));

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
    60_000,
  );
  for (const name of ['Water works, tender', 'Water works, as built']) await clone(api, plant, { iTwinId, name });

  const page = await browser.signedIn(server, 'olivia');
  mkdirSync(folder, { recursive: true });
  const save = async (name: string): Promise<void> => {
    const picture = await page.screenshot({ animations: 'disabled' });
    await sharp(picture)
      .png({ palette: true, quality: 90, effort: 10 })
      .toFile(path.join(folder, `${name}.png`));
  };
  await page.goto(`${server.origin}/console/itwins/${iTwinId}`);
  await page.getByText('Water works, tender', { exact: true }).waitFor();
  await page.waitForLoadState('networkidle');
  await save('console-imodels');
  await page.goto(`${server.origin}/console/imodels/${plant}/view`);
  await page.locator('canvas[data-state=complete][data-drawn=true]').waitFor({ timeout: 60_000 });
  await page.waitForLoadState('networkidle');
  await save('console-view');
  await page.goto(`${server.origin}/console/imodels/${plant}?clone=head`);
  await page.getByRole('dialog').waitFor();
  await page.waitForLoadState('networkidle');
  await save('console-clone');
} finally {
  await browser.close();
  await site.close();
}
