import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { bodyCheck } from '../../apps/server/src/api/validation.ts';
import { routes } from '../../apps/server/src/api/routes.ts';
import { declaredPropertiesMigration } from '../../apps/server/src/db/migrations/0019-declared-properties.ts';
import { maxExtendedDataBytes } from '../../apps/server/src/changesets/extendedData.ts';
import type { WireError } from '../support/api.ts';
import { makeIModel, type MadeIModel } from '../support/clients.ts';
import { onEachStore } from '../support/suite.ts';

interface Schema {
  type?: string | string[];
  enum?: unknown[];
  not?: unknown;
  pattern?: string;
  maxLength?: number;
  maxItems?: number;
  uniqueItems?: boolean;
  items?: Schema;
  properties?: Record<string, Schema>;
  anyOf?: unknown;
  additionalProperties?: unknown;
}

/** Bounded by their handlers, as documented in the API: 413 above 1,000 object ids; a maximum number of characters of JSON. */
const boundedByHandler = [
  'update-imodel-locks.lockedObjects',
  'update-imodel-locks.lockedObjects[].objectIds',
  'create-repository.options',
  'update-repository.options',
];

/** The parts of a body's schema that have no bound. */
function unboundedIn(schema: Schema, place: string): string[] {
  if (schema.enum !== undefined || schema.not !== undefined || boundedByHandler.includes(place))
    return below(schema, place);
  const types = [schema.type ?? 'anything'].flat();
  const faults: string[] = [];
  if (schema.anyOf !== undefined || types.includes('anything')) faults.push(`${place}: of any kind`);
  // A pattern without unbounded repetition is a bound too.
  if (
    types.includes('string') &&
    schema.maxLength === undefined &&
    (schema.pattern === undefined || /[*+]|,\}/.test(schema.pattern.replace('(?=0*', '')))
  )
    faults.push(`${place}: text of any length`);
  if (
    types.includes('array') &&
    schema.maxItems === undefined &&
    !(schema.uniqueItems === true && schema.items?.enum !== undefined)
  )
    faults.push(`${place}: a list of any length`);
  if (types.includes('object') && (schema.properties === undefined || (schema.additionalProperties ?? false) !== false))
    faults.push(`${place}: any properties`);
  return [...faults, ...below(schema, place)];
}

function below(schema: Schema, place: string): string[] {
  const inner = Object.entries(schema.properties ?? {}).flatMap(([name, each]) =>
    unboundedIn(each, `${place}.${name}`),
  );
  return schema.items === undefined || schema.maxItems === 0
    ? inner
    : [...inner, ...unboundedIn(schema.items, `${place}[]`)];
}

describe('The content of a request body', () => {
  test('is bounded for each string, array and object of every operation', () => {
    const faults = routes.flatMap(({ operationId, body }) =>
      body === undefined ? [] : unboundedIn(body as Schema, operationId),
    );
    assert.deepEqual(faults, []);
  });

  test('is limited to declared properties: all others are removed at every depth before a handler runs', () => {
    const schema = routes.find(({ operationId }) => operationId === 'create-imodel')?.body;
    assert.ok(schema !== undefined);
    const corner = { latitude: 1, longitude: 2 };
    const body = {
      iTwinId: 'a',
      name: 'b',
      x: 1,
      extent: { x: [], southWest: { ...corner, x: {} }, northEast: { ...corner, '': 0 } },
      template: { iModelId: 'c', constructor: 'd' },
    };
    assert.deepEqual(bodyCheck(schema)(body), []);
    assert.deepEqual(body, {
      iTwinId: 'a',
      name: 'b',
      extent: { southWest: corner, northEast: corner },
      template: { iModelId: 'c' },
    });
  });
});

onEachStore('A client that sends undeclared or excessive data', {}, (context) => {
  const corner = { latitude: 1, longitude: 2 };
  const extent = { southWest: corner, northEast: { latitude: 3, longitude: 4 } };
  const ballast = 'x'.repeat(250_000);
  const stored = async (id: string): Promise<string> =>
    JSON.stringify(
      await context.server.services.database.db
        .selectFrom('imodel')
        .selectAll()
        .where('id', '=', id)
        .executeTakeFirstOrThrow(),
    );

  test('stores none of it: not in an iModel, its clones, the audit log or a list', async () => {
    const heavy = { ...extent, x: ballast, southWest: { ...corner, x: ballast } };
    const created = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: randomUUID(),
      extent: heavy,
      ballast,
    });
    assert.equal(created.status, 201, JSON.stringify(created.body).slice(0, 500));
    const { iModel } = created.body as { iModel: { id: string; extent: unknown } };
    assert.deepEqual(iModel.extent, extent);
    assert.equal((await context.api.patch(`/imodels/${iModel.id}`, { extent: heavy })).status, 200);
    const clone = await context.api.post(`/imodels/${iModel.id}/clone`, {
      iTwinId: context.iTwinId,
      name: randomUUID(),
    });
    const cloneId = (clone.headers.get('location') ?? '').split('/').at(-1) ?? '';
    for (const id of [iModel.id, cloneId]) {
      const row = await stored(id);
      assert.ok(row.includes('latitude') && row.length < 2000, row.slice(0, 500));
    }
    const repository = await context.api.post(`/itwins/${context.iTwinId}/repositories`, {
      class: 'Forms',
      uri: `https://${randomUUID()}.example`,
      authentication: { type: 'Basic', username: 'u', password: 'p', ballast },
    });
    assert.equal(repository.status, 201);
    const list = await context.api.get(`/imodels?iTwinId=${context.iTwinId}`, { prefer: 'return=representation' });
    assert.ok(JSON.stringify([list.body, repository.body]).length < 20_000);
    const entries = await context.server.services.database.db.selectFrom('audit').select('detail').execute();
    assert.ok(entries.every(({ detail }) => !detail.includes(ballast)));
  });

  test('stores none of what an earlier version accepted', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const { db } = context.server.services.database;
    const heavy = JSON.stringify({ northEast: { ...corner, z: 5 }, x: ballast, southWest: corner });
    await db.updateTable('imodel').set({ extent: heavy }).where('id', '=', id).execute();
    await db.transaction().execute((tx) => declaredPropertiesMigration().up(tx));
    assert.deepEqual(
      (JSON.parse(await stored(id)) as { extent: string }).extent,
      JSON.stringify({ northEast: corner, southWest: corner }),
    );
  });

  /** Pushes a changeset with the maximum of synchronization info, and attaches the maximum of extended data. */
  async function pushHeavy(made: MadeIModel, parentId: string): Promise<string> {
    const bytes = Buffer.from(randomUUID());
    const id = createHash('sha1').update(parentId).update(bytes).digest('hex');
    const changedFiles = Array.from({ length: 204 }, (_, n) => String(n).padEnd(1000, '.'));
    const begun = await context.api.post(`/imodels/${made.id}/changesets`, {
      id,
      parentId,
      briefcaseId: made.briefcaseId,
      fileSize: bytes.length,
      synchronizationInfo: { taskId: 'task', changedFiles },
    });
    assert.equal(begun.status, 201, JSON.stringify(begun.body).slice(0, 500));
    const { _links } = (
      begun.body as { changeset: { _links: { upload: { href: string }; complete: { href: string } } } }
    ).changeset;
    assert.equal(
      (await fetch(_links.upload.href, { method: 'PUT', headers: { 'x-ms-blob-type': 'BlockBlob' }, body: bytes }))
        .status,
      201,
    );
    assert.equal(
      (await context.api.patch(_links.complete.href, { state: 'fileUploaded', briefcaseId: made.briefcaseId })).status,
      200,
    );
    const data = Buffer.from(JSON.stringify('y'.repeat(maxExtendedDataBytes - 2))).toString('base64');
    assert.equal((await context.api.post(`/imodels/${made.id}/changesets/${id}/extendeddata`, { data })).status, 201);
    return id;
  }

  test('gets pages of a few megabytes, which link to everything in both directions', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    made.briefcaseId = (
      await context.olivia.client.briefcases.acquire({ authorization: context.olivia.authorization, iModelId: made.id })
    ).briefcaseId;
    const count = 30;
    let head = '';
    for (let n = 0; n < count; n++) head = await pushHeavy(made, head);

    const mostBytes = 4 * 2 ** 20 + 400_000;
    for (const [path, key, index] of [
      [`/imodels/${made.id}/changesets`, 'changesets', 'index'],
      [`/imodels/${made.id}/changesets/extendeddata`, 'extendedData', 'changesetIndex'],
    ] as const) {
      for (const start of [`${path}?$top=1000`, `${path}?$top=1000&$skip=0`]) {
        const found: number[][] = [];
        let next: string | undefined = start;
        let prev: string | undefined;
        while (next !== undefined) {
          const { status, body } = await context.api.get(next, { prefer: 'return=representation' });
          assert.equal(status, 200);
          assert.ok(JSON.stringify(body).length < mostBytes, `${next} is ${JSON.stringify(body).length} bytes`);
          const page = body as Record<string, Record<string, number>[]> & {
            _links: Record<'next' | 'prev', { href: string } | null>;
          };
          found.push((page[key] ?? []).map((item) => item[index] as number));
          next = page._links.next?.href;
          prev = page._links.prev?.href;
        }
        assert.ok(found.length > 1, start);
        assert.deepEqual(
          found.flat(),
          Array.from({ length: count }, (_, n) => n + 1),
          start,
        );
        const back = (await context.api.get(prev ?? assert.fail('no way back'), { prefer: 'return=representation' }))
          .body as Record<string, Record<string, number>[]>;
        if (!start.includes('$skip')) assert.equal(back[key]?.at(-1)?.[index], (found.at(-1)?.[0] ?? 0) - 1);
      }
    }

    const tooMuch = await context.api.post(`/imodels/${made.id}/changesets`, {
      id: 'a'.repeat(40),
      parentId: head,
      briefcaseId: made.briefcaseId,
      fileSize: 1,
      synchronizationInfo: { taskId: 'task', changedFiles: Array.from({ length: 205 }, () => 'é'.repeat(500)) },
    });
    assert.deepEqual(
      [tooMuch.status, (tooMuch.body as WireError).error.details?.[0]?.target],
      [422, 'synchronizationInfo'],
    );
  });

  test('cannot pad extended data', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const path = `/imodels/${made.id}/changesets/1/extendeddata`;
    for (const data of [
      `e30${'='.repeat(900_000)}`,
      `e30${'='.repeat(200_000)}x`,
      'e30===',
      `e30=${' '.repeat(1000)}`,
    ]) {
      const { status, body } = await context.api.post(path, { data });
      assert.deepEqual([status, (body as WireError).error.details?.[0]?.target], [422, 'data'], data.slice(0, 10));
    }
    assert.equal((await context.api.post(path, { data: 'e30' })).status, 201);
  });
});
