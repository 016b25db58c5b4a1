/**
 * Attacks with the longest accepted text wherever input is matched against a pattern. The tests measure the processor time of a
 * server in a separate process: linear work on a text of this size takes milliseconds, quadratic work minutes.
 */
import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { request } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { makeIModel, type MadeIModel } from '../support/clients.ts';
import { IsolatedServer } from '../support/isolatedServer.ts';

/** Maximum processor time of one request, milliseconds, on a machine that has other load too. */
const mostMs = 1500;
/** Almost the maximum size of headers in Node: 16 KiB. */
const headLength = 15_000;
/** Almost the maximum size of a request body: 1 MiB. */
const bodyLength = 1_040_000;

describe('A long text', () => {
  let server: IsolatedServer;
  let made: MadeIModel;
  let iTwinId: string;
  before(async () => {
    server = await IsolatedServer.start();
    iTwinId = await server.iTwin();
    made = await makeIModel(await server.official(), iTwinId, { changesets: 1 });
  });
  after(() => server?.end());

  /** Sends a request with unmodified headers. @returns its status */
  async function send(
    method: string,
    url: string,
    headers: Record<string, string>,
    body?: string | Buffer,
  ): Promise<number> {
    const target = url.startsWith('http') ? url : `${server.origin}${url}`;
    return new Promise((resolve, reject) => {
      const sent = request(
        target,
        {
          method,
          // A connection that was kept may be closed by the server in the moment in which a slow machine uses it again.
          agent: false,
          headers: { ...(url.startsWith('http') ? {} : { authorization: `Bearer ${server.token}` }), ...headers },
          signal: AbortSignal.timeout(60_000),
        },
        (response) => {
          response.resume();
          response.once('end', () => resolve(response.statusCode ?? 0));
          response.once('error', reject);
        },
      );
      sent.once('error', reject);
      sent.end(body);
    });
  }

  /** @param expected statuses of a refusal or a success, never of a server error */
  async function isCheap(what: string, expected: readonly number[], attack: () => Promise<number>): Promise<void> {
    const { result, cpuMs } = await server.measureCpu(attack);
    assert.ok(expected.includes(result), `${what} is answered ${result}`);
    assert.ok(cpuMs < mostMs, `${what} took ${cpuMs} ms of processor time`);
  }

  test('in any header of a download does not block the server', async () => {
    const { href } = (
      (await (await server.api()).get(`/imodels/${made.id}/changesets/1`)).body as {
        changeset: { _links: { download: { href: string } } };
      }
    ).changeset._links.download;
    const fills: Record<string, string> = {
      spaces: `"a",${' '.repeat(headLength)}x`,
      'opened quotes': `${'"'.repeat(headLength)}x`,
      'weak marks': 'W/"'.repeat(headLength / 3),
      commas: `${','.repeat(headLength)}x`,
      'spaced commas': `${' ,'.repeat(headLength / 2)}x`,
      digits: `bytes=${'0'.repeat(headLength)}x`,
      'ranges of spaces': `bytes ${' '.repeat(headLength)}=0-1`,
      'many ranges': `bytes=${'0-1,'.repeat(headLength / 4)}`,
    };
    for (const header of [
      'if-match',
      'if-none-match',
      'if-range',
      'range',
      'x-ms-range',
      'prefer',
      'origin',
      'accept',
      'x-ms-version',
      'content-type',
    ])
      for (const [fill, value] of Object.entries(fills))
        await isCheap(`${header} of ${fill}`, [200, 206, 304, 307, 400, 403, 412, 416], () =>
          send('GET', href, { range: 'bytes=0-1', [header]: value }),
        );
  });

  test('in any header of an API request does not block the server', async () => {
    const fills: Record<string, string> = {
      spaces: `application/json; charset=${' '.repeat(headLength)}x y`,
      quotes: `application/json; charset="${' "'.repeat(headLength / 2)}x`,
      parameters: `application/json${'; a=b '.repeat(headLength / 6)}`,
      slashes: `${'/'.repeat(headLength)}a`,
      dots: `${'a.'.repeat(headLength / 2)}:`,
      'equal signs': `return${'='.repeat(headLength)}`,
    };
    for (const header of [
      'content-type',
      'accept',
      'prefer',
      'idempotency-key',
      'x-forwarded-prefix',
      'x-forwarded-host',
      'x-forwarded-for',
      'traceparent',
      'host',
      'origin',
      'authorization',
    ])
      for (const [fill, value] of Object.entries(fills))
        await isCheap(`${header} of ${fill}`, [201, 400, 401, 409, 415, 422], () =>
          send(
            'POST',
            '/imodels',
            { 'content-type': 'application/json', [header]: value },
            JSON.stringify({ iTwinId, name: randomUUID() }),
          ),
        );
  });

  test('in any query parameter does not block the server', async () => {
    const fills: Record<string, string> = {
      spaces: `a${'+'.repeat(headLength)}b`,
      quotes: "'".repeat(headLength / 4),
      'opened quotes': "'a".repeat(headLength / 5),
      parentheses: '('.repeat(headLength),
      percents: '%'.repeat(headLength),
      'bytes that are no UTF-8': '%ff'.repeat(headLength / 3),
      commas: ','.repeat(headLength),
      words: 'not+'.repeat(headLength / 4),
      'equal signs': '='.repeat(headLength),
    };
    for (const path of ['/itwins', `/imodels`, `/imodels/${made.id}/changesets`, `/imodels/${made.id}/namedversions`])
      for (const parameter of ['$filter', '$select', '$orderBy', '$search', '$continuationToken', 'name', 'subClass'])
        for (const [fill, value] of Object.entries(fills))
          await isCheap(`${parameter} of ${fill}`, [200, 400, 422], () =>
            send('GET', `${path}?iTwinId=${iTwinId}&${parameter}=${value}`, {}),
          );
    for (const many of ['a', 'a=1', '$top=1', 'a=%ff', '%ff'])
      await isCheap(`many times ${many}`, [200, 400, 422], () =>
        send('GET', `/imodels?iTwinId=${iTwinId}&${`${many}&`.repeat(Math.floor(headLength / (many.length + 1)))}`, {}),
      );
    await isCheap('a path of slashes', [404], () => send('GET', `/${'/'.repeat(headLength)}a`, {}));
  });

  test('in any property of a body does not block the server', async () => {
    const fills: Record<string, string> = {
      spaces: `a${' '.repeat(bodyLength)}b`,
      'equal signs': `${'='.repeat(bodyLength)}a`,
      zeros: `0x${'0'.repeat(bodyLength)}`,
      slashes: `${'/'.repeat(bodyLength)}a`,
      'combining marks': `a${'\u0323\u0301'.repeat(bodyLength / 4)}`,
      dots: `${'a.'.repeat(bodyLength / 2)}@`,
    };
    const bodies: [method: string, path: string, body: (value: string) => unknown][] = [
      ['POST', '/imodels', (value) => ({ iTwinId, name: value })],
      ['POST', '/imodels', (value) => ({ iTwinId, name: 'a', description: value })],
      ['POST', '/imodels', (value) => ({ iTwinId: value, name: 'a' })],
      [
        'POST',
        '/imodels',
        (value) => ({
          iTwinId,
          name: 'a',
          creationMode: 'empty',
          geographicCoordinateSystem: { horizontalCRSId: value },
        }),
      ],
      ['POST', `/imodels/${made.id}/clone`, (value) => ({ iTwinId, changesetId: value })],
      [
        'POST',
        `/imodels/${made.id}/changesets`,
        (value) => ({ id: value, parentId: value, briefcaseId: 2, fileSize: 1 }),
      ],
      ['POST', `/imodels/${made.id}/changesets/1/extendeddata`, (value) => ({ data: value })],
      [
        'PATCH',
        `/imodels/${made.id}/locks`,
        (value) => ({ briefcaseId: 2, lockedObjects: [{ lockLevel: 'shared', objectIds: [value] }] }),
      ],
      ['POST', `/imodels/${made.id}/shares`, (value) => ({ name: 'a', permission: 'imodels_read', expiresAt: value })],
      [
        'POST',
        '/itwins',
        (value) => ({ displayName: value, class: 'Endeavor', subClass: 'Project', number: value.slice(0, 500_000) }),
      ],
      ['POST', `/itwins/${iTwinId}/repositories`, (value) => ({ class: 'iModels', uri: value })],
      [
        'POST',
        `/itwins/${iTwinId}/webhooks`,
        (value) => ({ callbackUrl: `https://${value}`, eventTypes: ['iModels.iModelCreated.v1'] }),
      ],
      [
        'POST',
        `/accesscontrol/itwins/${iTwinId}/members/users`,
        (value) => ({ members: [{ email: value, roleIds: ['a'] }] }),
      ],
    ];
    for (const [method, path, body] of bodies)
      for (const [fill, value] of Object.entries(fills)) {
        const sent = JSON.stringify(body(value)).slice(0, 1_048_576);
        await isCheap(`${method} ${path} with ${fill}`, [400, 404, 413, 422], () =>
          send(method, path, { 'content-type': 'application/json' }, sent),
        );
      }
  });

  test('as a block list does not block the server', async () => {
    const api = await server.api();
    const { iModel } = (await api.post('/imodels', { iTwinId, name: randomUUID(), baselineFile: { size: 10 } }))
      .body as { iModel: { _links: { upload: { href: string } } } };
    const mebibytes = 8 * 1024 * 1024 - 100;
    for (const unit of [
      '<BlockList>',
      '<Latest>',
      '<Latest>AAAA</Latest>',
      '<Latest>A</Committed>',
      '<',
      '</BlockList>',
    ])
      for (const list of [
        unit.repeat(Math.floor(mebibytes / unit.length)),
        `<BlockList>${unit.repeat(Math.floor(mebibytes / unit.length))}</BlockList>`,
        `<BlockList><Latest>${'A'.repeat(mebibytes / 2)}`,
      ])
        await isCheap(`a list of ${unit}`, [400, 413], () =>
          send('PUT', `${iModel._links.upload.href}&comp=blocklist`, {}, list),
        );
  });
});
