/**
 * Attacks with bodies of the largest accepted size that are nested deeply or contain very many values: each is refused, costs no
 * more than parsing it, and gets a bounded number of errors reported.
 */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { routes } from '../../apps/server/src/api/routes.ts';
import { shapeOf } from '../../apps/server/src/api/jsonShape.ts';
import type { Answer, WireError } from '../support/api.ts';
import { IsolatedServer } from '../support/isolatedServer.ts';
import { makeIModel } from '../support/clients.ts';

/** Maximum processor time of one request, milliseconds, on a machine that has other load too. */
const mostMs = 1500;
const bodyLength = 1_040_000;

/** JSON texts of one value, nested or repeated as often as a body has room for. */
const hostile: Record<string, (times: (unit: string) => string) => string> = {
  'arrays in arrays': (times) => times('[').concat(times(']')),
  'objects in objects': (times) => `${times('{"a":')}1${times('}')}`,
  'arrays that never close': (times) => times('['),
  numbers: (times) => `[${times('1,')}1]`,
  objects: (times) => `[${times('{},')}{}]`,
  nulls: (times) => `[${times('null,')}null]`,
  'empty texts': (times) => `[${times('"",')}""]`,
};

describe('A request body', () => {
  let server: IsolatedServer;
  let iModelId: string;
  let iTwinId: string;
  before(async () => {
    server = await IsolatedServer.start();
    iTwinId = await server.iTwin();
    iModelId = (await makeIModel(await server.official(), iTwinId, { changesets: 1 })).id;
  });
  after(() => server?.end());

  async function refused(method: string, path: string, body: string, what: string): Promise<Answer> {
    const api = await server.api();
    const { result, cpuMs } = await server.measureCpu(() =>
      api.send(method, path, body, { 'content-type': 'application/json' }),
    );
    assert.ok(
      result.status >= 400 && result.status < 500,
      `${what} answers ${result.status} ${JSON.stringify(result.body)?.slice(0, 300)}`,
    );
    assert.ok(cpuMs < mostMs, `${what} took ${cpuMs} ms of processor time`);
    return result;
  }

  for (const [what, text] of Object.entries(hostile))
    test(`of ${what}, in any property of any route, is refused at low cost`, async () => {
      for (const route of routes.filter(({ body }) => body !== undefined)) {
        const path = route.path
          .replace(':iTwinId', iTwinId)
          .replace(':iModelId', iModelId)
          .replace(':changeset', '1')
          .replace(/:\w+/g, 'x');
        const properties = Object.keys((route.body as { properties?: object } | undefined)?.properties ?? {});
        const room = Math.floor(bodyLength / Math.max(1, properties.length));
        // All properties in one body: each is validated.
        const value = text((unit) => unit.repeat(Math.floor(room / unit.length / 2)));
        await refused(
          route.method,
          path,
          `{${properties.map((property) => `"${property}":${value}`).join(',')}}`,
          route.operationId,
        );
      }
    });

  test('with as many errors as it may have values gets at most a hundred of them reported', async () => {
    for (const members of [900, 6000]) {
      const body = JSON.stringify({ members: Array.from({ length: members }, () => ({ email: 5 })) });
      const answer = await refused(
        'POST',
        `/accesscontrol/itwins/${iTwinId}/members/users`,
        body,
        `${members} members`,
      );
      const { details = [] } = (answer.body as WireError).error;
      assert.ok(details.length > 0 && details.length <= 100, `${details.length} details`);
    }
  });

  test('with very many properties is refused at low cost', async () => {
    const many = Array.from({ length: 60_000 }, (_, n) => `"p${n}":1`).join(',');
    await refused('POST', '/imodels', `{"iTwinId":"${iTwinId}","name":"a",${many}}`, 'many properties');
    await refused(
      'POST',
      '/imodels',
      `{"iTwinId":"${iTwinId}","name":"a","extent":{${many}}}`,
      'many properties of a property',
    );
  });

  test('nested less than 32 levels deep is validated by its schema, a deeper one is refused by its depth', async () => {
    const nested = (depth: number): string =>
      `{"iTwinId":"${iTwinId}","name":"a","extent":${'['.repeat(depth - 1)}${']'.repeat(depth - 1)}}`;
    const messageOf = (answer: Answer): string | undefined => (answer.body as WireError).error.details?.[0]?.message;
    assert.doesNotMatch(messageOf(await refused('POST', '/imodels', nested(32), 'a depth of 32')) ?? '', /levels/);
    assert.equal(
      messageOf(await refused('POST', '/imodels', nested(33), 'a depth of 33')),
      'The request body is nested more than 32 levels deep.',
    );
  });

  test('is measured by its structure, not by the content of its strings', () => {
    assert.deepEqual(shapeOf('{"a": "[[[[{,,,\\"[[[", "b": [1, {"c": "\\\\"}]}'), { depth: 3, values: 6 });
  });
});
