import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import http from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { chromium as browserType } from 'playwright-core';
import { addressOf, pageFiles } from '../scripts/guide/pages.ts';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import { startServer } from '../apps/server/src/app.ts';
import { chromium, chromiumFlags } from './support/chromium.ts';
import { endServer, Installation, TestServer } from './support/server.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
/** Longest time for building the pages, milliseconds; it takes 3 s. */
const buildMs = 120_000;

/** The status of a path that `fetch` would shorten before it sends it. */
function statusOf(origin: string, address: string): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(origin);
    http
      .get({ hostname, port, path: address }, (response) => {
        response.resume();
        response.on('end', () => resolve(response.statusCode));
      })
      .on('error', reject);
  });
}

describe('the guide', () => {
  let server: TestServer;
  const get = (place: string, headers: Record<string, string> = {}): Promise<Response> =>
    fetch(`${server.origin}/docs/guide${place}`, { headers, redirect: 'manual' });

  const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-guide-'));

  before(async () => {
    const installation = await Installation.create('sqlite');
    const running = await startServer(installation.config(), { guideFolder: path.join(folder, 'pages') });
    server = new TestServer(installation, running, await EmbeddedIssuer.open(installation.dataDir));
  });
  after(async () => {
    await endServer(server);
    rmSync(folder, { recursive: true });
  });

  test('before it is built, its address says so and names the command', async () => {
    const answer = await get('/');
    assert.equal(answer.status, 404);
    assert.match(answer.headers.get('content-type') ?? '', /^text\/html/);
    const text = await answer.text();
    for (const part of ['not built', 'npm run guide', 'docs/README.md']) assert.ok(text.includes(part), part);
  });

  describe('after npm run guide', () => {
    before(() =>
      promisify(execFile)(process.execPath, ['scripts/guide.ts', '--output', path.join(folder, 'pages')], {
        cwd: root,
        timeout: buildMs,
      }).then(() => undefined),
    );

    test('every document is a page, whose links and pictures lead to pages, headings and files', async () => {
      const texts = new Map<string, Promise<string | undefined>>();
      const textOf = (url: URL): Promise<string | undefined> => {
        const known = texts.get(url.pathname);
        if (known !== undefined) return known;
        const text = fetch(url).then(async (answer) => (answer.ok ? answer.text() : undefined));
        texts.set(url.pathname, text);
        return text;
      };
      const broken: string[] = [];
      for (const file of pageFiles) {
        const address = new URL(`/docs/guide/${addressOf(file)}`, server.origin);
        const page = (await textOf(address)) ?? assert.fail(`${file} has no page`);
        for (const [, link = ''] of page.matchAll(/ (?:href|src)="([^"]*)"/g)) {
          const target = new URL(link, address);
          if (target.origin !== server.origin) continue;
          const text = await textOf(target);
          const anchor = decodeURIComponent(target.hash.slice(1));
          if (text === undefined || (anchor !== '' && !text.includes(` id="${anchor}"`)))
            broken.push(`${file}: ${link}`);
        }
      }
      assert.deepEqual(broken, []);
    });

    test('the navigation leads to every document, or to the page of its folder', async () => {
      const page = await (await get('/')).text();
      const reached = new Set([...page.matchAll(/href="([^"#]*)/g)].map(([, link]) => link));
      const missing = pageFiles.filter(
        (file) =>
          // These are reached from the page of their folder.
          !/^(docs\/adr\/\d|examples\/\w+\/)/.test(file) &&
          !reached.has(addressOf(file)) &&
          addressOf(file) !== 'index.html',
      );
      assert.deepEqual(missing, []);
    });

    test('pages have no inline script or style, and a policy that forbids both', async () => {
      for (const file of pageFiles) {
        const answer = await get(`/${addressOf(file)}`);
        const policy = answer.headers.get('content-security-policy') ?? '';
        assert.match(policy, /^default-src 'none'; script-src 'self'; style-src 'self'/);
        assert.doesNotMatch(policy, /unsafe/);
        assert.doesNotMatch(await answer.text(), /<style|<script(?! src=)| style="| on\w+="/, file);
      }
      assert.match((await get('/style.css')).headers.get('content-type') ?? '', /^text\/css/);
    });

    test(
      'a reader finds a section by its words, without a network, under the policy of the pages',
      { skip: chromium === undefined ? 'there is no Chromium here' : false },
      async () => {
        const browser = await browserType.launch({
          executablePath: chromium as string,
          args: chromiumFlags.filter((flag) => flag !== '--headless'),
        });
        try {
          const page = await browser.newPage();
          page.setDefaultTimeout(60_000);
          const faults: string[] = [];
          page.on('pageerror', (error) => faults.push(error.message));
          page.on('console', (line) => /Content Security Policy/i.test(line.text()) && faults.push(line.text()));
          await page.goto(`${server.origin}/docs/guide/adr/index.html`);
          await page.fill('#search', 'keycloak');
          await page.locator('#found a', { hasText: 'Sign-in: Keycloak' }).click();
          await page.waitForURL('**/docs/guide/sign-in.html#keycloak');
          await page.fill('#search', 'zzzzqqqq');
          await page.waitForSelector('#found >> text=Nothing was found');
          assert.deepEqual(faults, []);
        } finally {
          await browser.close();
        }
      },
    );

    test('a page that did not change is not sent again', async () => {
      const first = await get('/operating.html');
      assert.equal(first.headers.get('cache-control'), 'no-cache');
      const again = await get('/operating.html', { 'if-none-match': first.headers.get('etag') ?? '' });
      assert.deepEqual([again.status, (await again.text()).length], [304, 0]);
    });

    test('its address without a slash leads to its first page, also below the path of a proxy', async () => {
      const answer = await get('');
      assert.equal(answer.status, 302);
      const location = answer.headers.get('location') ?? '';
      assert.equal(new URL(location, 'https://example.com/hub/docs/guide').pathname, '/hub/docs/guide/');
      assert.equal((await get('/')).status, 200);
    });

    test('no path leads to a file outside of the guide', async () => {
      for (const place of [
        '/../cli.js',
        '/%2e%2e/%2e%2e/package.json',
        '/..%2f..%2fpackage.json',
        '/adr/%00',
        '/adr',
        '//etc/passwd',
      ])
        assert.equal(await statusOf(server.origin, `/docs/guide${place}`), 404, place);
    });
  });
});
