import { execFile } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import axe from 'axe-core';
import { sql } from 'kysely';
import { chromium as browserType, type Browser, type Page } from 'playwright-core';
import type { ConfigInput } from '../../apps/server/src/config.ts';
import { chromium, chromiumFlags } from './chromium.ts';
import { until } from './until.ts';
import { bootServer, endServer, people, type PersonName, type TestServer } from './server.ts';

const root = fileURLToPath(new URL('../..', import.meta.url));
/** Longest time for building the console, milliseconds; it takes 5 s. */
const buildMs = 120_000;
/** Longest time for a page to show something on a machine with much other work, milliseconds. */
const shownMs = 60_000;
const password = 'correct horse battery';

/** A server with a console that was built for the test. */
export class ConsoleServer {
  readonly server: TestServer;
  /** For files of the test. */
  readonly folder: string;
  /** The console that was built. */
  readonly built: string;

  private constructor(server: TestServer, folder: string, built: string) {
    this.server = server;
    this.folder = folder;
    this.built = built;
  }

  static async start(config: ConfigInput = {}): Promise<ConsoleServer> {
    const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-console-'));
    // `npm test` builds it once for all suites.
    const built = process.env['OFFSHOOT_TEST_CONSOLE'] ?? path.join(folder, 'built');
    if (process.env['OFFSHOOT_TEST_CONSOLE'] === undefined)
      await promisify(execFile)(process.execPath, ['scripts/console.ts', '--output', built], {
        cwd: root,
        timeout: buildMs,
      });
    return new ConsoleServer(await bootServer('sqlite', config, { consoleFolder: built }), folder, built);
  }

  async close(): Promise<void> {
    await endServer(this.server);
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A browser that notes what a page must not do: errors, and requests to other hosts. */
export class ConsoleBrowser {
  readonly #browser: Browser;
  readonly #origins: readonly string[];
  readonly faults: string[] = [];
  readonly #withPassword = new Set<PersonName>();

  private constructor(browser: Browser, origins: readonly string[]) {
    this.#browser = browser;
    this.#origins = origins;
  }

  /** @param origins that pages may send requests to */
  static async launch(...origins: string[]): Promise<ConsoleBrowser> {
    const browser = await browserType.launch({
      executablePath: chromium as string,
      args: chromiumFlags.filter((flag) => flag !== '--headless'),
      timeout: 30_000,
    });
    return new ConsoleBrowser(browser, origins);
  }

  async close(): Promise<void> {
    await this.#browser.close();
  }

  /** A window of its own, with cookies of its own. */
  async open(options: Parameters<Browser['newContext']>[0] = {}): Promise<Page> {
    const context = await this.#browser.newContext({
      viewport: { width: 1280, height: 900 },
      locale: 'en-US',
      reducedMotion: 'reduce',
      ...options,
    });
    const page = await context.newPage();
    page.setDefaultTimeout(shownMs);
    page.on('pageerror', (error) => this.faults.push(`error: ${error.message}`));
    page.on('console', (message) => {
      if (/content security policy/i.test(message.text())) this.faults.push(`policy: ${message.text()}`);
    });
    page.on('request', (request) => {
      const url = request.url();
      if (!this.#origins.some((origin) => url.startsWith(`${origin}/`)) && !/^(?:blob|data):/.test(url))
        this.faults.push(`request: ${url}`);
    });
    return page;
  }

  /** Signs a user in, from the address of the server. */
  async signedIn(
    server: TestServer,
    who: PersonName,
    options: Parameters<Browser['newContext']>[0] = {},
  ): Promise<Page> {
    // Setting a password ends the sessions of the user.
    if (!this.#withPassword.has(who)) await server.services.accounts.setPassword(people[who].id, password);
    this.#withPassword.add(who);
    const page = await this.open(options);
    await page.goto(`${server.origin}/`);
    await page.locator('.sign-in button').click();
    await page.fill('input[name=name]', people[who].email);
    await page.fill('input[name=password]', password);
    await page.click('button[type=submit]');
    await page.waitForURL(`${server.origin}/console/`);
    await page.locator('h1').waitFor();
    return page;
  }
}

/** Waits until an expression is true in a page. Playwright's own way evaluates in the page, which its policy forbids. */
export async function holds(page: Page, expression: string): Promise<void> {
  await until(expression, async () => ((await page.evaluate<boolean>(expression)) ? true : undefined), shownMs);
}

interface AxeResult {
  violations: { id: string; impact: string; nodes: { html: string }[] }[];
}

/** Serious accessibility faults of what a page shows, in the light and the dark theme. */
export async function accessibilityFaults(page: Page): Promise<string[]> {
  const faults: string[] = [];
  await page.evaluate(axe.source);
  // What the pointer rests on has other colors, which are those of iTwinUI.
  await page.mouse.move(0, 0);
  for (const colorScheme of ['light', 'dark'] as const) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' });
    await holds(
      page,
      `[...document.querySelectorAll('[data-iui-theme]')].every((each) => each.dataset.iuiTheme === '${colorScheme}')`,
    );
    // Colors that are still changing have any contrast.
    await holds(
      page,
      "document.getAnimations().every((each) => !(each instanceof CSSTransition) || each.playState !== 'running')",
    );
    const { violations } = await page.evaluate<AxeResult>(
      "axe.run(document, { resultTypes: ['violations'], runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'] })",
    );
    for (const { id, impact, nodes } of violations)
      if (impact === 'serious' || impact === 'critical')
        faults.push(`${page.url()} ${colorScheme}: ${id}: ${nodes.map(({ html }) => html.slice(0, 200)).join(' | ')}`);
  }
  await page.emulateMedia({ colorScheme: 'light', reducedMotion: 'reduce' });
  return faults;
}

/** Lengthens the history of an iModel with one changeset of its own by copies of that changeset. */
export async function addChangesets(server: TestServer, iModelId: string, last: number): Promise<void> {
  const { db } = server.services.database;
  const id = (index: string) => sql.raw(`printf('%040x', ${index})`);
  await sql`insert into changeset (segment_id, "index", id, parent_id, blob_id, file_size, description, containing_changes,
      briefcase_id, creator_id, pushed_at, application_id, application_name, synchronization_info)
    with recursive n(i) as (select 2 union all select i + 1 from n where i < ${last})
    select c.segment_id, i, ${id('i')}, case i when 2 then c.id else ${id('i - 1')} end, c.blob_id, c.file_size,
      'Change ' || i, i % 128, c.briefcase_id, c.creator_id, c.pushed_at + i, c.application_id, c.application_name, null
    from n, changeset c
    where c."index" = 1 and c.segment_id = (select h.segment_id from history h, imodel m where h.id = m.history_id and m.id = ${iModelId})`.execute(
    db,
  );
  await sql`update imodel set head_index = ${last}, head_changeset_id = printf('%040x', ${last}) where id = ${iModelId}`.execute(
    db,
  );
}
