import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { IntrospectionClient, ServiceAuthorizationClient } from '@itwin/service-authorization';
import { build } from 'esbuild';
import { chromium as browserType, type Browser, type Page } from 'playwright-core';
import { chromium, chromiumFlags } from './support/chromium.ts';
import { Installation, people, type TestServer } from './support/server.ts';

const secret = 'a-secret-of-the-service-0123456789';
const password = 'correct horse battery';
const timeoutMs = 30_000;

/** An application of one page, which signs in with the official package as soon as a person presses the button. */
async function startApplication(): Promise<{ origin: string; server: Server }> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('./support/signInPage.ts', import.meta.url))],
    bundle: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'silent',
  });
  const script = outputFiles[0]?.text ?? '';
  const server = createServer((request, response) => {
    const isScript = request.url === '/page.js';
    response.setHeader('content-type', isScript ? 'text/javascript' : 'text/html');
    response.end(
      isScript
        ? script
        : '<!doctype html><meta charset="utf-8"><title>App</title><body><script src="/page.js"></script>',
    );
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { origin: `http://localhost:${(server.address() as AddressInfo).port}`, server };
}

function launchBrowser(): Promise<Browser> {
  return browserType.launch({
    executablePath: chromium as string,
    args: chromiumFlags.filter((flag) => flag !== '--headless'),
    timeout: timeoutMs,
  });
}

describe('The official sign-in packages, unmodified', () => {
  let installation: Installation;
  let server: TestServer;
  let application: { origin: string; server: Server };
  let authority: string;

  before(async () => {
    installation = await Installation.create('sqlite');
    application = await startApplication();
    server = await installation.start({
      signIn: { tokenMinutes: 1 },
      clients: [
        { id: 'service', secret, organizationId: 'service-organization' },
        {
          id: 'web-app',
          redirectUris: [`${application.origin}/signin-callback`],
          postLogoutRedirectUris: [`${application.origin}/signed-out`],
        },
      ],
    });
    for (const who of ['olivia', 'max'] as const) await server.services.accounts.setPassword(people[who].id, password);
    authority = `${server.origin}/auth`;
  });
  after(async () => {
    application.server.close();
    application.server.closeAllConnections();
    await server.close();
    installation.remove();
  });

  /** Opens the application, signs in on the pages of the server and allows what the application asks for. */
  async function signIn(page: Page, who: 'olivia' | 'max', more = ''): Promise<void> {
    page.setDefaultTimeout(timeoutMs);
    await page.goto(`${application.origin}/?authority=${encodeURIComponent(authority)}${more}`);
    await page.click('text=Sign in');
    await page.fill('input[name=name]', people[who].email);
    await page.fill('input[name=password]', password);
    await page.click('button[type=submit], form button');
    await page.waitForURL(/\/auth\/|signin-callback|\/$/);
    await page.locator('form button').first().click();
    await page.waitForSelector('#user');
    assert.equal(await page.textContent('#user'), people[who].id);
    assert.equal(await page.textContent('#status'), '200');
  }

  test('service-authorization gets a token that the API accepts and that its introspection finds active', async () => {
    const client = new ServiceAuthorizationClient({
      clientId: 'service',
      clientSecret: secret,
      scope: 'itwin-platform',
      authority,
    });
    const authorization = await client.getAccessToken();
    assert.ok(client.hasSignedIn);
    const response = await fetch(`${server.origin}/itwins`, {
      headers: { authorization, accept: 'application/vnd.bentley.itwin-platform.v1+json' },
      signal: AbortSignal.timeout(timeoutMs),
    });
    assert.equal(response.status, 200);
    const found = await new IntrospectionClient({ issuerUrl: authority }).introspect(authorization);
    assert.equal(found.active, true);
    assert.deepEqual([found.client_id, found.scope], ['service', 'itwin-platform']);
  });

  test('service-authorization reports a wrong secret', async () => {
    const client = new ServiceAuthorizationClient({
      clientId: 'service',
      clientSecret: 'a-wrong-secret-of-the-service',
      scope: 'itwin-platform',
      authority,
    });
    await assert.rejects(client.getAccessToken());
  });

  test(
    'browser-authorization signs a user in, keeps the session over a reload, renews the token and signs out',
    { skip: chromium === undefined ? 'there is no Chromium here' : false, timeout: 120_000 },
    async () => {
      const browser = await launchBrowser();
      try {
        const page: Page = await browser.newPage();
        await signIn(page, 'olivia');

        await page.reload();
        await page.waitForSelector('#user');
        assert.equal(await page.textContent('#user'), people.olivia.id);

        const before = await page.textContent('#token');
        // The package renews the token a minute before it expires, so at once.
        await page.waitForFunction(`document.querySelector('#token').textContent !== ${JSON.stringify(before)}`);
        assert.equal(await page.textContent('#status'), '200');

        await page.click('text=Sign out');
        const confirm = page.locator('form button').first();
        await confirm.click();
        await page.waitForURL(`${application.origin}/signed-out**`);
      } finally {
        await browser.close();
      }
    },
  );

  test(
    'browser-authorization renews the token in a frame that asks nobody, if there is no refresh token',
    { skip: chromium === undefined ? 'there is no Chromium here' : false, timeout: 120_000 },
    async () => {
      const browser = await launchBrowser();
      try {
        const page: Page = await browser.newPage();
        const silent: string[] = [];
        const grants: string[] = [];
        page.on('request', (request) => {
          const url = new URL(request.url());
          if (url.searchParams.get('prompt') === 'none' && request.frame() !== page.mainFrame())
            silent.push(url.pathname);
          if (url.pathname === '/auth/token')
            grants.push(new URLSearchParams(request.postData() ?? '').get('grant_type') ?? '');
        });
        await signIn(page, 'max', `&scope=${encodeURIComponent('openid profile email itwin-platform')}`);
        const before = await page.textContent('#token');
        await page.waitForFunction(`document.querySelector('#token').textContent !== ${JSON.stringify(before)}`);
        assert.equal(await page.textContent('#status'), '200');
        assert.equal(silent[0], '/auth/authorize');
        assert.deepEqual(new Set(grants), new Set(['authorization_code']));
      } finally {
        await browser.close();
      }
    },
  );
});
