import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import type { AddressInfo } from 'node:net';
import { after, before, describe, test } from 'node:test';
import type { Page } from 'playwright-core';
import { chromium } from '../support/chromium.ts';
import { accessibilityFaults, ConsoleBrowser, ConsoleServer, holds } from '../support/console.ts';
import { startOidcIssuer, type OidcIssuer } from '../support/oidcIssuer.ts';
import { people, type TestServer } from '../support/server.ts';
import { until } from '../support/until.ts';

const skip = chromium === undefined && 'there is no Chromium here';
const password = 'correct horse battery';
/** Longest time in which a page notices that a server is back, milliseconds. */
const backMs = 60_000;

const session = "JSON.parse(Object.entries(sessionStorage).find(([key]) => key.startsWith('oidc.user:'))?.[1] ?? '{}')";
const tokenOf = (page: Page): Promise<string> => page.evaluate<string>(`${session}.access_token`);
const heading = (page: Page, name: string) => page.getByRole('heading', { level: 1, name });

describe('A session in the console', { skip }, () => {
  let site: ConsoleServer;
  let server: TestServer;
  let browser: ConsoleBrowser;
  let iTwinId: string;
  const address = (place: string): string => `${server.origin}/console/${place}`;

  before(async () => {
    site = await ConsoleServer.start();
    ({ server } = site);
    iTwinId = await server.iTwin('olivia', 'Harbour');
    await server.iTwin('olivia', 'Airport');
    browser = await ConsoleBrowser.launch(server.origin);
  });
  after(async () => {
    await browser?.close();
    if (server !== site?.server) await server?.close();
    await site?.close();
  });

  test('begins by keyboard alone, and leads back to the page that was asked for', async () => {
    await server.services.accounts.setPassword(people.olivia.id, password);
    const page = await browser.open();
    await page.goto(address(`itwins/${iTwinId}?tab=usage`));
    await page.locator('.sign-in button').waitFor();
    const toElement = async (what: string, wanted: string) => {
      for (let n = 0; n < 20; n++) {
        if (await page.evaluate<boolean>(`document.activeElement.matches(${JSON.stringify(wanted)})`)) return;
        await page.keyboard.press('Tab');
      }
      assert.fail(`the focus does not reach ${what}`);
    };
    await toElement('the button', '.sign-in button');
    await page.keyboard.press('Enter');
    await page.locator('input[name=name]').waitFor();
    await toElement('the name', 'input[name=name]');
    await page.keyboard.type(people.olivia.email);
    await toElement('the password', 'input[name=password]');
    await page.keyboard.type(password);
    await page.keyboard.press('Enter');
    await heading(page, 'Harbour').waitFor();
    assert.match(page.url(), /tab=usage$/);
    await page.context().close();
  });

  test('is renewed before its token expires, and after a long sleep of the computer', async () => {
    const page = await browser.signedIn(server, 'olivia');
    await page.clock.install();
    await page.goto(address(''));
    await page.getByRole('link', { name: 'Harbour' }).waitFor();
    const first = await tokenOf(page);
    await page.clock.fastForward('59:50');
    await until('another token', async () => ((await tokenOf(page)) === first ? undefined : true));
    const second = await tokenOf(page);
    await page.clock.fastForward('10:00:00');
    await page.getByRole('link', { name: 'Airport' }).click();
    await heading(page, 'Airport').waitFor();
    await until('another token', async () => ((await tokenOf(page)) === second ? undefined : true));
    await page.context().close();
  });

  test('that an administrator ended says so, and signing in leads back', async () => {
    const page = await browser.signedIn(server, 'olivia');
    await page.clock.install();
    await page.goto(address(`itwins/${iTwinId}`));
    await heading(page, 'Harbour').waitFor();
    await server.services.accounts.setPassword(people.olivia.id, password);
    await page.clock.fastForward('10:00:00');
    await page.getByText('Your session has ended').waitFor();
    await page.getByRole('button', { name: 'Sign in' }).click();
    await page.fill('input[name=name]', people.olivia.email);
    await page.fill('input[name=password]', password);
    await page.click('button[type=submit]');
    await heading(page, 'Harbour').waitFor();
    await page.context().close();
  });

  test('outlasts a restart of the server, which the page notices by itself', async () => {
    const page = await browser.signedIn(server, 'olivia');
    await page.evaluate('window.sameDocument = true');
    const { port } = server.running.app.server.address() as AddressInfo;
    await server.close();
    await page.getByRole('link', { name: 'Harbour' }).click();
    await page.getByText('The server does not answer').first().waitFor({ timeout: backMs });
    server = await server.installation.start({ port }, { consoleFolder: site.built });
    await heading(page, 'Harbour').waitFor({ timeout: backMs });
    await page.getByText('Add the first iModel').waitFor({ timeout: backMs });
    assert.equal(await page.evaluate('window.sameDocument'), true);
    await page.context().close();
  });

  test('no page met an error', () => {
    assert.deepEqual(browser.faults, []);
  });
});

describe('A session at an outside issuer', { skip }, () => {
  let issuer: OidcIssuer;
  let site: ConsoleServer;
  let browser: ConsoleBrowser;

  before(async () => {
    issuer = await startOidcIssuer();
    const client = { clientId: 'plant-console', name: 'Plant works' };
    site = await ConsoleServer.start({
      issuers: [{ ...issuer.settings, organization: 'plant-works', console: client }],
    });
    browser = await ConsoleBrowser.launch(site.server.origin, issuer.url);
  });
  after(async () => {
    await browser?.close();
    await site?.close();
    issuer?.close();
  });

  test('is chosen beside that of the server, begins with a code and its proof, and ends', async () => {
    issuer.person = { sub: randomUUID(), name: 'Grace Example', email: 'grace@example.test', email_verified: true };
    const { origin } = site.server;
    const page = await browser.open();
    await page.goto(`${origin}/console/`);
    await page.getByRole('button', { name: `Sign in with ${new URL(origin).host}` }).waitFor();
    assert.deepEqual(await accessibilityFaults(page), []);
    await page.getByRole('button', { name: 'Sign in with Plant works' }).click();
    await page.getByText('Create your first iTwin').waitFor();
    await page.getByRole('button', { name: 'Account of Grace Example' }).waitFor();
    await page.getByRole('button', { name: 'New iTwin' }).first().click();
    await page.getByRole('dialog').getByLabel('Name').fill('Turbines');
    await page.getByRole('dialog').getByRole('button', { name: 'Create' }).click();
    await heading(page, 'Turbines').waitFor();
    // A new tab signs in without a question.
    const tab = await page.context().newPage();
    await tab.goto(`${origin}/console/`);
    await tab.getByRole('link', { name: 'Turbines' }).waitFor();
    await tab.close();
    await page.getByRole('button', { name: 'Account of Grace Example' }).click();
    await page.getByRole('menuitem', { name: 'Sign out' }).click();
    await page.getByRole('button', { name: 'Sign in with Plant works' }).waitFor();
    await holds(page, `${session}.access_token === undefined`);
    assert.deepEqual(browser.faults, []);
  });

  test('that cannot begin because the issuer does not answer says so', async () => {
    issuer.broken = true;
    const page = await browser.open();
    await page.goto(`${site.server.origin}/console/`);
    await page.getByRole('button', { name: 'Sign in with Plant works' }).click();
    await page.getByText('The sign-in page cannot be reached').waitFor();
    issuer.broken = false;
    await page.getByRole('button', { name: 'Sign in with Plant works' }).click();
    await page.getByRole('link', { name: 'Turbines' }).waitFor();
  });
});
