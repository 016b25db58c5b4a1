/**
 * Attacks on `offshoot mirror` by the operator of the source: it redirects to services that only the mirroring machine reaches, and
 * it never ends. No such service is requested, and every command ends with a reason.
 */
import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { RequestFilteringHttpAgent } from 'request-filtering-agent';
import { downloadFile } from '../../apps/server/src/commands/download.ts';
import { ExitError } from '../../apps/server/src/commands/exit.ts';
import { mirrorCommand } from '../../apps/server/src/commands/mirror.ts';
import { filtered, type Outlet } from '../../apps/server/src/http/outbound.ts';
import { bootServer, endServer, type TestServer } from '../support/server.ts';
import { StubServer } from '../support/stubServer.ts';

const baseline = { id: 'b', displayName: 'b', fileSize: 4096, state: 'initialized' };
const changesetId = 'a'.repeat(40);
const listed = { id: changesetId, parentId: '', index: 1, briefcaseId: 2, fileSize: 100 };

describe('A malicious source of a mirror', () => {
  let server: TestServer;
  let source: StubServer;
  let iTwinId: string;
  before(async () => {
    server = await bootServer('sqlite');
    iTwinId = await server.iTwin();
    source = await StubServer.start();
  });
  after(async () => {
    await source.close();
    await endServer(server);
  });

  /** The source's answer to each kind of request; a test replaces one of them by its attack. */
  type Parts = Record<
    'iModel' | 'latest' | 'changesets' | 'briefcases' | 'baseline' | 'file',
    (response: ServerResponse, request: IncomingMessage) => void
  >;
  const json = (body: unknown) => (response: ServerResponse) =>
    void response.writeHead(200, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  const honest = (): Parts => ({
    iModel: json({ iModel: { name: `mirrored ${Math.random()}` } }),
    latest: json({ changesets: [] }),
    changesets: json({ changesets: [] }),
    briefcases: json({ briefcases: [] }),
    baseline: json({ baselineFile: { ...baseline, _links: { download: { href: `${source.origin}/file` } } } }),
    file: (response) => void response.end(Buffer.alloc(4096)),
  });
  function answerWith(parts: Parts): void {
    source.answer = (request, response) => {
      const url = request.url ?? '';
      const part = url.startsWith('/file')
        ? 'file'
        : url.includes('/baselinefile')
          ? 'baseline'
          : url.includes('/briefcases')
            ? 'briefcases'
            : url.includes('orderBy')
              ? 'latest'
              : url.includes('/changesets')
                ? 'changesets'
                : 'iModel';
      parts[part](response, request);
    };
  }

  /** Mirrors in this process, and returns the error. */
  async function refusalOf(parts: Partial<Parts>, ...options: string[]): Promise<ExitError> {
    answerWith({ ...honest(), ...parts });
    const token = await server.token('olivia');
    try {
      await mirrorCommand().parseAsync(
        [
          `${source.origin}/imodels/x`,
          '--source-token',
          'secret',
          '--url',
          server.origin,
          '--token',
          token,
          '--itwin',
          iTwinId,
          '--json',
          '--timeout',
          '0.2',
          ...options,
        ],
        { from: 'user' },
      );
    } catch (error) {
      assert.ok(error instanceof ExitError, (error as Error).stack);
      return error;
    }
    throw new Error('the command was not refused');
  }

  test('is refused on this machine, unless the operator allows it', async () => {
    const before = source.requests.length;
    assert.match((await refusalOf({})).message, /is not allowed: it is not encrypted/);
    assert.equal(source.requests.length, before);
  });

  for (const address of [
    'https://127.0.0.1:1',
    'https://[::1]:1',
    'https://localhost:1',
    'https://169.254.169.254',
    'https://10.0.0.1',
    'https://[::ffff:127.0.0.1]:1',
  ])
    test(`cannot redirect to ${address}`, async () => {
      const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-mirror-test-'));
      try {
        await assert.rejects(
          downloadFile({ url: `${address}/file`, size: 10, what: 'the file' }, path.join(folder, 'file'), {
            silenceMs: 2000,
            outlet: filtered(false),
          }),
          /the file was not downloaded: .* is not allowed/,
        );
        assert.deepEqual(readdirSync(folder), []);
      } finally {
        rmSync(folder, { recursive: true, force: true });
      }
    });

  test('cannot redirect to a service of this machine', async () => {
    const folder = mkdtempSync(path.join(tmpdir(), 'offshoot-mirror-test-'));
    const inner = await StubServer.start('127.0.0.2');
    inner.answer = (_request, response) => void response.end('0123456789');
    // The source counts as a public address; all other addresses are filtered as usual.
    const outlet: Outlet = {
      ...filtered(false),
      http: new RequestFilteringHttpAgent({ allowIPAddressList: ['127.0.0.1'] }),
      encryptedOnly: false,
    };
    const fetchTo = () =>
      downloadFile({ url: `${source.origin}/file`, size: 10, what: 'the file' }, path.join(folder, 'file'), {
        silenceMs: 2000,
        outlet,
      });
    try {
      answerWith({ ...honest(), file: (response) => void response.end('0123456789') });
      await fetchTo();
      for (const location of [`${inner.origin}/secret`, 'file:///etc/passwd']) {
        answerWith({ ...honest(), file: (response) => void response.writeHead(307, { location }).end() });
        await assert.rejects(fetchTo(), /the file was not downloaded: .* is not allowed/);
      }
      assert.deepEqual(inner.requests, []);
    } finally {
      await inner.close();
      rmSync(folder, { recursive: true, force: true });
    }
  });

  /** Answers a page of a list that always has a next page. */
  const endless = (key: string, items: unknown[]) => {
    let page = 0;
    return (response: ServerResponse) =>
      json({ [key]: items, _links: { next: { href: `${source.origin}/imodels/x/${key}?page=${++page}` } } })(response);
  };
  const pages = endless('changesets', []);
  const briefcases = Array.from({ length: 50_000 }, () => ({ id: '7' }));
  const attacks: [name: string, parts: () => Partial<Parts>, message: RegExp][] = [
    [
      'pages without an item for ever',
      () => ({ latest: pages, changesets: pages }),
      /the list of changesets does not end: 11 of its pages in a row are empty/,
    ],
    [
      'pages of briefcases for ever',
      () => ({ briefcases: endless('briefcases', briefcases) }),
      /the list of briefcases does not end: it has more than 100000 items/,
    ],
    [
      'a history without end',
      () => ({ latest: json({ changesets: [{ ...listed, index: 9e15 }] }) }),
      /index must be <= 1000000/,
    ],
    [
      'JSON for ever',
      () => ({ iModel: (response) => writeEndlessly(response.writeHead(200), Buffer.alloc(1024 * 1024, ' ')) }),
      /a response of the server is larger than 64 MiB/,
    ],
    [
      'a file for ever',
      () => ({ file: (response) => writeEndlessly(response.writeHead(200), Buffer.alloc(1024)) }),
      /the baseline is larger than the announced 4096 bytes/,
    ],
    ['a byte now and then for ever', () => ({ file: trickle }), /the download of the baseline did not end within 4 s/],
    [
      'a file larger than any disk',
      () => ({
        baseline: json({
          baselineFile: { ...baseline, fileSize: 9e15, _links: { download: { href: `${source.origin}/file` } } },
        }),
      }),
      /the baseline is announced with 9000000000000000 bytes, and .* has room for/,
    ],
    [
      'redirects for ever',
      () => ({ file: (response) => void response.writeHead(302, { location: `/file?${Math.random()}` }).end() }),
      /it was redirected more than 5 times/,
    ],
    [
      'rate limits that end at once for ever',
      () => ({ iModel: (response) => void response.writeHead(429, { 'retry-after': '0' }).end('{}') }),
      /the server answered 429/,
    ],
    [
      'rate limits that ended in the past for ever',
      () => ({ iModel: (response) => void response.writeHead(429, { 'retry-after': '-5' }).end('{}') }),
      /the server answered 429/,
    ],
  ];
  for (const [name, parts, message] of attacks)
    test(`that sends ${name} is aborted`, { timeout: 120_000 }, async () => {
      assert.match((await refusalOf(parts(), '--private-source')).message, message);
    });
});

/** Writes as fast as the reader reads, until it disconnects. */
function writeEndlessly(response: ServerResponse, piece: Buffer): void {
  const write = (): void => {
    while (!response.destroyed && response.write(piece));
  };
  response.on('drain', write);
  write();
}

/** Writes a byte often enough not to count as stalled, until the reader disconnects. */
function trickle(response: ServerResponse): void {
  response.writeHead(200, { 'content-length': 4096, etag: '"1"' });
  const timer = setInterval(() => (response.destroyed ? clearInterval(timer) : response.write('x')), 50);
}
