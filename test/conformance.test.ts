import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';
import { BackendIModelsAccess } from '@itwin/imodels-access-backend';
import { LockLevel, type LockedObjects } from '@itwin/imodels-client-authoring';
import { ChangesetGroupState, NamedVersionState, ThumbnailSize } from '@itwin/imodels-client-management';
import sharp from 'sharp';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { sampleBaseline } from '../scripts/sample.ts';
import { all, changesetIdOf, makeIModel, newest, pushMore, workFolder, type MadeIModel } from './support/clients.ts';
import { callAs, methodsOf, methodsOfClass } from './support/coverage.ts';
import { onEachStore, type Context } from './support/suite.ts';
import type * as RealModel from '../scripts/realModel.ts';

/** The property of a client by the file that declares its operations. */
const getters = {
  IModelOperations: 'iModels',
  BriefcaseOperations: 'briefcases',
  ChangesetOperations: 'changesets',
  ChangesetExtendedDataOperations: 'changesetExtendedData',
  ChangesetGroupOperations: 'changesetGroups',
  NamedVersionOperations: 'namedVersions',
  CheckpointOperations: 'checkpoints',
  ThumbnailOperations: 'thumbnails',
  UserOperations: 'users',
  UserPermissionOperations: 'userPermissions',
  OperationOperations: 'operations',
  LockOperations: 'locks',
  BaselineFileOperations: 'baselineFiles',
  FavoriteIModelOperations: 'favoriteIModels',
  RecentIModelOperations: 'recentIModels',
};

const management = 'management 6.2.2';
const authoring = 'authoring 6.0.2';
const accessBackend = 'access-backend 6.0.2';

type Call = (context: Context, made: MadeIModel) => Promise<unknown>;

/** Every method of the newest management client, on an iModel with three changesets; other suites check the answers. */
const managementCalls: Record<string, Call> = {};
/** Every method that the authoring client adds. */
const authoringCalls: Record<string, Call> = {};
const backendCalls: Record<
  string,
  (access: BackendIModelsAccess, context: Context, made: MadeIModel, folder: string) => Promise<unknown>
> = {};

type Newest = Awaited<ReturnType<typeof newest>>;
function m(
  method: string,
  call: (
    client: Newest['client'],
    as: { authorization: Newest['authorization']; iModelId: string },
    context: Context,
    made: MadeIModel,
  ) => Promise<unknown>,
): void {
  managementCalls[method] = async (context, made) => {
    const { client, authorization } = await newest(context.server);
    return call(client, { authorization, iModelId: made.id }, context, made);
  };
}
function a(
  method: string,
  call: (
    client: Context['olivia']['client'],
    as: { authorization: Context['olivia']['authorization']; iModelId: string },
    context: Context,
    made: MadeIModel,
  ) => Promise<unknown>,
): void {
  authoringCalls[method] = async (context, made) =>
    call(context.olivia.client, { authorization: context.olivia.authorization, iModelId: made.id }, context, made);
}

const name = () => `conformance ${randomUUID()}`;
const some = async (items: Promise<unknown[]>): Promise<void> => assert.ok((await items).length > 0);

m('iModels.getMinimalList', (c, { authorization }, { iTwinId }) =>
  some(all(c.iModels.getMinimalList({ authorization, urlParams: { iTwinId } }))),
);
m('iModels.getRepresentationList', (c, { authorization }, { iTwinId }) =>
  some(all(c.iModels.getRepresentationList({ authorization, urlParams: { iTwinId } }))),
);
m('iModels.getSingle', (c, as) => c.iModels.getSingle(as));
m('iModels.createEmpty', (c, { authorization }, { iTwinId }) =>
  c.iModels.createEmpty({ authorization, iModelProperties: { iTwinId, name: name() } }),
);
m('iModels.createFromTemplate', (c, { authorization, iModelId }, { iTwinId }) =>
  c.iModels.createFromTemplate({ authorization, iModelProperties: { iTwinId, name: name(), template: { iModelId } } }),
);
m('iModels.clone', (c, as, { iTwinId }) => c.iModels.clone({ ...as, iModelProperties: { iTwinId, name: name() } }));
m('iModels.fork', (c, as, { iTwinId }) =>
  c.iModels.fork({ ...as, iModelProperties: { iTwinId, name: name(), preserveHistory: true } }),
);
m('iModels.update', (c, as) => c.iModels.update({ ...as, iModelProperties: { description: 'updated' } }));
m('iModels.delete', async (c, { authorization }, context) =>
  c.iModels.delete({ authorization, iModelId: (await makeIModel(context.olivia, context.iTwinId)).id }),
);
m('operations.getCreateIModelDetails', (c, as) => c.operations.getCreateIModelDetails(as));
m('briefcases.getMinimalList', (c, as) => some(all(c.briefcases.getMinimalList(as))));
m('briefcases.getRepresentationList', (c, as) => some(all(c.briefcases.getRepresentationList(as))));
m('briefcases.getSingle', (c, as, _, made) => c.briefcases.getSingle({ ...as, briefcaseId: made.briefcaseId }));
m('briefcases.release', async (c, as, context) => {
  const { briefcaseId } = await context.olivia.client.briefcases.acquire({ ...as });
  await c.briefcases.release({ ...as, briefcaseId });
});
m('changesets.getMinimalList', (c, as) => some(all(c.changesets.getMinimalList(as))));
m('changesets.getRepresentationList', (c, as) => some(all(c.changesets.getRepresentationList(as))));
m('changesets.getSingle', (c, as) => c.changesets.getSingle({ ...as, changesetIndex: 1 }));
m('changesetExtendedData.getList', (c, as) => all(c.changesetExtendedData.getList(as)));
m('changesetExtendedData.getSingle', (c, as) => c.changesetExtendedData.getSingle({ ...as, changesetIndex: 1 }));
m('changesetGroups.getList', (c, as) => some(all(c.changesetGroups.getList(as))));
m('changesetGroups.getSingle', async (c, as) => {
  const [group] = await all(c.changesetGroups.getList(as));
  return c.changesetGroups.getSingle({ ...as, changesetGroupId: group?.id ?? '' });
});
m('namedVersions.create', (c, as, _, made) =>
  c.namedVersions.create({
    ...as,
    namedVersionProperties: { name: name(), changesetId: made.changesets[1]?.id ?? '' },
  }),
);
m('namedVersions.getMinimalList', (c, as) => some(all(c.namedVersions.getMinimalList(as))));
m('namedVersions.getRepresentationList', (c, as) => some(all(c.namedVersions.getRepresentationList(as))));
const versionOf = async (
  c: Newest['client'],
  as: { authorization: Newest['authorization']; iModelId: string },
): Promise<string> => (await all(c.namedVersions.getMinimalList(as)))[0]?.id ?? '';
m('namedVersions.getSingle', async (c, as) =>
  c.namedVersions.getSingle({ ...as, namedVersionId: await versionOf(c, as) }),
);
m('namedVersions.update', async (c, as) =>
  c.namedVersions.update({
    ...as,
    namedVersionId: await versionOf(c, as),
    namedVersionProperties: { state: NamedVersionState.Hidden as never },
  }),
);
m('checkpoints.getSingle', async (c, as) => {
  await c.checkpoints.getSingle({ ...as, changesetIndex: 0 });
  await c.checkpoints.getSingle({ ...as, namedVersionId: await versionOf(c, as) });
  const [briefcase] = await all(c.briefcases.getRepresentationList(as));
  assert.equal((await briefcase?.getCheckpoint())?.state, 'successful');
});
m('checkpoints.updateNamedVersionCheckpoint', async (c, as) =>
  c.checkpoints.updateNamedVersionCheckpoint({ ...as, namedVersionId: await versionOf(c, as) }),
);
m('thumbnails.download', (c, as) => c.thumbnails.download({ ...as, urlParams: { size: ThumbnailSize.Small } }));
m('thumbnails.upload', async (c, as) => {
  const image = await sharp({ create: { width: 50, height: 50, channels: 3, background: 'red' } })
    .png()
    .toBuffer();
  await c.thumbnails.upload({ ...as, thumbnailProperties: { imageType: 'image/png' as never, image } });
});
m('users.getMinimalList', (c, as) => some(all(c.users.getMinimalList(as))));
m('users.getRepresentationList', (c, as) => some(all(c.users.getRepresentationList(as))));
m('users.getSingle', async (c, as) =>
  c.users.getSingle({ ...as, userId: (await all(c.users.getMinimalList(as)))[0]?.id ?? '' }),
);
m('userPermissions.get', (c, as) => c.userPermissions.get(as));
m('locks.getList', (c, as) => some(all(c.locks.getList(as))));
m('locks.getReleasedLockList', (c, as) =>
  all(c.locks.getReleasedLockList({ ...as, urlParams: { afterChangesetIndex: 0 } })),
);
m('locks.releaseLocksChunk', (c, as, _, made) =>
  c.locks.releaseLocksChunk({ ...as, briefcaseId: made.briefcaseId, changesetId: made.changesets[0]?.id ?? '' }),
);
for (const [kind, label] of [
  ['favoriteIModels', 'favoriteIModels'],
  ['recentIModels', 'recentIModels'],
] as const) {
  m(`${label}.add`, (c, as) => c[kind].add(as));
  m(`${label}.getMinimalList`, (c, { authorization }, { iTwinId }) =>
    some(all(c[kind].getMinimalList({ authorization, urlParams: { iTwinId } }))),
  );
  m(`${label}.getRepresentationList`, (c, { authorization }, { iTwinId }) =>
    some(all(c[kind].getRepresentationList({ authorization, urlParams: { iTwinId } }))),
  );
  m(`${label}.remove`, (c, as) => c[kind].remove(as));
}

const locked: LockedObjects[] = [{ lockLevel: LockLevel.Exclusive, objectIds: ['0x1', '0x2'] }];
a('baselineFiles.getSingle', (c, as) => c.baselineFiles.getSingle(as));
a('briefcases.acquire', (c, as) => c.briefcases.acquire({ ...as, briefcaseProperties: { deviceName: 'desk' } }));
a('briefcases.release', async (c, as) =>
  c.briefcases.release({ ...as, briefcaseId: (await c.briefcases.acquire(as)).briefcaseId }),
);
a('changesetGroups.create', (c, as) =>
  c.changesetGroups.create({ ...as, changesetGroupProperties: { description: 'group' } }),
);
a('changesetGroups.update', async (c, as) => {
  const { id } = await c.changesetGroups.create({ ...as, changesetGroupProperties: { description: 'group' } });
  return c.changesetGroups.update({
    ...as,
    changesetGroupId: id,
    changesetGroupProperties: { state: ChangesetGroupState.Completed },
  });
});
a('changesets.create', (_c, _as, context, made) => pushMore(context.olivia, made, 1));
a('changesets.downloadSingle', async (c, as) =>
  inFolder((targetDirectoryPath) => c.changesets.downloadSingle({ ...as, changesetIndex: 1, targetDirectoryPath })),
);
a('changesets.downloadList', async (c, as) =>
  inFolder((targetDirectoryPath) => c.changesets.downloadList({ ...as, targetDirectoryPath })),
);
a('changesetExtendedData.create', (c, as) =>
  c.changesetExtendedData.create({ ...as, changesetIndex: 1, changesetExtendedDataProperties: { data: { a: 1 } } }),
);
a('iModels.createFromBaseline', (c, { authorization }, { iTwinId }) =>
  inFolder((folder) => {
    const filePath = path.join(folder, 'baseline.bim');
    writeFileSync(filePath, sampleBaseline());
    return c.iModels.createFromBaseline({ authorization, iModelProperties: { iTwinId, name: name(), filePath } });
  }),
);
a('locks.getList', (c, as) => all(c.locks.getList(as)));
a('locks.update', (c, as, _, made) =>
  c.locks.update({
    ...as,
    briefcaseId: made.briefcaseId,
    changesetId: made.changesets.at(-1)?.id ?? '',
    lockedObjects: locked,
  }),
);

async function inFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = workFolder();
  try {
    return await work(folder.path);
  } finally {
    folder.remove();
  }
}

/** iTwin.js is optional; its hub access is tested where it is installed. */
const iTwinJs: typeof RealModel | undefined = isITwinJsInstalled()
  ? await import('../scripts/realModel.ts')
  : undefined;

Object.assign(backendCalls, {
  queryChangeset: (b, _, made) => b.queryChangeset({ iModelId: made.id, changeset: { index: 1 } }),
  queryChangesets: (b, _, made) => some(b.queryChangesets({ iModelId: made.id, range: { first: 1, end: 2 } })),
  getLatestChangeset: (b, _, made) => b.getLatestChangeset({ iModelId: made.id }),
  getChangesetFromVersion: async (b, _, made) => {
    const { IModelVersion } = await import('@itwin/core-common');
    assert.equal(
      (
        await b.getChangesetFromVersion({
          iModelId: made.id,
          version: IModelVersion.asOfChangeSet(made.changesets[0]?.id ?? ''),
        })
      ).index,
      1,
    );
    assert.equal((await b.getChangesetFromVersion({ iModelId: made.id, version: IModelVersion.first() })).index, 0);
  },
  getChangesetFromNamedVersion: async (b, { olivia }, made) => {
    const versionName = name();
    await olivia.client.namedVersions.create({
      authorization: olivia.authorization,
      iModelId: made.id,
      namedVersionProperties: { name: versionName, changesetId: made.changesets[2]?.id ?? '' },
    });
    assert.equal((await b.getChangesetFromNamedVersion({ iModelId: made.id, versionName })).index, 3);
  },
  downloadChangeset: (b, _, made, targetDir) =>
    b.downloadChangeset({ iModelId: made.id, changeset: { index: 1 }, targetDir }),
  downloadChangesets: (b, _, made, targetDir) =>
    some(b.downloadChangesets({ iModelId: made.id, range: { first: 1 }, targetDir, progressCallback: () => 0 })),
  acquireNewBriefcaseId: (b, _, made) => b.acquireNewBriefcaseId({ iModelId: made.id }),
  getMyBriefcaseIds: (b, _, made) => some(b.getMyBriefcaseIds({ iModelId: made.id })),
  releaseBriefcase: async (b, _, made) =>
    b.releaseBriefcase({ iModelId: made.id, briefcaseId: await b.acquireNewBriefcaseId({ iModelId: made.id }) }),
  acquireLocks: (b, _, made) =>
    b.acquireLocks(
      { iModelId: made.id, briefcaseId: made.briefcaseId, changeset: { id: made.changesets.at(-1)?.id ?? '' } },
      new Map([['0x20', 2]]),
    ),
  queryAllLocks: (b, _, made) =>
    some(
      b.queryAllLocks({
        iModelId: made.id,
        briefcaseId: made.briefcaseId,
        changeset: { id: made.changesets.at(-1)?.id ?? '' },
      }),
    ),
  releaseAllLocks: async (b, _, made) => {
    const held = {
      iModelId: made.id,
      briefcaseId: made.briefcaseId,
      changeset: { id: made.changesets.at(-1)?.id ?? '', index: made.changesets.length },
    };
    await b.releaseAllLocks(held);
    assert.deepEqual(await b.queryAllLocks(held), []);
  },
  pushChangeset: async (b, _, made, folder) => {
    const bytes = randomBytes(100);
    const parentId = made.changesets.at(-1)?.id ?? '';
    const id = changesetIdOf(parentId, bytes);
    const pathname = path.join(folder, `${id}.cs`);
    writeFileSync(pathname, bytes);
    const index = await b.pushChangeset({
      iModelId: made.id,
      changesetProps: {
        id,
        parentId,
        pathname,
        changesType: 0,
        description: 'pushed',
        briefcaseId: made.briefcaseId,
        index: 0,
        pushDate: '',
        userCreated: '',
        size: bytes.length,
      },
    });
    made.changesets.push({ id, parentId, index, bytes });
  },
  queryV2Checkpoint: async (b, { iTwinId }, made) => {
    const found = await b.queryV2Checkpoint({
      iModelId: made.id,
      iTwinId,
      changeset: { id: made.changesets[0]?.id ?? '', index: 1 },
      allowPreceding: true,
    });
    assert.deepEqual([found?.dbName, found?.containerId], ['BASELINE.bim', `imodelblocks-${made.id}`]);
  },
  downloadV1Checkpoint: async (b, { iTwinId }, made, folder) => {
    const told: number[] = [];
    const localFile = path.join(folder, 'checkpoint.bim');
    const { index, id } = await b.downloadV1Checkpoint({
      localFile,
      checkpoint: { iModelId: made.id, iTwinId, changeset: { id: made.changesets[0]?.id ?? '', index: 1 } },
      onProgress: (loaded) => (told.push(loaded), 0),
    });
    assert.deepEqual([index, id], [0, null]);
    assert.equal(told.at(-1), readFileSync(localFile).length);
  },
  queryIModelByName: async (b, { iTwinId }, made) =>
    assert.equal(await b.queryIModelByName({ iTwinId, iModelName: made.name }), made.id),
  createNewIModel: async (b, { iTwinId }) => b.createNewIModel({ iTwinId, iModelName: name() }),
  deleteIModel: async (b, { iTwinId, olivia }) =>
    b.deleteIModel({ iTwinId, iModelId: (await makeIModel(olivia, iTwinId)).id }),
} satisfies typeof backendCalls);

const native = workFolder();
let models: RealModel.RealModels | undefined;
/** The token of the current server: iTwin.js is started once for all servers. */
let token = '';
before(async () => {
  models = await iTwinJs?.RealModels.start(native.path, 'http://127.0.0.1:9', () => token);
});
after(async () => {
  await models?.stop();
  native.remove();
});

onEachStore('The official clients', {}, (context) => {
  let made: MadeIModel;
  before(async () => {
    made = await makeIModel(context.olivia, context.iTwinId, { changesets: 3 });
  });

  test('are covered: every public method of theirs has a test', () => {
    assert.deepEqual(Object.keys(managementCalls).toSorted(), methodsOf('imodels-client-management-next', getters));
    assert.deepEqual(Object.keys(authoringCalls).toSorted(), methodsOf('@itwin/imodels-client-authoring', getters));
    assert.deepEqual(
      Object.keys(backendCalls).toSorted(),
      methodsOfClass('@itwin/imodels-access-backend', 'BackendIModelsAccess'),
    );
  });

  // Methods that create something precede those that read it.
  for (const [method, call] of Object.entries(authoringCalls))
    test(`${authoring}: ${method}`, async () =>
      void (await callAs(`${authoring} \`${method}\``, () => call(context, made))));
  const lastly = ['locks.releaseLocksChunk'];
  const order = Object.entries(managementCalls).sort(
    ([one], [other]) => Number(lastly.includes(one)) - Number(lastly.includes(other)),
  );
  for (const [method, call] of order)
    test(`${management}: ${method}`, async () =>
      void (await callAs(`${management} \`${method}\``, () => call(context, made))));
  for (const [method, call] of Object.entries(backendCalls))
    test(
      `${accessBackend}: ${method}`,
      { skip: iTwinJs === undefined ? 'iTwin.js is not installed' : false },
      async () => {
        token = await context.server.token('olivia');
        const access = new BackendIModelsAccess({ api: { baseUrl: `${context.server.origin}/imodels` } });
        const folder = path.join(native.path, randomUUID());
        mkdirSync(folder);
        await callAs(`${accessBackend} \`${method}\``, () => call(access, context, made, folder));
      },
    );
});
