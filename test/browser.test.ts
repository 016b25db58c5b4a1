import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { chromium, chromiumFlags } from './support/chromium.ts';
import type { PageInput, PageResult } from './support/page.ts';
import { makeIModel, workFolder } from './support/clients.ts';
import { onEachStore } from './support/suite.ts';

/** Opens a page with the bundled clients on an origin other than the server's. @returns what it reports */
async function inChromium(input: PageInput): Promise<PageResult> {
  const folder = workFolder();
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('./support/page.ts', import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'silent',
    // core-frontend as a whole needs a canvas and workers; the access package only gets a token from it.
    alias: { '@itwin/core-frontend': fileURLToPath(new URL('./support/coreFrontend.ts', import.meta.url)) },
  });
  const script = outputFiles[0]?.text ?? '';
  let report!: (result: PageResult) => void;
  const reported = new Promise<PageResult>((resolve) => (report = resolve));
  const host = createServer((request, response) => {
    if (request.method === 'POST') {
      let body = '';
      request.on('data', (text: Buffer) => (body += text.toString()));
      request.on('end', () => {
        response.end();
        report(JSON.parse(body) as PageResult);
      });
      return;
    }
    const page = request.url === '/page.js';
    response.setHeader('content-type', page ? 'text/javascript' : 'text/html');
    response.end(
      page
        ? script
        : `<!doctype html><meta charset="utf-8"><script>window.input = ${JSON.stringify(input)}</script><script src="/page.js"></script>`,
    );
  });
  await new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
  const browser = spawn(
    chromium as string,
    [
      ...chromiumFlags,
      `--user-data-dir=${path.join(folder.path, 'profile')}`,
      `http://127.0.0.1:${(host.address() as AddressInfo).port}/`,
    ],
    { stdio: 'ignore' },
  );
  const ended = new Promise<void>((resolve) => browser.once('exit', () => resolve()));
  try {
    return await Promise.race([reported, ended.then(() => ({ fault: 'the browser ended without a report' }))]);
  } finally {
    browser.kill('SIGKILL');
    await ended;
    host.close();
    folder.remove();
  }
}

onEachStore('A browser', {}, (context) => {
  test(
    'runs the management client and the frontend access from another origin',
    { skip: chromium === undefined ? 'there is no Chromium here' : false },
    async () => {
      const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
      const { client, authorization } = context.olivia;
      const versionName = 'named';
      await client.namedVersions.create({
        authorization,
        iModelId: source.id,
        namedVersionProperties: { name: versionName, changesetId: source.changesets[1]?.id ?? '' },
      });
      const token = await context.server.token('olivia');
      const preflights: string[] = [];
      context.server.running.app.server.on(
        'request',
        ({ method, headers }: { method: string; headers: Record<string, string> }) => {
          if (method === 'OPTIONS')
            preflights.push(`${headers['access-control-request-method']} ${headers['access-control-request-headers']}`);
        },
      );
      const result = await inChromium({
        baseUrl: `${context.server.origin}/imodels`,
        token,
        iTwinId: context.iTwinId,
        iModelId: source.id,
        versionName,
        newName: randomUUID(),
      });
      assert.equal(result.fault, undefined);
      assert.deepEqual(result.cloned, { state: 'initialized', changesets: 2 });
      assert.match(result.location ?? '', /\/imodels\/[0-9a-f-]{36}$/);
      assert.match(result.operation ?? '', /\/imodels\/[0-9a-f-]{36}\/operations\/create$/);
      assert.equal(result.lengthIsReadable, true);
      assert.deepEqual(result.latest, { index: 3, id: source.changesets[2]?.id });
      assert.deepEqual(result.named, { index: 2, id: source.changesets[1]?.id });
      assert.equal(result.first?.index, 0);
      assert.ok((result.thumbnailBytes ?? 0) > 100);
      assert.equal(result.downloadedBytes, source.changesets[0]?.bytes.length);
      assert.equal(result.refused, 'iTwinNotFound');
      assert.ok(
        preflights.some((asked) => /^POST .*authorization/.test(asked)),
        'the browser asked first',
      );
    },
  );
});
