import assert from 'node:assert/strict';
import { fork } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { before, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import {
  IModelReadRpcInterface,
  IModelTileRpcInterface,
  RpcInterface,
  SnapshotIModelRpcInterface,
} from '@itwin/core-common';
import { ECSchemaRpcInterface } from '@itwin/ecschema-rpcinterface-common';
import { PresentationRpcInterface } from '@itwin/presentation-common';
import type { FastifyBaseLogger } from 'fastify';
import pino from 'pino';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { kindOf, refusedOperations } from '../apps/server/src/viewer/operations.ts';
import { TileCache } from '../apps/server/src/viewer/tileCache.ts';
import { pushSample, sampleChangesets } from '../scripts/sample.ts';
import { Api, type Answer, type WireError } from './support/api.ts';
import { makeIModel, official, workFolder } from './support/clients.ts';
import { freePort } from './support/freePort.ts';
import { endServer, Installation, type TestServer } from './support/server.ts';
import { onEachDatabase, onEachStore, onOneDatabase } from './support/suite.ts';
import { until } from './support/until.ts';
import {
  addressOf,
  call,
  cloneOf,
  makePlant,
  processOf,
  read,
  tileOf,
  tokenOf,
  viewerConfig as config,
  type Place,
} from './support/viewerCalls.ts';

const skip = isITwinJsInstalled() ? false : 'iTwin.js is not installed';
/** Takes several seconds. */
const longQuery =
  'WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 30000000) SELECT count(*) FROM numbers';

/** The interfaces that viewers know, and what each operation of them is called in an address. */
const interfaces = [
  IModelReadRpcInterface,
  IModelTileRpcInterface,
  // eslint-disable-next-line @typescript-eslint/no-deprecated -- viewers of 5.x still register it
  SnapshotIModelRpcInterface,
  ECSchemaRpcInterface,
  PresentationRpcInterface,
  // That of iTwin.js 4, which the back end answers as well.
  {
    interfaceName: 'PresentationRpcInterface',
    interfaceVersion: '4.1.0',
    prototype: PresentationRpcInterface.prototype,
  },
] as unknown as { interfaceName: string; interfaceVersion: string; prototype: object }[];
const operations = interfaces.flatMap(({ interfaceName, interfaceVersion, prototype }) =>
  Object.getOwnPropertyNames(prototype)
    .filter((name) => !(name in RpcInterface.prototype))
    .map((name) => ({ name: `${interfaceName}.${name}`, address: `${interfaceName}-${interfaceVersion}-${name}` })),
);

/** The models of a plant as a tree, and the properties of each. */
const rulesetOrId = {
  id: 'suite',
  rules: [
    {
      ruleType: 'RootNodes',
      specifications: [
        {
          specType: 'InstanceNodesOfSpecificClasses',
          classes: [{ schemaName: 'BisCore', classNames: ['PhysicalModel'] }],
          groupByClass: false,
          groupByLabel: false,
        },
      ],
    },
    { ruleType: 'Content', specifications: [{ specType: 'SelectedNodeInstances' }] },
  ],
};

/** A node in the form of iTwin.js 4. */
interface Node4 {
  key: { instanceKeys: { className: string; id: string }[] };
  labelDefinition: { displayValue: string };
}

const codeOf = ({ body }: Answer): string => (body as WireError).error.code;

test('every operation of the interfaces is either permitted or refused with a reason', () => {
  assert.ok(operations.length > 60);
  for (const { name } of operations) assert.notEqual(kindOf(name) === undefined, !refusedOperations.has(name), name);
});

onEachDatabase('A viewer', config, (context) => {
  let place: Place;
  before(async () => {
    if (skip === false) place = { iTwinId: context.iTwinId, iModelId: await makePlant(context, 300) };
  });

  test('opens an iModel, reads elements and schemas, and shows a tree and properties', { skip }, async () => {
    const { api } = context;
    const opened = await call(api, place, `${read}getConnectionProps`);
    assert.equal(opened.status, 200, JSON.stringify(opened.body));
    const { iModelId, iTwinId, rootSubject } = opened.body as Place & { rootSubject: { name: string } };
    assert.deepEqual({ iModelId, iTwinId, name: rootSubject.name }, { ...place, name: 'Plant' });
    const counted = await call(api, place, `${read}queryRows`, {
      query: 'SELECT count(*) FROM Generic.PhysicalObject',
    });
    assert.deepEqual((counted.body as { data: unknown }).data, [[300]]);
    const schemas = (await call(api, place, 'ECSchemaRpcInterface-2.0.0-getSchemaKeys')).body as { name: string }[];
    assert.ok(schemas.some(({ name }) => name === 'BisCore'));
    const nodes = await call(api, place, 'PresentationRpcInterface-5.0.0-getNodesCount', { rulesetOrId });
    assert.deepEqual(nodes.body, { statusCode: 0, result: 3 });
    const element = await call(api, place, `${read}queryRows`, {
      query: 'SELECT ECInstanceId FROM Generic.PhysicalObject LIMIT 1',
    });
    const [[elementId] = []] = (element.body as { data: string[][] }).data;
    const properties = await call(api, place, 'PresentationRpcInterface-5.0.0-getElementProperties', { elementId });
    assert.match(JSON.stringify(properties.body), /element \d+/);
  });

  test('may be built on core-frontend up to 5.13, whose interface for reading is 3.8.0', { skip }, async () => {
    const get = async (version: string): Promise<Answer> =>
      call(context.api, place, `IModelReadRpcInterface-${version}-getDefaultViewId`);
    for (const version of ['3.7.0', '3.8.0']) assert.deepEqual((await get(version)).body, '0', version);
    for (const version of ['3.9.0', '4.0.0']) assert.equal((await get(version)).status, 403, version);
  });

  test('may be built on iTwin.js 4, and is answered in the form of its interface', { skip }, async () => {
    const ask = async (operation: string, ...rest: unknown[]): Promise<{ statusCode: number; result: never }> => {
      const { status, body } = await call(context.api, place, `PresentationRpcInterface-4.1.0-${operation}`, ...rest);
      assert.equal(status, 200, JSON.stringify(body));
      return body as { statusCode: number; result: never };
    };
    const label = { displayValue: 'Equipment', typeName: 'string', rawValue: 'Equipment' };
    const { result } = await ask('getPagedNodes', { rulesetOrId, paging: { start: 0, size: 9 } });
    const { items } = result as { items: Node4[] };
    const node = items.find(({ labelDefinition }) => labelDefinition.displayValue === label.displayValue);
    assert.deepEqual([items.length, node?.labelDefinition, 'label' in (node ?? {})], [3, label, false]);
    const instances = node?.key.instanceKeys ?? [];
    const [found] = (await ask('getNodePaths', { rulesetOrId, instancePaths: [instances] })).result as {
      node: Node4;
      filteringData: object;
    }[];
    assert.deepEqual(
      [found?.node.labelDefinition, found?.filteringData],
      [label, { occurances: 0, childrenOccurances: 0 }],
    );
    const keys = { instanceKeys: [[instances[0]?.className, [instances[0]?.id]]], nodeKeys: [] };
    const asked = { rulesetOrId, displayType: 'Grid', keys };
    // Front ends before and after `transport` was added.
    const parsed = (await ask('getContentDescriptor', asked)).result as object;
    const unparsed = (await ask('getContentDescriptor', { ...asked, transport: 'unparsed-json' })).result as string;
    assert.ok('fields' in parsed && 'fields' in (JSON.parse(unparsed) as object));
    const named = { elementIds: ['0x1'], scope: { id: 'element' } };
    const { result: selected } = await ask('computeSelection', named);
    assert.deepEqual((await ask('computeSelection', {}, ['0x1'], 'element')).result, selected);
    const failed = await ask('getDisplayLabelDefinition', { key: { className: 'No:Such', id: '0x1' } });
    assert.equal(failed.statusCode, 65539);
    const { status } = await call(context.api, place, 'PresentationRpcInterface-3.2.0-getNodesCount', {
      rulesetOrId,
    });
    assert.equal(status, 403);
  });

  test('is answered by GET too, as front ends send calls whose answers do not change', { skip }, async () => {
    const parameters = Buffer.from(JSON.stringify([tokenOf(place)])).toString('base64');
    const { status, body } = await context.api.get(
      `${addressOf(place, `${read}getDefaultViewId`)}?parameters=${encodeURIComponent(parameters)}`,
    );
    assert.deepEqual([status, body], [200, '0']);
  });

  test(
    'is refused every operation without a token, of another tenant, and with the key of another iModel',
    { skip },
    async () => {
      const { api, server } = context;
      const foreign = await makeIModel(await official(server, 'eve'), await server.iTwin('eve'));
      const own = await makeIModel(context.olivia, context.iTwinId);
      const eve = await server.as('eve');
      const nobody = new Api(server.origin);
      const other = { iTwinId: context.iTwinId, iModelId: own.id };
      const theirs = { iTwinId: foreign.iTwinId, iModelId: foreign.id };
      const send = (as: Api, at: Place, operation: string, parameters: unknown): Promise<Answer> =>
        as.post(addressOf(at, operation), JSON.stringify(parameters), { 'content-type': 'text/plain' });
      for (const { name, address } of operations) {
        const expect = async (expected: [number, string], answer: Promise<Answer>): Promise<void> =>
          assert.deepEqual([(await answer).status, codeOf(await answer)], expected, name);
        await expect([401, 'HeaderNotFound'], send(nobody, place, address, [tokenOf(place)]));
        await expect([404, 'iModelNotFound'], send(eve, place, address, [tokenOf(place)]));
        await expect([404, 'iModelNotFound'], send(api, theirs, address, [tokenOf(place)]));
        // The path names an iModel that the caller may view, and the parameters another one.
        await expect([422, 'InvalidiModelsRequest'], send(eve, theirs, address, [tokenOf(place)]));
        await expect(
          [422, 'InvalidiModelsRequest'],
          send(eve, theirs, address, [{ ...tokenOf(theirs), key: tokenOf(place).key }]),
        );
        await expect(
          [422, 'InvalidiModelsRequest'],
          send(eve, theirs, address, [tokenOf(theirs), { tokenProps: tokenOf(place) }]),
        );
        if (kindOf(name) === undefined)
          await expect([422, 'InvalidiModelsRequest'], send(api, place, address, [tokenOf(place)]));
      }
      const unknown = [
        'IModelReadRpcInterface-3.7.0-constructor',
        'IModelReadRpcInterface-3.7.0-forward',
        'NoRpcInterface-1.0.0-read',
        'DevToolsRpcInterface-0.6.0-stats',
        'IModelReadRpcInterface-3.7.0-getConnectionProps-3.7.0-callViewStore',
      ];
      for (const operation of unknown)
        assert.equal((await send(api, place, operation, [tokenOf(place)])).status, 422, operation);
      assert.equal(
        (
          await send(api, { ...place, iTwinId: foreign.iTwinId }, `${read}getConnectionProps`, [
            tokenOf({ ...place, iTwinId: foreign.iTwinId }),
          ])
        ).status,
        422,
      );
      assert.equal(
        (
          await send(api, { ...other, changesetId: 'f'.repeat(40) }, `${read}getConnectionProps`, [
            tokenOf({ ...other, changesetId: 'f'.repeat(40) }),
          ])
        ).status,
        404,
      );
      for (const parameters of [null, 'text', 1, {}, [], [null], [[]], ['a'], [{ key: 'a' }]])
        assert.equal(
          (await send(api, place, `${read}getConnectionProps`, parameters)).status,
          422,
          JSON.stringify(parameters),
        );
    },
  );

  test('needs the permission to view, and loses access with it in the next request', { skip }, async () => {
    const { server } = context;
    const role = await server.grant(place.iTwinId, 'max', ['imodels_webview']);
    const max = await server.as('max');
    assert.equal((await call(max, place, `${read}getConnectionProps`)).status, 200);
    assert.equal(
      (await context.api.patch(`/accesscontrol/itwins/${place.iTwinId}/roles/${role}`, { permissions: [] })).status,
      200,
    );
    assert.equal((await call(max, place, `${read}getConnectionProps`)).status, 404);
  });

  test('sees what the holder of a share may see, with its key', { skip }, async () => {
    const { body } = await context.api.post(`/imodels/${place.iModelId}/shares`, {
      name: 'for a visitor',
      expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
      permission: 'imodels_webview',
    });
    const { shareKey } = (body as { share: { shareKey: string } }).share;
    const holder = (at: Place): Promise<Answer> =>
      new Api(context.server.origin).post(addressOf(at, `${read}getConnectionProps`), JSON.stringify([tokenOf(at)]), {
        'content-type': 'text/plain',
        authorization: `Basic ${shareKey}`,
      });
    assert.equal((await holder(place)).status, 200);
    const other = await makeIModel(context.olivia, context.iTwinId);
    assert.equal((await holder({ iTwinId: context.iTwinId, iModelId: other.id })).status, 404);
  });

  test('is shown the tiles of the source in a clone, which no back end makes again', { skip }, async () => {
    const { counts } = context.server.services.viewer;
    const source = await tileOf(context, place);
    assert.equal(source.toString('latin1', 0, 4), 'iMdl');
    const made = counts.made;
    assert.ok(made > 0);
    const clone = await cloneOf(context, place.iModelId);
    assert.deepEqual(await tileOf(context, clone), source);
    assert.deepEqual([counts.made, counts.kept], [made, 1]);
  });

  test('sees a clone at an earlier point as its source was at that changeset', { skip }, async () => {
    const { api, iTwinId } = context;
    const source = await pushSample(context.olivia, iTwinId, randomUUID());
    const cloned = await api.post(`/imodels/${source}/clone`, { iTwinId, name: randomUUID(), changesetIndex: 1 });
    const clone = (cloned.headers.get('location') ?? '').slice(-36);
    const changesets = sampleChangesets();
    const elementsOf = async (iModelId: string, index: number): Promise<number> => {
      const changesetId = changesets[index - 1]?.id ?? '';
      const answer = await call(api, { iTwinId, iModelId, changesetId }, `${read}queryRows`, {
        query: 'SELECT count(*) FROM bis.Element',
      });
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      return (answer.body as { data: [[number]] }).data[0][0];
    };
    const head = await elementsOf(source, changesets.length);
    const earlier = await elementsOf(clone, 1);
    assert.notEqual(earlier, head);
    // The clone has had the checkpoint of their common changeset made.
    assert.equal(await elementsOf(source, 1), earlier);
  });

  test('is answered after its back end was killed, without opening the iModel again', { skip }, async () => {
    const backend = processOf(context);
    const { starts, pid } = backend;
    assert.ok(pid !== undefined);
    process.kill(pid, 'SIGKILL');
    const answer = await call(context.api, place, `${read}getDefaultViewId`);
    assert.deepEqual([answer.status, answer.body], [200, '0']);
    assert.equal(backend.starts, starts + 1);
  });
});

onOneDatabase('A back end that nobody uses', { ...config, viewer: { enabled: true, idleSeconds: 1 } }, (context) => {
  test('closes its checkpoints and ends, and starts again with the next request', { skip }, async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const place = { iTwinId: context.iTwinId, iModelId: id };
    assert.equal((await call(context.api, place, `${read}getConnectionProps`)).status, 200);
    const backend = processOf(context);
    assert.equal(backend.open, 1);
    await until('the checkpoint to be closed', () => (backend.open === 0 ? true : undefined), 60_000);
    await until('the process to end', () => (backend.pid === undefined ? true : undefined), 60_000);
    assert.equal((await call(context.api, place, `${read}getConnectionProps`)).status, 200);
    assert.equal(backend.starts, 2);
  });
});

onOneDatabase(
  'A back end beyond its limits',
  { ...config, viewer: { enabled: true, requestsPerUser: 1 } },
  (context) => {
    test('tells a user with too many requests at once to try again, and answers others', { skip }, async () => {
      const { id } = await makeIModel(context.olivia, context.iTwinId);
      const place = { iTwinId: context.iTwinId, iModelId: id };
      const send = (): Promise<Answer> =>
        context.api.post(addressOf(place, `${read}getConnectionProps`), JSON.stringify([tokenOf(place)]), {
          'content-type': 'text/plain',
        });
      await call(context.api, place, `${read}getConnectionProps`);
      processOf(context).kill('a test');
      const answers = await Promise.all([send(), send(), send()]);
      const refused = answers.filter(({ status }) => status === 503);
      assert.ok(refused.length > 0);
      for (const { headers } of refused) assert.match(headers.get('retry-after') ?? '', /^\d+$/);
      assert.ok(answers.some(({ status }) => status === 200));
    });
  },
);

onOneDatabase(
  'A back end that takes too much memory',
  { ...config, viewer: { enabled: true, memoryMiB: 128 } },
  (context) => {
    test('is ended, and the viewer is told to try again', { skip }, async () => {
      const { id } = await makeIModel(context.olivia, context.iTwinId);
      const place = { iTwinId: context.iTwinId, iModelId: id };
      const refused = await until(
        'the end of the process',
        async () => {
          // Longer than the interval of the watch: what takes less may be answered before the process is ended.
          const answer = await call(context.api, place, `${read}queryRows`, { query: longQuery });
          return answer.status === 503 ? answer : undefined;
        },
        60_000,
      );
      assert.match(refused.headers.get('retry-after') ?? '', /^\d+$/);
      assert.ok(processOf(context).starts > 0);
    });
  },
);

onEachStore(
  'Kept tiles',
  // What the store has is shown instead of a damaged file: test/sharedTiles.test.ts.
  { ...config, viewer: { enabled: true, sharedTilesMiB: 0 }, collector: { intervalSeconds: 0, graceSeconds: 0 } },
  (context) => {
    test(
      'are removed with the last iModel that has the content, and a damaged one is made again',
      { skip },
      async () => {
        const place = { iTwinId: context.iTwinId, iModelId: await makePlant(context, 50) };
        const { viewer, collector } = context.server.services;
        const whole = await tileOf(context, place);
        const folder = path.join(context.server.installation.dataDir, 'tiles');
        const [content = ''] = readdirSync(folder);
        for (const name of readdirSync(path.join(folder, content))) {
          const file = path.join(folder, content, name);
          const bytes = readFileSync(file);
          bytes.writeUInt8(bytes.readUInt8(40) ^ 1, 40);
          writeFileSync(file, bytes);
        }
        const { made } = viewer.counts;
        assert.deepEqual(await tileOf(context, place), whole);
        assert.equal(viewer.counts.made, made + 1);
        const clone = await cloneOf(context, place.iModelId);
        assert.equal((await context.api.delete(`/imodels/${place.iModelId}`)).status, 204);
        await collector.runOnce();
        await collector.runOnce();
        assert.deepEqual(await viewer.tiles.contents(), [content]);
        assert.equal((await context.api.delete(`/imodels/${clone.iModelId}`)).status, 204);
        await until(
          'the removal',
          async () => {
            await collector.runOnce();
            return (await viewer.tiles.contents()).length === 0 ? true : undefined;
          },
          60_000,
        );
        assert.equal(viewer.tiles.bytes, 0);
      },
    );
  },
);

test('kept tiles stay within their budget, and those that were used least recently go first', async () => {
  const work = workFolder();
  try {
    const log = pino({ level: 'silent' }) as unknown as FastifyBaseLogger;
    const tiles = new TileCache(work.path, 10_000, log);
    const answer = { contentType: 'text/plain', body: randomBytes(900) };
    const unlimited = (): Promise<void> => Promise.resolve();
    for (let n = 0; n < 10; n++) await tiles.keep('b-1-0-x', [String(n)], answer);
    assert.ok((await tiles.find('b-1-0-x', ['0'], unlimited)) !== undefined);
    await tiles.keep('b-1-0-x', ['10'], answer);
    assert.ok(tiles.bytes <= 10_000);
    assert.ok((await tiles.find('b-1-0-x', ['0'], unlimited)) !== undefined);
    assert.equal(await tiles.find('b-1-0-x', ['1'], unlimited), undefined);
    const again = new TileCache(work.path, 10_000, log);
    assert.deepEqual(await again.find('b-1-0-x', ['10'], unlimited), answer);
    assert.equal(again.bytes, tiles.bytes);
  } finally {
    work.remove();
  }
});

test('a back end of its own answers the viewers of a server that has none', { skip }, async () => {
  const key = randomBytes(24).toString('base64url');
  const [port, serverPort] = [await freePort(), await freePort()];
  const work = workFolder();
  const installation = await Installation.create('sqlite');
  const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
  const child = fork(
    cli,
    [
      'view-backend',
      '--server',
      `http://127.0.0.1:${serverPort}`,
      '--data',
      work.path,
      '--host',
      '127.0.0.1',
      '--port',
      String(port),
    ],
    {
      cwd: work.path,
      env: { PATH: process.env['PATH'], HOME: work.path, OFFSHOOT_VIEWER_KEY: key, OFFSHOOT_LOG_LEVEL: 'fatal' },
      stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
    },
  );
  const ended = once(child, 'exit');
  let server: TestServer | undefined;
  try {
    const started = await Promise.race([once(child, 'message'), ended.then(() => undefined)]);
    assert.notEqual(started, undefined, 'the back end ended while it started');
    server = await installation.start({
      ...config,
      port: serverPort,
      viewer: { enabled: true, service: { url: `http://127.0.0.1:${port}`, key } },
    });
    const iTwinId = await server.iTwin();
    const { id } = await makeIModel(await official(server), iTwinId);
    const answer = await call(await server.as('olivia'), { iTwinId, iModelId: id }, `${read}getConnectionProps`);
    assert.equal(answer.status, 200, JSON.stringify(answer.body));
    // Nobody but the server may use it.
    const stranger = await fetch(`http://127.0.0.1:${port}/ping`, { headers: { 'offshoot-view-key': 'a'.repeat(32) } });
    assert.equal(stranger.status, 403);
  } finally {
    child.kill('SIGTERM');
    await ended;
    await endServer(server);
    work.remove();
  }
});

onEachDatabase('Without a back end', {}, (context) => {
  test('a viewer is told that this server answers none', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId);
    const place = { iTwinId: context.iTwinId, iModelId: id };
    const answer = await call(context.api, place, `${read}getConnectionProps`);
    assert.deepEqual([answer.status, codeOf(answer)], [409, 'ViewerNotAvailable']);
  });
});
