import { createReadStream, existsSync } from 'node:fs';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { createRequire } from 'node:module';
import type { AddressInfo } from 'node:net';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import type { ConsoleBrowser } from '../../test/support/console.ts';
import type { ViewInput, ViewOutput } from '../viewerPage.ts';

/** Longest time for one view, milliseconds. */
const viewMs = 150_000;
/** The workers and pictures that core-frontend loads from beside the page. */
const publicFolder = path.join(
  path.dirname(createRequire(import.meta.url).resolve('@itwin/core-frontend/package.json')),
  'lib/public',
);

/** One view, as its page saw it. */
export interface View {
  ms: number;
  /** Tiles that are drawn. */
  tiles: number;
  /** Bytes of the answers of the back end for viewers, as they were sent, without headers. */
  bytes: number;
  /** Calls of the back end for viewers. */
  calls: number;
}

/** A page of core-frontend at an origin of its own. */
export class ViewPages {
  readonly #host: Server;
  readonly #browser: ConsoleBrowser;
  #input: ViewInput | undefined;
  #onOutput: (output: ViewOutput) => void = () => undefined;

  private constructor(host: Server, browser: ConsoleBrowser) {
    this.#host = host;
    this.#browser = browser;
  }

  static async start(browser: ConsoleBrowser): Promise<ViewPages> {
    const { outputFiles } = await build({
      entryPoints: [fileURLToPath(new URL('../viewerPage.ts', import.meta.url))],
      bundle: true,
      write: false,
      format: 'esm',
      platform: 'browser',
      logLevel: 'silent',
    });
    const script = outputFiles[0]?.text ?? '';
    const host = createServer();
    const pages = new ViewPages(host, browser);
    host.on('request', (request: IncomingMessage, response: ServerResponse) =>
      pages.#answer(request, response, script),
    );
    await new Promise<void>((listening) => host.listen(0, '127.0.0.1', listening));
    return pages;
  }

  close(): void {
    this.#host.close();
    this.#host.closeAllConnections();
  }

  /** Views an iModel in a window of its own, which has nothing cached. @throws Error if it is not complete in time */
  async view(input: ViewInput): Promise<View> {
    this.#input = input;
    const { promise, resolve, reject } = Promise.withResolvers<ViewOutput>();
    this.#onOutput = resolve;
    const timer = setTimeout(() => reject(new Error(`a view was not complete within ${viewMs} ms`)), viewMs);
    const page = await this.#browser.open();
    try {
      const sent: Promise<number>[] = [];
      page.on('pageerror', reject);
      page.on('requestfinished', (request) => {
        if (request.url().startsWith(`${input.server}/viewer/rpc/`))
          sent.push(request.sizes().then(({ responseBodySize }) => responseBodySize));
      });
      await page.goto(`http://localhost:${(this.#host.address() as AddressInfo).port}/`);
      const output = await promise;
      if ('fault' in output) throw new Error(output.fault);
      const bytes = (await Promise.all(sent)).reduce((sum, size) => sum + size, 0);
      return { ...output, bytes, calls: sent.length };
    } finally {
      clearTimeout(timer);
      await page.context().close();
    }
  }

  #answer(request: IncomingMessage, response: ServerResponse, script: string): void {
    const url = new URL(request.url ?? '/', 'http://localhost');
    if (request.method === 'POST') {
      void text(request).then((body) => {
        response.end();
        this.#onOutput(JSON.parse(body) as ViewOutput);
      });
      return;
    }
    const answers: Record<string, [type: string, body: string]> = {
      '/': [
        'text/html',
        '<!doctype html><meta charset="utf-8"><div id="view" style="position: absolute; inset: 0"></div><script type="module" src="/page.js"></script>',
      ],
      '/page.js': ['text/javascript', script],
      '/input': ['application/json', JSON.stringify(this.#input)],
    };
    const answer = answers[url.pathname];
    if (answer !== undefined) return void response.setHeader('content-type', answer[0]).end(answer[1]);
    // The URL parser has resolved `..`.
    const file = path.join(publicFolder, url.pathname);
    if (!existsSync(file)) return void response.writeHead(404).end();
    if (file.endsWith('.js')) response.setHeader('content-type', 'text/javascript');
    createReadStream(file).pipe(response);
  }
}
