import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { describe, test } from 'node:test';
import {
  IModelOrderByProperty,
  IModelState,
  OrderByOperator,
  type ContainerTypes,
  type IModel,
  type IModelPropertiesForUpdate,
} from '@itwin/imodels-client-management';
import { sampleBaseline } from '../scripts/sample.ts';
import type { WireError } from './support/api.ts';
import { all, makeIModel, official, workFolder } from './support/clients.ts';
import { identityIn } from './support/identity.ts';
import { Installation, people, setups } from './support/server.ts';
import { onEachDatabase, onEachStore } from './support/suite.ts';

const extent = { southWest: { latitude: 46.1, longitude: 7.6 }, northEast: { latitude: 46.3, longitude: 7.8 } };

onEachStore('iModels', {}, (context) => {
  const newName = (): string => `[${randomUUID()}][Tests] an iModel`;
  const as = () => ({ authorization: context.olivia.authorization });
  const create = (properties: object = {}): Promise<IModel> =>
    context.olivia.client.iModels.createEmpty({
      ...as(),
      iModelProperties: { iTwinId: context.iTwinId, name: newName(), ...properties },
    });

  test('an empty iModel is usable at once and returns the requested properties', async () => {
    const name = newName();
    const iModel = await create({ name, description: 'described', extent, containersEnabled: 7 as ContainerTypes });
    assert.equal(iModel.name, name);
    assert.equal(iModel.displayName, name);
    assert.equal(iModel.description, 'described');
    assert.deepEqual(iModel.extent, extent);
    assert.equal(iModel.containersEnabled, 7);
    assert.equal(iModel.state, IModelState.Initialized);
    assert.equal(iModel.iTwinId, context.iTwinId);
    assert.equal(iModel.dataCenterLocation, 'East US');
    assert.ok(Math.abs(Date.parse(iModel.createdDateTime) - Date.now()) < 60_000);
    assert.equal((await iModel.getCreator())?.email, people.olivia.email);
    const baseline = await context.olivia.client.baselineFiles.getSingle({ ...as(), iModelId: iModel.id });
    assert.equal(baseline.state, 'initialized');
    const bytes = Buffer.from(await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer());
    assert.equal(bytes.length, baseline.fileSize);
    assert.equal(bytes.toString('latin1', 0, 15), 'SQLite format 3');
  });

  test('unset properties are null in every representation that has them', async () => {
    const { id } = await create();
    const { iModel } = (await context.api.get(`/imodels/${id}`)).body as { iModel: Record<string, unknown> };
    assert.equal(iModel['description'], null);
    assert.equal(iModel['extent'], null);
    assert.equal(iModel['lastChangesetPushDateTime'], null);
    assert.equal(iModel['containersEnabled'], 0);
    assert.equal(iModel['isSecured'], false);
  });

  test('a coordinate system is accepted with the empty creation mode', async () => {
    for (const horizontalCRSId of ['EPSG:3857', 'epsg:27700', 'BritishNatGrid', 'UTM84-10N']) {
      const iModel = await create({ geographicCoordinateSystem: { horizontalCRSId }, creationMode: 'empty' });
      assert.equal(iModel.state, IModelState.Initialized);
    }
    // With a template or a baseline file no mode is required.
    const more = { geographicCoordinateSystem: { horizontalCRSId: 'EPSG:3857' } };
    const { id } = await create();
    for (const source of [
      { template: { iModelId: id } },
      { baselineFile: { size: 10 } },
      { template: null, baselineFile: { size: 10 }, creationMode: null },
    ])
      assert.equal(
        (await context.api.post('/imodels', { iTwinId: context.iTwinId, name: newName(), ...source, ...more })).status,
        201,
      );
  });

  test('the official client creates, uploads and completes an iModel from a baseline file', async () => {
    const work = workFolder();
    try {
      const filePath = path.join(work.path, 'baseline.bim');
      const bytes = sampleBaseline();
      writeFileSync(filePath, bytes);
      const iModel = await context.olivia.client.iModels.createFromBaseline({
        ...as(),
        iModelProperties: { iTwinId: context.iTwinId, name: newName(), filePath },
      });
      assert.equal(iModel.state, IModelState.Initialized);
      const baseline = await context.olivia.client.baselineFiles.getSingle({ ...as(), iModelId: iModel.id });
      assert.equal(baseline.fileSize, bytes.length);
      const back = Buffer.from(await (await fetch(baseline._links.download?.href ?? '')).arrayBuffer());
      assert.deepEqual(back, bytes);
    } finally {
      work.remove();
    }
  });

  /** Starts the creation of an iModel from a baseline of this size. */
  async function begin(size: number) {
    const created = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: newName(),
      baselineFile: { size },
    });
    assert.equal(created.status, 201);
    const { iModel } = created.body as {
      iModel: {
        id: string;
        state: string;
        _links: { upload: { href: string; storageType: string }; complete: { href: string } };
      };
    };
    return { id: iModel.id, iModel, upload: iModel._links.upload, complete: iModel._links.complete.href };
  }
  const stateOf = async (id: string): Promise<string> =>
    ((await context.api.get(`/imodels/${id}/operations/create`)).body as { createOperation: { state: string } })
      .createOperation.state;

  test('an iModel reports everywhere that it waits for its baseline file', async () => {
    const { id, iModel, upload } = await begin(8192);
    assert.equal(iModel.state, 'notInitialized');
    assert.equal(upload.storageType, 'azure');
    assert.equal(await stateOf(id), 'waitingForFile');
    const baseline = (await context.api.get(`/imodels/${id}/baselinefile`)).body as {
      baselineFile: { state: string; _links: { download: null } };
    };
    assert.equal(baseline.baselineFile.state, 'waitingForFile');
    assert.equal(baseline.baselineFile._links.download, null);
    for (const [method, path_, body] of [
      ['PATCH', `/imodels/${id}`, { name: newName() }],
      ['POST', `/imodels/${id}/briefcases`, {}],
      ['POST', `/imodels/${id}/changesets`, { id: 'a'.repeat(40), briefcaseId: 2, fileSize: 1 }],
    ] as const) {
      const answer = await context.api.send(method, path_, body);
      assert.equal(answer.status, 409);
      assert.equal((answer.body as WireError).error.code, 'iModelNotInitialized');
    }
  });

  test('completing without an upload answers FileNotFound, and completing twice InvalidChange', async () => {
    const bytes = sampleBaseline();
    const { id, upload, complete } = await begin(bytes.length);
    const early = await context.api.post(complete, {});
    assert.equal(early.status, 404);
    assert.deepEqual(early.body, {
      error: {
        code: 'FileNotFound',
        message: 'Requested file is not available. File was not uploaded to file storage.',
      },
    });
    assert.equal((await context.api.put(upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' })).status, 201);
    const done = await context.api.post(complete, {});
    assert.equal(done.status, 200);
    const { baselineFile } = done.body as { baselineFile: { state: string; _links: { download: null } } };
    assert.equal(baselineFile.state, 'initializationScheduled');
    assert.equal(baselineFile._links.download, null);
    assert.equal(await stateOf(id), 'successful');
    const again = await context.api.post(complete, {});
    assert.equal(again.status, 422);
    assert.deepEqual(again.body, {
      error: {
        code: 'InvalidiModelsRequest',
        message: 'Cannot complete Baseline File upload.',
        details: [{ code: 'InvalidChange', message: 'Baseline File upload is not in progress.' }],
      },
    });
  });

  test('a baseline of a size other than declared is not stored, and its completion answers DataConflict', async () => {
    const { id, upload, complete } = await begin(5000);
    for (const size of [4999, 5001])
      assert.equal(
        (await context.api.put(upload.href, Buffer.alloc(size), { 'x-ms-blob-type': 'BlockBlob' })).status,
        context.refused(400),
      );
    const answer = await context.api.post(complete, {});
    assert.equal(answer.status, 409);
    assert.deepEqual(answer.body, {
      error: {
        code: 'DataConflict',
        message: 'File size provided during iModel creation does not match actual file size.',
      },
    });
    assert.equal(await stateOf(id), 'waitingForFile');
  });

  test('a baseline that is no iModel fails the creation with a reason, and the name is free at once', async () => {
    const damaged = sampleBaseline().subarray(0, 40 * 4096);
    for (const bytes of [Buffer.alloc(8192, 'x'), Buffer.alloc(100), damaged, damaged.subarray(0, -1)]) {
      const { id, upload, complete } = await begin(bytes.length);
      assert.equal((await context.api.put(upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' })).status, 201);
      assert.equal((await context.api.post(complete, {})).status, 200);
      const { createOperation } = (await context.api.get(`/imodels/${id}/operations/create`)).body as {
        createOperation: { state: string; failureReason: string };
      };
      assert.equal(createOperation.state, 'failed');
      assert.match(createOperation.failureReason, /baseline file/);
      const { iModel } = (await context.api.get(`/imodels/${id}`)).body as { iModel: { state: string; name: string } };
      assert.equal(iModel.state, 'notInitialized');
      assert.equal((await create({ name: iModel.name })).name, iModel.name);
      assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
    }
  });

  test('the official client finds a failed creation by its state, with the reason, until it is deleted', async () => {
    const iTwinId = await context.server.iTwin();
    const { client } = context.olivia;
    const name = newName();
    const work = workFolder();
    try {
      const filePath = path.join(work.path, 'no.bim');
      writeFileSync(filePath, 'x'.repeat(1000));
      const createFromBaseline = () =>
        client.iModels.createFromBaseline({ ...as(), iModelProperties: { iTwinId, name, filePath } });
      // The error that the client makes of it names neither the iModel nor the reason.
      for (let n = 0; n < 2; n++)
        await assert.rejects(createFromBaseline(), {
          message: "Baseline File initialization failed with state 'initializationFailed.'",
        });
    } finally {
      work.remove();
    }
    const failed = await all(
      client.iModels.getRepresentationList({ ...as(), urlParams: { iTwinId, state: IModelState.NotInitialized } }),
    );
    assert.deepEqual(
      failed.map((iModel) => [iModel.name, iModel.state]),
      [
        [name, 'notInitialized'],
        [name, 'notInitialized'],
      ],
    );
    for (const { id } of failed) {
      const operation = (await client.operations.getCreateIModelDetails({ ...as(), iModelId: id })) as unknown as {
        state: string;
        failureReason: string;
      };
      assert.deepEqual(
        [operation.state, operation.failureReason],
        ['failed', 'The baseline file is not an iModel: it is not a SQLite file.'],
      );
    }
    // The name leads to the iModel that holds it, never to a failed creation.
    const named = async (state?: IModelState) =>
      (
        await all(
          client.iModels.getMinimalList({
            ...as(),
            urlParams: { iTwinId, name, ...(state !== undefined && { state }) },
          }),
        )
      ).map(({ id }) => id);
    assert.deepEqual([await named(), (await named(IModelState.NotInitialized)).length], [[], 2]);
    const answers = await Promise.all(Array.from({ length: 6 }, () => context.api.post('/imodels', { iTwinId, name })));
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, ...Array<number>(5).fill(409)]);
    const [holder] = await named();
    // Renaming does not help either.
    assert.equal((await context.api.patch(`/imodels/${holder}`, { name: newName() })).status, 200);
    const other = await create({ iTwinId });
    assert.equal((await context.api.patch(`/imodels/${other.id}`, { name })).status, 200);
    assert.equal((await all(client.iModels.getMinimalList({ ...as(), urlParams: { iTwinId } }))).length, 4);
    for (const { id } of failed) assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
    assert.deepEqual(await named(IModelState.NotInitialized), []);
  });

  test('a taken name is refused before any upload, and free after deletion', async () => {
    const first = await create();
    const refusal = {
      error: { code: 'iModelExists', message: 'iModel with the same name already exists within the iTwin.' },
    };
    for (const more of [{}, { baselineFile: { size: 10 } }]) {
      const answer = await context.api.post('/imodels', { iTwinId: context.iTwinId, name: first.name, ...more });
      assert.equal(answer.status, 409);
      assert.deepEqual(answer.body, refusal);
    }
    await context.olivia.client.iModels.delete({ ...as(), iModelId: first.id });
    const second = await create({ name: first.name });
    assert.notEqual(second.id, first.id);
    const other = await create({ iTwinId: await context.server.iTwin(), name: first.name });
    assert.equal(other.name, first.name);
  });

  test('of concurrent requests for one name exactly one succeeds', async () => {
    const name = newName();
    const answers = await Promise.all(
      Array.from({ length: 12 }, () => context.api.post('/imodels', { iTwinId: context.iTwinId, name })),
    );
    assert.deepEqual(answers.map(({ status }) => status).sort(), [201, ...Array<number>(11).fill(409)]);
  });

  const badBodies: { what: string; body: object; detail: object }[] = [
    {
      what: 'a missing name',
      body: { name: undefined },
      detail: { code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'name' },
    },
    {
      what: 'a description of 256 characters',
      body: { description: 'd'.repeat(256) },
      detail: {
        code: 'InvalidValue',
        message: "Provided 'description' value is not valid. The value exceeds allowed 255 characters.",
        target: 'description',
      },
    },
    {
      what: 'a latitude beyond 90',
      body: { extent: { southWest: { latitude: 91, longitude: 0 }, northEast: { latitude: 0, longitude: 0 } } },
      detail: {
        code: 'InvalidValue',
        message: "Provided 'extent' value is not valid. Valid 'latitude' value range is -90 to 90.",
        target: 'extent',
      },
    },
    {
      what: 'a longitude beyond -180',
      body: { extent: { southWest: { latitude: 0, longitude: -181 }, northEast: { latitude: 0, longitude: 0 } } },
      detail: {
        code: 'InvalidValue',
        message: "Provided 'extent' value is not valid. Valid 'longitude' value range is -180 to 180.",
        target: 'extent',
      },
    },
    {
      what: 'half an extent',
      body: { extent: { southWest: { latitude: 0, longitude: 0 } } },
      detail: { code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'extent.northEast' },
    },
    {
      what: 'a baseline of no size',
      body: { baselineFile: { size: 0 } },
      detail: {
        code: 'InvalidValue',
        message: "Provided 'baselineFile' value is not valid. 'size' must be a positive integer value.",
        target: 'baselineFile',
      },
    },
    {
      what: 'the baseline mode without a file',
      body: { creationMode: 'fromBaseline' },
      detail: { code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'baselineFile' },
    },
    ...(
      [
        [
          'an empty mode with a template',
          { creationMode: 'empty', template: { iModelId: randomUUID() } },
          'template',
          'empty',
        ],
        [
          'an empty mode with a baseline file',
          { creationMode: 'Empty', baselineFile: { size: 10 } },
          'baselineFile',
          'Empty',
        ],
        [
          'the baseline mode with a template',
          { creationMode: 'fromBaseline', template: { iModelId: randomUUID() } },
          'template',
          'fromBaseline',
        ],
        [
          'the template mode with a baseline file',
          { creationMode: 'fromiModelVersion', baselineFile: { size: 10 } },
          'baselineFile',
          'fromiModelVersion',
        ],
      ] as const
    ).map(([what, body, target, mode]) => ({
      what,
      body,
      detail: {
        code: 'InvalidValue',
        message: `Provided '${target}' value is not valid. It cannot be used when 'creationMode' is '${mode}'.`,
        target,
      },
    })),
    {
      what: 'the template mode without a template',
      body: { creationMode: 'fromiModelVersion' },
      detail: { code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'template' },
    },
    {
      what: 'a template and a baseline file, with a mode',
      body: { creationMode: 'fromBaseline', baselineFile: { size: 10 }, template: { iModelId: randomUUID() } },
      detail: {
        code: 'MutuallyExclusivePropertiesProvided',
        message: "Only one of the following properties can be provided: 'template', 'baselineFile'.",
      },
    },
    {
      what: 'a coordinate system for an empty iModel without a mode',
      body: { geographicCoordinateSystem: { horizontalCRSId: 'EPSG:3857' } },
      detail: {
        code: 'InvalidValue',
        message:
          "Provided 'geographicCoordinateSystem' value is not valid. For empty iModels it can only be set when 'creationMode' is 'empty'.",
        target: 'geographicCoordinateSystem',
      },
    },
    ...['EPSG:junk', 'EPSG:', 'EPSG:0001', '', ' ', 'made up'].map((horizontalCRSId) => ({
      what: `the coordinate system '${horizontalCRSId}'`,
      body: { creationMode: 'empty', geographicCoordinateSystem: { horizontalCRSId } },
      detail: {
        code: 'InvalidValue',
        message:
          "Provided 'geographicCoordinateSystem' value is not valid. 'horizontalCRSId' must be an EPSG code, such as 'EPSG:3857', or the name of a coordinate system.",
        target: 'geographicCoordinateSystem',
      },
    })),
    {
      what: 'a NUL in the name, which no database could keep',
      body: { name: 'a\0b' },
      detail: {
        code: 'InvalidValue',
        message: "Provided 'name' value is not valid. The value cannot contain the NUL character.",
        target: 'name',
      },
    },
    {
      what: 'a template without its id',
      body: { template: {} },
      detail: {
        code: 'MissingRequiredProperty',
        message: 'Required property is missing.',
        target: 'template.iModelId',
      },
    },
  ];
  for (const { what, body, detail } of badBodies) {
    test(`creation refuses ${what}`, async () => {
      const answer = await context.api.post('/imodels', { iTwinId: context.iTwinId, name: newName(), ...body });
      assert.equal(answer.status, 422);
      assert.deepEqual(answer.body, {
        error: { code: 'InvalidiModelsRequest', message: 'Cannot create iModel.', details: [detail] },
      });
    });
  }

  test('each property can be changed separately', async () => {
    const before = await create({ description: 'old', extent });
    const name = newName();
    const change = (iModelProperties: IModelPropertiesForUpdate): Promise<IModel> =>
      context.olivia.client.iModels.update({ ...as(), iModelId: before.id, iModelProperties });
    const renamed = await change({ name });
    assert.deepEqual(
      [renamed.name, renamed.displayName, renamed.description, renamed.extent],
      [name, name, 'old', extent],
    );
    const described = await change({ description: 'new' });
    assert.deepEqual([described.name, described.description, described.extent], [name, 'new', extent]);
    const reversed = { southWest: { latitude: 80, longitude: 170 }, northEast: { latitude: -80, longitude: -170 } };
    const moved = await change({ extent: reversed });
    assert.deepEqual([moved.name, moved.description, moved.extent], [name, 'new', reversed]);
    const cleared = await context.api.patch(`/imodels/${before.id}`, { description: null, extent: null });
    const { iModel } = cleared.body as { iModel: { description: null; extent: null } };
    assert.deepEqual([iModel.description, iModel.extent], [null, null]);
  });

  test('an empty change, and a change to a taken name, are refused', async () => {
    const iModel = await create();
    const nothing = await context.api.patch(`/imodels/${iModel.id}`, {});
    assert.equal(nothing.status, 422);
    assert.deepEqual((nothing.body as WireError).error.details, [
      {
        code: 'MissingRequiredProperty',
        message:
          "Required property is missing. At least one of the following properties must be provided: 'extent', 'name', 'description'.",
      },
    ]);
    const taken = await context.api.patch(`/imodels/${iModel.id}`, { name: (await create()).name });
    assert.equal(taken.status, 409);
    assert.equal((taken.body as WireError).error.code, 'iModelExists');
    assert.equal((await context.api.patch(`/imodels/${iModel.id}`, { name: iModel.name })).status, 200);
  });

  test('a deleted iModel is gone everywhere', async () => {
    const { id } = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    assert.equal((await context.api.delete(`/imodels/${id}`)).status, 204);
    for (const rest of [
      '',
      '/changesets',
      '/changesets/1',
      '/baselinefile',
      '/operations/create',
      '/briefcases',
      '/users',
      '/permissions',
      '/changesets/0/checkpoint',
    ]) {
      const answer = await context.api.get(`/imodels/${id}${rest}`);
      assert.equal(answer.status, 404, rest);
      assert.deepEqual(answer.body, {
        error: { code: 'iModelNotFound', message: 'Requested iModel is not available.' },
      });
    }
    assert.equal((await context.api.delete(`/imodels/${id}`)).status, 404);
  });

  test('without iTwin.js checkpoints are reported as not generated, in the form that clients wait for', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    for (const [rest, changesetId, changesetIndex, dbName] of [
      ['changesets/1/checkpoint', made.changesets[0]?.id, 1, `${made.changesets[0]?.id}.bim`],
      [`changesets/${made.changesets[0]?.id}/checkpoint`, made.changesets[0]?.id, 1, `${made.changesets[0]?.id}.bim`],
    ] as const) {
      const { checkpoint } = (await context.api.get(`/imodels/${made.id}/${rest}`)).body as {
        checkpoint: Record<string, unknown>;
      };
      assert.deepEqual(checkpoint, {
        changesetId,
        changesetIndex,
        state: 'notGenerated',
        size: 0,
        dbName,
        directoryAccessInfo: null,
        containerAccessInfo: null,
        progress: { changesets: 0, totalChangesets: 0 },
        failureReason: null,
        _links: { download: null },
      });
    }
    const unknown = await context.api.get(`/imodels/${made.id}/changesets/2/checkpoint`);
    assert.equal((unknown.body as WireError).error.code, 'ChangesetNotFound');
  });
});

onEachDatabase('Listing iModels', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });
  const names = ['AAA first', 'Milestone [1]', 'milestone 2', 'ÄÖÜ Straße', 'zebra', 'YYY last'];
  let iTwinId = '';

  async function filled(): Promise<string> {
    if (iTwinId === '') {
      iTwinId = await context.server.iTwin();
      for (const [n, name] of names.entries())
        await context.olivia.client.iModels.createEmpty({
          ...as(),
          iModelProperties: { iTwinId, name, ...(n === 4 && { description: 'Stripes, for Searching' }) },
        });
      await context.api.post('/imodels', { iTwinId, name: 'unfinished', baselineFile: { size: 512 } });
    }
    return iTwinId;
  }
  async function listed(urlParams: object): Promise<string[]> {
    const params = { iTwinId: await filled(), ...urlParams };
    const iModels = await all(context.olivia.client.iModels.getRepresentationList({ ...as(), urlParams: params }));
    return iModels.map(({ name }) => name);
  }

  test('pages through all iModels with any page size', async () => {
    for (const $top of [1, 2, 3, 7, 100])
      assert.deepEqual((await listed({ $top })).toSorted(), [...names, 'unfinished'].toSorted());
    const minimal = await all(
      context.olivia.client.iModels.getMinimalList({ ...as(), urlParams: { iTwinId: await filled(), $top: 2 } }),
    );
    assert.equal(minimal.length, 7);
    assert.ok(minimal.every(({ id, displayName }) => id !== '' && displayName !== ''));
  });

  test('orders by name and by creation time, in both directions', async () => {
    const byName = await listed({ $orderBy: { property: IModelOrderByProperty.Name }, $top: 3 });
    assert.deepEqual(byName, [
      'AAA first',
      'milestone 2',
      'Milestone [1]',
      'unfinished',
      'YYY last',
      'zebra',
      'ÄÖÜ Straße',
    ]);
    const backwards = await listed({
      $orderBy: { property: IModelOrderByProperty.Name, operator: OrderByOperator.Descending },
      $top: 2,
    });
    assert.deepEqual(backwards, byName.toReversed());
    assert.deepEqual(await listed({ $orderBy: { property: IModelOrderByProperty.CreatedDateTime } }), [
      ...names,
      'unfinished',
    ]);
    const latest = await listed({
      $orderBy: { property: IModelOrderByProperty.CreatedDateTime, operator: OrderByOperator.Descending },
    });
    assert.deepEqual(latest, [...names, 'unfinished'].toReversed());
  });

  test('filters by exact name, by case-insensitive search, and by state', async () => {
    assert.deepEqual(await listed({ name: 'Milestone [1]' }), ['Milestone [1]']);
    assert.deepEqual(await listed({ name: 'milestone [1]' }), []);
    assert.deepEqual(await listed({ $search: 'STONE ' }), ['Milestone [1]', 'milestone 2']);
    assert.deepEqual(await listed({ $search: 'äöü' }), ['ÄÖÜ Straße']);
    assert.deepEqual(await listed({ $search: 'for searc' }), ['zebra']);
    assert.deepEqual(await listed({ $search: 'nothing of that kind' }), []);
    assert.deepEqual(await listed({ state: IModelState.NotInitialized }), ['unfinished']);
    assert.equal((await listed({ state: IModelState.Initialized })).length, 6);
  });

  test('links carry every parameter, lead in both directions, and end in null', async () => {
    interface Body {
      iModels: { displayName: string }[];
      _links: Record<'self' | 'prev' | 'next', { href: string } | null>;
    }
    const read = async (url: string): Promise<Body> => (await context.api.get(url)).body as Body;
    const namesOf = (page: Body): string[] => page.iModels.map(({ displayName }) => displayName);
    const first = await read(`/imodels?iTwinId=${await filled()}&$orderBy=name desc&$search=e&$top=2`);
    assert.equal(first._links.prev, null);
    const nextUrl = new URL(first._links.next?.href ?? '');
    assert.equal(nextUrl.searchParams.get('$orderBy'), 'name desc');
    assert.equal(nextUrl.searchParams.get('$search'), 'e');
    assert.equal(nextUrl.searchParams.get('$top'), '2');
    const second = await read(nextUrl.href);
    const back = await read(second._links.prev?.href ?? '');
    assert.deepEqual(namesOf(back), namesOf(first));
    assert.equal(back._links.prev, null);
    assert.deepEqual(namesOf(await read(back._links.next?.href ?? '')), namesOf(second));
    assert.deepEqual(namesOf(await read(second._links.self?.href ?? '')), namesOf(second));
    let page = second;
    while (page._links.next !== null) page = await read(page._links.next?.href ?? '');
    assert.ok(page.iModels.length > 0);
  });

  test('pages with $skip too, and its links continue with $skip', async () => {
    const page = (await context.api.get(`/imodels?iTwinId=${await filled()}&$orderBy=name&$skip=2&$top=2`)).body as {
      iModels: { displayName: string }[];
      _links: { next: { href: string }; prev: { href: string } };
    };
    assert.deepEqual(
      page.iModels.map(({ displayName }) => displayName),
      ['Milestone [1]', 'unfinished'],
    );
    assert.match(page._links.next.href, /\$skip=4/);
    assert.match(page._links.prev.href, /\$skip=0/);
  });

  test('stays correct while listed iModels are deleted', async () => {
    const own = await context.server.iTwin();
    for (let n = 0; n < 7; n++)
      await context.olivia.client.iModels.createEmpty({
        ...as(),
        iModelProperties: { iTwinId: own, name: `doomed ${n}` },
      });
    let seen = 0;
    for await (const { id } of context.olivia.client.iModels.getMinimalList({
      ...as(),
      urlParams: { iTwinId: own, $top: 2 },
    })) {
      await context.olivia.client.iModels.delete({ ...as(), iModelId: id });
      seen++;
    }
    assert.equal(seen, 7);
    assert.deepEqual(
      await all(context.olivia.client.iModels.getMinimalList({ ...as(), urlParams: { iTwinId: own } })),
      [],
    );
  });

  const refusals: [query: string, details: object[]][] = [
    ['', [{ code: 'MissingRequiredParameter', message: 'Required parameter is missing.', target: 'iTwinId' }]],
    ['iTwinId=abc', [{ code: 'InvalidValue', message: "'abc' is not a valid 'iTwinId' value.", target: 'iTwinId' }]],
    [
      'iTwinId=ID&$skip=-1',
      [
        {
          code: 'InvalidValue',
          message: "'-1' is not a valid '$skip' value. '$skip' must be a non-negative integer.",
          target: '$skip',
        },
      ],
    ],
    [
      'iTwinId=ID&$top=0',
      [
        {
          code: 'InvalidValue',
          message: "'0' is not a valid '$top' value. '$top' must be a positive integer that does not exceed 1000.",
          target: '$top',
        },
      ],
    ],
    [
      'iTwinId=ID&$top=1001',
      [
        {
          code: 'InvalidValue',
          message: "'1001' is not a valid '$top' value. '$top' must be a positive integer that does not exceed 1000.",
          target: '$top',
        },
      ],
    ],
    [
      'iTwinId=ID&$top=many',
      [
        {
          code: 'InvalidValue',
          message: "'many' is not a valid '$top' value. '$top' must be a positive integer that does not exceed 1000.",
          target: '$top',
        },
      ],
    ],
    [
      'iTwinId=ID&$orderBy=size',
      [
        {
          code: 'InvalidValue',
          message: "'size' is not a valid '$orderBy' value. Valid properties: 'name', 'createdDateTime'.",
          target: '$orderBy',
        },
      ],
    ],
    [
      'iTwinId=ID&$continuationToken=bogus',
      [
        {
          code: 'InvalidValue',
          message: "'bogus' is not a valid '$continuationToken' value.",
          target: '$continuationToken',
        },
      ],
    ],
    [
      'iTwinId=ID&$continuationToken=bogus&$skip=1',
      [
        {
          code: 'MutuallyExclusiveParametersProvided',
          message: "Only one of the following parameters can be provided: '$skip', '$continuationToken'.",
        },
      ],
    ],
    [
      'iTwinId=ID&name=a&$search=b',
      [
        {
          code: 'MutuallyExclusiveParametersProvided',
          message: "Only one of the following parameters can be provided: 'name', '$search'.",
        },
      ],
    ],
    [
      'iTwinId=ID&state=ready',
      [{ code: 'InvalidValue', message: "'ready' is not a valid 'state' value.", target: 'state' }],
    ],
  ];
  for (const [query, details] of refusals) {
    test(`refuses '${query}'`, async () => {
      const answer = await context.api.get(`/imodels?${query.replace('ID', await filled())}`);
      assert.equal(answer.status, 422);
      assert.deepEqual(answer.body, {
        error: { code: 'InvalidiModelsRequest', message: 'Cannot get iModels.', details },
      });
    });
  }

  test('an unknown iTwin answers iTwinNotFound', async () => {
    const answer = await context.api.get(`/imodels?iTwinId=${randomUUID()}`);
    assert.equal(answer.status, 404);
    assert.deepEqual(answer.body, { error: { code: 'iTwinNotFound', message: 'Requested iTwin is not available.' } });
  });
});

for (const setup of setups)
  describe(`A custom seed on ${setup.engine} and ${setup.store}`, () => {
    test('is the file that new empty iModels start with, with their own ids; an invalid file is refused at startup with the reason', async () => {
      const installation = await Installation.create(setup);
      const work = workFolder();
      try {
        const file = path.join(work.path, 'seed.bim');
        const altered = (sql: string): string => {
          writeFileSync(file, sampleBaseline());
          const db = new DatabaseSync(file);
          db.exec(sql);
          db.close();
          return file;
        };
        const refused: [seedFile: string, why: RegExp][] = [
          [path.join(work.path, 'none.bim'), /cannot be read/],
          [altered('drop table be_Prop'), /is not an iModel/],
        ];
        for (const [seedFile, why] of refused) await assert.rejects(installation.start({ seedFile }), why);
        await assert.rejects(
          installation.start({
            seedFile: altered("update be_Local set Val = x'0500000000000000' where Name = 'be_repositoryid'"),
          }),
          /is a briefcase/,
        );
        await assert.rejects(
          installation.start({ seedFile: altered("delete from be_Prop where Name = 'ProjectGuid'") }),
          /the offsets of its ids cannot be found/,
        );
        writeFileSync(file, 'x'.repeat(5000));
        await assert.rejects(installation.start({ seedFile: file }), /is not a SQLite file/);

        // More than one block of 4 MiB.
        const seedFile = altered('create table filler as select zeroblob(5000000) as bytes');
        const server = await installation.start({ seedFile });
        const { client, authorization } = await official(server);
        const iTwinId = await server.iTwin();
        const { id } = await client.iModels.createEmpty({
          authorization,
          iModelProperties: { iTwinId, name: 'of the own seed' },
        });
        const { _links } = await client.baselineFiles.getSingle({ authorization, iModelId: id });
        const bytes = Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer());
        const given = readFileSync(seedFile);
        assert.equal(bytes.length, given.length);
        const differing = bytes.reduce((count, byte, at) => count + (byte === given[at] ? 0 : 1), 0);
        assert.ok(differing > 0 && differing <= 32, `${differing} bytes differ`);
        assert.deepEqual(identityIn(bytes), { iModelId: id, iTwinId });
        assert.equal(
          (await client.checkpoints.getSingle({ authorization, iModelId: id, changesetIndex: 0 })).state,
          'successful',
        );
        await server.close();
      } finally {
        work.remove();
        installation.remove();
      }
    });
  });
