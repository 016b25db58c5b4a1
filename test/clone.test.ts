import assert from 'node:assert/strict';
import { createHash, randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import type { ContainerTypes } from '@itwin/imodels-client-management';
import sharp from 'sharp';
import type { Answer, Api, WireError } from './support/api.ts';
import { all, makeIModel, official, pushMore, workFolder, type MadeIModel, type Official } from './support/clients.ts';
import { identityIn } from './support/identity.ts';
import { bootServer, endServer, engines, people, type TestServer } from './support/server.ts';

const extent = { southWest: { latitude: 80, longitude: 170 }, northEast: { latitude: -80, longitude: -170 } };

for (const engine of engines) {
  describe(`clone on ${engine}`, () => {
    let server: TestServer;
    let olivia: Official;
    let api: Api;
    let iTwinId: string;
    let otherITwinId: string;
    let source: MadeIModel;

    before(async () => {
      server = await bootServer(engine);
      olivia = await official(server);
      api = await server.as('olivia');
      iTwinId = await server.iTwin();
      otherITwinId = await server.iTwin();
      source = await makeIModel(olivia, iTwinId, { changesets: 5, description: 'the source' });
      await olivia.client.iModels.update({
        authorization: olivia.authorization,
        iModelId: source.id,
        iModelProperties: { extent },
      });
    });
    after(() => endServer(server));

    /** Clones over plain HTTP; the id comes from the Location. */
    async function cloneRaw(body: Record<string, unknown>): Promise<string> {
      const answer = await api.post(`/imodels/${source.id}/clone`, {
        iTwinId: otherITwinId,
        name: `clone ${randomUUID()}`,
        ...body,
      });
      assert.equal(answer.status, 202, JSON.stringify(answer.body));
      return idIn(answer.headers.get('location'));
    }
    const idIn = (location: string | null): string =>
      /\/imodels\/([0-9a-f-]{36})$/.exec(location ?? '')?.[1] ?? assert.fail(`no iModel in ${location}`);
    const indexes = async (id: string): Promise<number[]> =>
      (await all(olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId: id }))).map(
        ({ index }) => index,
      );
    const operationOf = async (id: string) =>
      ((await api.get(`/imodels/${id}/operations/create`)).body as { createOperation: Record<string, unknown> })
        .createOperation;

    test('is answered by 202, no body, and where the clone and its operation are', async () => {
      const answer = await api.post(`/imodels/${source.id}/clone`, { iTwinId: otherITwinId, name: 'answered' });
      assert.equal(answer.status, 202);
      assert.equal(answer.body, undefined);
      const id = idIn(answer.headers.get('location'));
      assert.equal(answer.headers.get('location'), `${server.origin}/imodels/${id}`);
      assert.equal(answer.headers.get('create-imodel-operation'), `${server.origin}/imodels/${id}/operations/create`);
      assert.equal((await api.get(`/imodels/${id}`)).status, 200);
      assert.equal((await operationOf(id))['state'], 'successful');
    });

    test('through the official client needs no sleep: it is done before the first poll', async () => {
      const clone = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: source.id,
        iModelProperties: { iTwinId: otherITwinId, name: 'polled once' },
        // The client sleeps 1 s before a second poll; this limit would be over by then.
        timeOutInMs: 900,
      });
      assert.equal(clone.state, 'initialized');
      assert.deepEqual(await indexes(clone.id), [1, 2, 3, 4, 5]);
    });

    test('takes name, description and extent from the source where none is given, in another iTwin', async () => {
      const target = await server.iTwin();
      const clone = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: source.id,
        iModelProperties: { iTwinId: target },
      });
      assert.equal(clone.name, source.name);
      assert.equal(clone.displayName, source.name);
      assert.equal(clone.description, 'the source');
      assert.deepEqual(clone.extent, extent);
      assert.equal(clone.iTwinId, target);
      assert.equal(clone.state, 'initialized');
      assert.equal(clone.containersEnabled, 0);
      const creator = await clone.getCreator();
      assert.equal(creator?.id, people.olivia.id);
    });

    test('takes the name, description and containers given', async () => {
      const clone = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: source.id,
        iModelProperties: {
          iTwinId: otherITwinId,
          name: 'given',
          description: 'given too',
          containersEnabled: 7 as ContainerTypes,
          changesetIndex: 3,
        },
      });
      assert.equal(clone.name, 'given');
      assert.equal(clone.description, 'given too');
      assert.equal(clone.containersEnabled, 7);
      assert.deepEqual(clone.extent, extent);
      assert.deepEqual(await indexes(clone.id), [1, 2, 3]);
    });

    test('treats null as not given', async () => {
      const id = await cloneRaw({
        description: null,
        changesetId: null,
        changesetIndex: null,
        containersEnabled: null,
      });
      const { iModel } = (await api.get(`/imodels/${id}`)).body as { iModel: { description: string } };
      assert.equal(iModel.description, 'the source');
      assert.deepEqual(await indexes(id), [1, 2, 3, 4, 5]);
    });

    test('up to an index and up to an id is the same, and clonedFrom names the changeset', async () => {
      const third = source.changesets[2]?.id;
      for (const body of [{ changesetIndex: 3 }, { changesetId: third }, { changesetId: third?.toUpperCase() }]) {
        const id = await cloneRaw(body);
        assert.deepEqual(await indexes(id), [1, 2, 3]);
        assert.deepEqual((await operationOf(id))['clonedFrom'], { iModelId: source.id, changesetId: third });
      }
    });

    test('index 0 and id "" copy the baseline only', async () => {
      for (const body of [{ changesetIndex: 0 }, { changesetId: '' }]) {
        const id = await cloneRaw(body);
        assert.deepEqual(await indexes(id), []);
        assert.deepEqual((await operationOf(id))['clonedFrom'], { iModelId: source.id, changesetId: '' });
        const { iModel } = (await api.get(`/imodels/${id}`)).body as { iModel: { lastChangesetPushDateTime: null } };
        assert.equal(iModel.lastChangesetPushDateTime, null);
        const baseline = await olivia.client.baselineFiles.getSingle({
          authorization: olivia.authorization,
          iModelId: id,
        });
        assert.equal(baseline.state, 'initialized');
      }
    });

    test('of all changesets names the last one in clonedFrom, and has its push time', async () => {
      const id = await cloneRaw({});
      const operation = await olivia.client.operations.getCreateIModelDetails({
        authorization: olivia.authorization,
        iModelId: id,
      });
      assert.deepEqual(operation.clonedFrom, { iModelId: source.id, changesetId: source.changesets.at(-1)?.id });
      assert.equal(operation.forkedFrom, null);
      const { iModel } = (await api.get(`/imodels/${id}`)).body as { iModel: { lastChangesetPushDateTime: string } };
      const last = await olivia.client.changesets.getSingle({
        authorization: olivia.authorization,
        iModelId: source.id,
        changesetIndex: 5,
      });
      assert.equal(iModel.lastChangesetPushDateTime, last.pushDateTime);
    });

    test('an iModel that is no clone has clonedFrom null', async () => {
      assert.equal((await operationOf(source.id))['clonedFrom'], null);
    });

    test('keeps ids, indexes, parents and every byte of the changesets; the baseline has its own ids and is else the same', async () => {
      const id = await cloneRaw({});
      const work = workFolder();
      try {
        const downloaded = await olivia.client.changesets.downloadList({
          authorization: olivia.authorization,
          iModelId: id,
          targetDirectoryPath: work.path,
        });
        assert.deepEqual(
          downloaded.map(({ id: changesetId, index, parentId }) => ({ changesetId, index, parentId })),
          source.changesets.map(({ id: changesetId, index, parentId }) => ({ changesetId, index, parentId })),
        );
        for (const [n, file] of downloaded.entries())
          assert.deepEqual(readFileSync(file.filePath), source.changesets[n]?.bytes);
      } finally {
        work.remove();
      }
      const bytesOf = async (iModelId: string): Promise<Buffer> => {
        const { _links } = await olivia.client.baselineFiles.getSingle({
          authorization: olivia.authorization,
          iModelId,
        });
        const response = await fetch(_links.download?.href ?? '');
        return Buffer.from(await response.arrayBuffer());
      };
      const [ofClone, ofSource] = [await bytesOf(id), await bytesOf(source.id)];
      assert.deepEqual(identityIn(ofClone), {
        iModelId: id,
        iTwinId: (await olivia.client.iModels.getSingle({ authorization: olivia.authorization, iModelId: id })).iTwinId,
      });
      const differing = ofClone.reduce((count, byte, at) => count + (byte === ofSource[at] ? 0 : 1), 0);
      assert.ok(ofClone.length === ofSource.length && differing <= 32, `${differing} bytes differ`);
    });

    test('finds nothing by its id that its source has beyond the cut, however it is asked', async () => {
      const id = await cloneRaw({ changesetIndex: 3 });
      const [inside, beyond] = [source.changesets[2]?.id ?? '', source.changesets[3]?.id ?? ''];
      const briefcase = (await api.post(`/imodels/${id}/briefcases`, {})).body as {
        briefcase: { briefcaseId: number };
      };
      const { briefcaseId } = briefcase.briefcase;
      const locked = { briefcaseId, lockedObjects: [{ lockLevel: 'shared', objectIds: ['0x1'] }] };
      const asked: Record<string, (changesetId: string) => Promise<Answer>> = {
        changeset: (changeset) => api.get(`/imodels/${id}/changesets/${changeset}`),
        checkpoint: (changeset) => api.get(`/imodels/${id}/changesets/${changeset}/checkpoint`),
        'extended data': (changeset) =>
          api.post(`/imodels/${id}/changesets/${changeset}/extendeddata`, {
            data: Buffer.from('{}').toString('base64'),
          }),
        'named version': (changesetId) => api.post(`/imodels/${id}/namedversions`, { name: randomUUID(), changesetId }),
        clone: (changesetId) =>
          api.post(`/imodels/${id}/clone`, { iTwinId: otherITwinId, name: randomUUID(), changesetId }),
        fork: (changesetId) =>
          api.post(`/imodels/${id}/fork`, {
            iTwinId: otherITwinId,
            name: randomUUID(),
            changesetId,
            preserveHistory: true,
          }),
        locks: (changesetId) => api.patch(`/imodels/${id}/locks`, { ...locked, changesetId }),
      };
      for (const [what, ask] of Object.entries(asked)) {
        const refused = await ask(beyond);
        assert.deepEqual([refused.status, (refused.body as WireError).error.code], [404, 'ChangesetNotFound'], what);
        const found = await ask(inside);
        assert.ok(
          found.status < 300,
          `${what} of the last one that it has: ${found.status} ${JSON.stringify(found.body)}`,
        );
      }
      const template = { iTwinId: otherITwinId, name: randomUUID(), template: { iModelId: id, changesetId: beyond } };
      assert.equal(((await api.post('/imodels', template)).body as WireError).error.code, 'ChangesetNotFound');
    });

    describe('does not copy the rest of the source:', () => {
      let full: MadeIModel;
      let copy: string;
      before(async () => {
        full = await makeIModel(olivia, iTwinId, { changesets: 2 });
        const [first] = full.changesets;
        const { changesetGroup } = (await api.post(`/imodels/${full.id}/changesetgroups`, { description: 'a group' }))
          .body as { changesetGroup: { id: string } };
        const bytes = Buffer.from('of the group');
        const id = createHash('sha1')
          .update(full.changesets[1]?.id ?? '')
          .update(bytes)
          .digest('hex');
        const begun = await api.post(`/imodels/${full.id}/changesets`, {
          id,
          parentId: full.changesets[1]?.id,
          briefcaseId: full.briefcaseId,
          fileSize: bytes.length,
          groupId: changesetGroup.id,
        });
        const links = (begun.body as { changeset: { _links: Record<'upload' | 'complete', { href: string }> } })
          .changeset._links;
        await api.put(links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });
        const put = async (what: string, sent: Promise<Answer>) => {
          const { status, body } = await sent;
          assert.ok(status < 300, `${what}: ${status} ${JSON.stringify(body)}`);
        };
        await put(
          'the changeset of a group',
          api.patch(links.complete.href, { state: 'fileUploaded', briefcaseId: full.briefcaseId }),
        );
        await put(
          'a named version',
          api.post(`/imodels/${full.id}/namedversions`, { name: 'a version', changesetId: first?.id }),
        );
        await put(
          'a lock',
          api.patch(`/imodels/${full.id}/locks`, {
            briefcaseId: full.briefcaseId,
            changesetId: id,
            lockedObjects: [{ lockLevel: 'exclusive', objectIds: ['0x5'] }],
          }),
        );
        await put(
          'extended data',
          api.post(`/imodels/${full.id}/changesets/1/extendeddata`, { data: Buffer.from('{}').toString('base64') }),
        );
        await put(
          'a share',
          api.post(`/imodels/${full.id}/shares`, {
            name: 'a share',
            permission: 'imodels_read',
            expiresAt: new Date(Date.now() + 3_600_000).toISOString(),
          }),
        );
        await put(
          'a picture',
          api.put(
            `/imodels/${full.id}/thumbnail`,
            await sharp({ create: { width: 400, height: 250, channels: 3, background: 'red' } })
              .png()
              .toBuffer(),
            { 'content-type': 'image/png' },
          ),
        );
        for (const [method, marks] of [
          ['PUT', 'favorites'],
          ['POST', 'recents'],
        ] as const)
          await put(marks, api.send(method, `/imodels/${marks}/${full.id}`));
        // Another user looks at the source; permissions of its own come last, for they shut others out.
        await server.grant(iTwinId, 'max', ['imodels_read']);
        await put('another user', (await server.as('max')).get(`/imodels/${full.id}`));
        await put(
          'permissions',
          api.put(`/imodels/${full.id}/userpermissions`, {
            userPermissions: [{ userId: people.olivia.id, permissions: ['imodels_manage'] }],
          }),
        );
        const cloned = await api.post(`/imodels/${full.id}/clone`, { iTwinId, name: randomUUID() });
        assert.equal(cloned.status, 202, JSON.stringify(cloned.body));
        copy = idIn(cloned.headers.get('location'));
      });

      const lists: [what: string, address: (id: string) => string, key: string][] = [
        ['named versions', (id) => `/imodels/${id}/namedversions`, 'namedVersions'],
        ['briefcases', (id) => `/imodels/${id}/briefcases`, 'briefcases'],
        ['locks', (id) => `/imodels/${id}/locks`, 'locks'],
        ['changeset groups', (id) => `/imodels/${id}/changesetgroups`, 'changesetGroups'],
        ['extended data', (id) => `/imodels/${id}/changesets/extendeddata`, 'extendedData'],
        ['shares', (id) => `/imodels/${id}/shares`, 'shares'],
        ['permissions of users', (id) => `/imodels/${id}/userpermissions`, 'userPermissions'],
        ['permissions of roles', (id) => `/imodels/${id}/rolepermissions`, 'rolePermissions'],
      ];
      for (const [what, address, key] of lists)
        test(what, async () => {
          const listed = async (id: string): Promise<unknown[]> => {
            const { status, body } = await api.get(address(id));
            assert.equal(status, 200, JSON.stringify(body));
            return (body as Record<string, unknown[]>)[key] ?? assert.fail(`no ${key} in ${JSON.stringify(body)}`);
          };
          // An iModel has permissions of users or of roles.
          if (key !== 'rolePermissions') assert.ok((await listed(full.id)).length > 0, 'the source has some');
          assert.deepEqual(await listed(copy), []);
        });

      test('users: only its creator is one', async () => {
        const users = async (id: string) =>
          ((await api.get(`/imodels/${id}/users`)).body as { users: { id: string }[] }).users
            .map((user) => user.id)
            .toSorted();
        assert.deepEqual(await users(full.id), [people.olivia.id, people.max.id].toSorted());
        assert.deepEqual(await users(copy), [people.olivia.id]);
      });

      test('the group of a changeset and its named version, while the changeset is the same', async () => {
        const read = async (id: string, index: number) =>
          (
            (await api.get(`/imodels/${id}/changesets/${index}`)).body as {
              changeset: { id: string; groupId: string | null; _links: { namedVersion: unknown } };
            }
          ).changeset;
        const [grouped, named] = [await read(full.id, 3), await read(full.id, 1)];
        assert.ok(grouped.groupId !== null && named._links.namedVersion !== null);
        const [copied, first] = [await read(copy, 3), await read(copy, 1)];
        assert.deepEqual(
          [copied.id, copied.groupId, first.id, first._links.namedVersion],
          [grouped.id, null, named.id, null],
        );
      });

      test('the picture', async () => {
        const picture = async (id: string) => (await api.get(`/imodels/${id}/thumbnail`)).body;
        assert.notDeepEqual(await picture(copy), await picture(full.id));
        assert.deepEqual(await picture(copy), await picture(source.id));
      });

      test('favorites and recents', async () => {
        for (const marks of ['favorites', 'recents']) {
          const { iModels } = (await api.get(`/imodels/${marks}?iTwinId=${iTwinId}`)).body as {
            iModels: { id: string }[];
          };
          const ids = iModels.map((iModel) => iModel.id);
          assert.deepEqual([ids.includes(full.id), ids.includes(copy)], [true, false], marks);
        }
      });
    });

    test('goes its own way: neither side sees what is pushed to the other', async () => {
      const made = await makeIModel(olivia, iTwinId, { changesets: 2 });
      const clone = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: made.id,
        iModelProperties: { iTwinId: otherITwinId },
      });
      const cloneMade: MadeIModel = { ...made, id: clone.id, changesets: [...made.changesets], briefcaseId: 0 };
      await pushMore(olivia, made, 2);
      await pushMore(olivia, cloneMade, 1);
      await pushMore(olivia, made, 1);
      await pushMore(olivia, cloneMade, 2);
      assert.deepEqual(await indexes(made.id), [1, 2, 3, 4, 5]);
      assert.deepEqual(await indexes(clone.id), [1, 2, 3, 4, 5]);
      const idsOf = async (id: string): Promise<string[]> =>
        (await all(olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId: id }))).map(
          (changeset) => changeset.id,
        );
      assert.deepEqual(
        await idsOf(made.id),
        made.changesets.map((changeset) => changeset.id),
      );
      assert.deepEqual(
        await idsOf(clone.id),
        cloneMade.changesets.map((changeset) => changeset.id),
      );
      // What the source got after the clone is not to be found in the clone, by id either.
      const foreign = await api.get(`/imodels/${clone.id}/changesets/${made.changesets[3]?.id}`);
      assert.equal(foreign.status, 404);
    });

    test('of a clone of a clone, each with pushes of its own, sees exactly its own line', async () => {
      const first = await makeIModel(olivia, iTwinId, { changesets: 3 });
      const clone = async (of: MadeIModel, changesetIndex: number): Promise<MadeIModel> => {
        const made = await olivia.client.iModels.clone({
          authorization: olivia.authorization,
          iModelId: of.id,
          iModelProperties: { iTwinId: otherITwinId, name: randomUUID(), changesetIndex },
        });
        return {
          id: made.id,
          iTwinId: otherITwinId,
          name: made.name,
          changesets: of.changesets.slice(0, changesetIndex),
          briefcaseId: 0,
        };
      };
      const second = await clone(first, 2);
      await pushMore(olivia, second, 3);
      const third = await clone(second, 4);
      await pushMore(olivia, third, 2);
      const cutBelow = await clone(third, 1);
      await pushMore(olivia, cutBelow, 1);
      const plain = await clone(third, 6);
      for (const made of [first, second, third, cutBelow, plain]) {
        const listed = await all(
          olivia.client.changesets.getMinimalList({ authorization: olivia.authorization, iModelId: made.id }),
        );
        assert.deepEqual(
          listed.map((changeset) => changeset.id),
          made.changesets.map((changeset) => changeset.id),
        );
        for (const { id, index } of made.changesets) {
          const byIndex = await olivia.client.changesets.getSingle({
            authorization: olivia.authorization,
            iModelId: made.id,
            changesetIndex: index,
          });
          const byId = await olivia.client.changesets.getSingle({
            authorization: olivia.authorization,
            iModelId: made.id,
            changesetId: id,
          });
          assert.equal(byIndex.id, id);
          assert.equal(byId.index, index);
        }
      }
    });

    test('survives the deletion of its source, and of the clone it was made from', async () => {
      const made = await makeIModel(olivia, iTwinId, { changesets: 3 });
      const middle = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: made.id,
        iModelProperties: { iTwinId: otherITwinId, name: randomUUID() },
      });
      const last = await olivia.client.iModels.clone({
        authorization: olivia.authorization,
        iModelId: middle.id,
        iModelProperties: { iTwinId: otherITwinId, name: randomUUID() },
      });
      await olivia.client.iModels.delete({ authorization: olivia.authorization, iModelId: made.id });
      await olivia.client.iModels.delete({ authorization: olivia.authorization, iModelId: middle.id });
      await server.services.collector.runOnce();
      const work = workFolder();
      try {
        const files = await olivia.client.changesets.downloadList({
          authorization: olivia.authorization,
          iModelId: last.id,
          targetDirectoryPath: work.path,
        });
        assert.deepEqual(
          files.map(({ filePath }) => readFileSync(filePath)),
          made.changesets.map(({ bytes }) => bytes),
        );
      } finally {
        work.remove();
      }
      assert.deepEqual((await operationOf(last.id))['clonedFrom'], {
        iModelId: middle.id,
        changesetId: made.changesets[2]?.id,
      });
      const creator = await (
        await olivia.client.changesets.getSingle({
          authorization: olivia.authorization,
          iModelId: last.id,
          changesetIndex: 1,
        })
      ).getCreator();
      assert.equal(creator?.id, people.olivia.id);
    });

    describe('refuses', () => {
      const refusals: {
        what: string;
        body: () => unknown;
        headers?: Record<string, string>;
        status: number;
        error: WireError['error'];
      }[] = [
        {
          what: 'a missing iTwinId',
          body: () => ({ name: 'x' }),
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [{ code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'iTwinId' }],
          },
        },
        ...['', '  \t '].map((name) => ({
          what: `the blank name '${name}'`,
          body: () => ({ iTwinId: otherITwinId, name }),
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              {
                code: 'InvalidValue',
                message: `'${name}' is not a valid 'name' value. The value cannot be empty or consist only of whitespace characters.`,
                target: 'name',
              },
            ],
          },
        })),
        {
          what: 'a name and a description above 255 characters, both told at once',
          body: () => ({ iTwinId: otherITwinId, name: 'n'.repeat(256), description: 'd'.repeat(256) }),
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              {
                code: 'InvalidValue',
                message: "Provided 'name' value is not valid. The value exceeds allowed 255 characters.",
                target: 'name',
              },
              {
                code: 'InvalidValue',
                message: "Provided 'description' value is not valid. The value exceeds allowed 255 characters.",
                target: 'description',
              },
            ],
          },
        },
        {
          what: 'changesetId and changesetIndex together',
          body: () => ({ iTwinId: otherITwinId, changesetId: source.changesets[0]?.id, changesetIndex: 1 }),
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              {
                code: 'MutuallyExclusivePropertiesProvided',
                message: "Only one of the following properties can be provided: 'changesetId', 'changesetIndex'.",
              },
            ],
          },
        },
        ...[-1, 1.5, '3', true, 1e300].map((changesetIndex) => ({
          what: `the changesetIndex ${JSON.stringify(changesetIndex)}`,
          body: () => ({ iTwinId: otherITwinId, changesetIndex }),
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              {
                code: 'InvalidValue',
                message:
                  "Provided 'changesetIndex' value is not valid. 'changesetIndex' must be a non-negative integer value.",
                target: 'changesetIndex',
              },
            ],
          },
        })),
        {
          what: 'a body that is no JSON',
          body: () => '{"iTwinId":',
          headers: { 'content-type': 'application/json' },
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              { code: 'InvalidRequestBody', message: 'Failed to parse request body. Make sure it is a valid JSON.' },
            ],
          },
        },
        {
          what: 'another content type',
          body: () => '<clone/>',
          headers: { 'content-type': 'application/xml' },
          status: 422,
          error: {
            code: 'InvalidiModelsRequest',
            message: 'Cannot clone iModel.',
            details: [
              {
                code: 'InvalidHeaderValue',
                message:
                  "'application/xml' is not supported 'content-type'. Supported media type is 'application/json'.",
                target: 'content-type',
              },
            ],
          },
        },
        {
          what: 'no body',
          body: () => undefined,
          headers: { 'content-type': 'application/json' },
          status: 422,
          error: { code: 'MissingRequestBody', message: 'Request body was not provided.' },
        },
        {
          what: 'an index beyond the last changeset',
          body: () => ({ iTwinId: otherITwinId, changesetIndex: 6 }),
          status: 404,
          error: { code: 'ChangesetNotFound', message: 'Requested Changeset is not available.' },
        },
        ...['f'.repeat(40), 'nonExistentChangesetId'].map((changesetId) => ({
          what: `the unknown changeset ${changesetId}`,
          body: () => ({ iTwinId: otherITwinId, changesetId }),
          status: 404,
          error: { code: 'ChangesetNotFound', message: 'Requested Changeset is not available.' },
        })),
        ...[randomUUID(), 'invalidITwinId'].map((target) => ({
          what: `the unknown iTwin ${target}`,
          body: () => ({ iTwinId: target }),
          status: 404,
          error: { code: 'iTwinNotFound', message: 'Requested iTwin is not available.' },
        })),
        {
          what: 'a name that is taken in the target iTwin',
          body: () => ({ iTwinId, name: source.name }),
          status: 409,
          error: { code: 'iModelExists', message: 'iModel with the same name already exists within the iTwin.' },
        },
        {
          what: "the source's own name in its own iTwin, taken by default",
          body: () => ({ iTwinId }),
          status: 409,
          error: { code: 'iModelExists', message: 'iModel with the same name already exists within the iTwin.' },
        },
      ];
      for (const { what, body, headers, status, error } of refusals) {
        test(what, async () => {
          const count = async (): Promise<number> =>
            (
              await all(
                olivia.client.iModels.getMinimalList({
                  authorization: olivia.authorization,
                  urlParams: { iTwinId: otherITwinId },
                }),
              )
            ).length;
          const before = await count();
          const answer = await api.post(`/imodels/${source.id}/clone`, body(), headers);
          assert.equal(answer.status, status);
          assert.deepEqual(answer.body, { error });
          assert.equal(await count(), before);
        });
      }

      test('an unknown source, whatever the body', async () => {
        for (const id of [randomUUID(), 'invalid iModel id', 'favorites']) {
          const answer = await api.post(`/imodels/${encodeURIComponent(id)}/clone`, { iTwinId: otherITwinId });
          assert.equal(answer.status, 404);
          assert.deepEqual(answer.body, {
            error: { code: 'iModelNotFound', message: 'Requested iModel is not available.' },
          });
        }
      });

      test('a source that is not initialized', async () => {
        const created = await api.post('/imodels', { iTwinId, name: randomUUID(), baselineFile: { size: 4096 } });
        const { id } = (created.body as { iModel: { id: string } }).iModel;
        const answer = await api.post(`/imodels/${id}/clone`, { iTwinId: otherITwinId, name: randomUUID() });
        assert.equal(answer.status, 409);
        assert.deepEqual(answer.body, {
          error: { code: 'iModelNotInitialized', message: 'iModel is not initialized.' },
        });
      });

      test('a changeset whose push is not complete', async () => {
        const made = await makeIModel(olivia, iTwinId, { changesets: 1 });
        const id = 'a'.repeat(40);
        const begun = await api.post(`/imodels/${made.id}/changesets`, {
          id,
          parentId: made.changesets[0]?.id,
          briefcaseId: made.briefcaseId,
          fileSize: 5,
        });
        assert.equal(begun.status, 201);
        for (const body of [{ changesetId: id }, { changesetIndex: 2 }]) {
          const answer = await api.post(`/imodels/${made.id}/clone`, { iTwinId: otherITwinId, ...body });
          assert.equal(answer.status, 404);
          assert.equal((answer.body as WireError).error.code, 'ChangesetNotFound');
        }
      });
    });

    describe('asks for permission on both sides:', () => {
      /** Max clones Olivia's iModel with what he holds on both iTwins. */
      async function attempt(
        onSource: 'nothing' | 'imodels_webview' | 'imodels_write' | 'imodels_manage',
        onTarget: typeof onSource,
      ) {
        const from = await server.iTwin();
        const to = await server.iTwin();
        const made = await makeIModel(olivia, from, { changesets: 1 });
        if (onSource !== 'nothing') await server.grant(from, 'max', [onSource]);
        if (onTarget !== 'nothing') await server.grant(to, 'max', [onTarget]);
        const max = await server.as('max');
        return { answer: await max.post(`/imodels/${made.id}/clone`, { iTwinId: to }), made, from, to };
      }
      const cases = [
        ['imodels_manage', 'imodels_manage', 202, undefined],
        ['imodels_write', 'imodels_manage', 403, 'InsufficientPermissions'],
        ['imodels_webview', 'imodels_manage', 403, 'InsufficientPermissions'],
        ['nothing', 'imodels_manage', 404, 'iModelNotFound'],
        ['imodels_manage', 'imodels_write', 403, 'InsufficientPermissions'],
        ['imodels_manage', 'imodels_webview', 403, 'InsufficientPermissions'],
        ['imodels_manage', 'nothing', 404, 'iTwinNotFound'],
        ['nothing', 'nothing', 404, 'iModelNotFound'],
      ] as const;
      for (const [onSource, onTarget, status, code] of cases) {
        test(`${onSource} on the source and ${onTarget} on the target answers ${status}`, async () => {
          const { answer } = await attempt(onSource, onTarget);
          assert.equal(answer.status, status, JSON.stringify(answer.body));
          assert.equal((answer.body as WireError | undefined)?.error.code, code);
        });
      }

      test('a source with permissions of its own must also let the caller look at it', async () => {
        const { made, to } = await attempt('imodels_manage', 'imodels_manage');
        const max = await server.as('max');
        await api.put(`/imodels/${made.id}/userpermissions`, {
          userPermissions: [{ userId: people.olivia.id, permissions: ['imodels_manage'] }],
        });
        const shut = await max.post(`/imodels/${made.id}/clone`, { iTwinId: to, name: 'shut out' });
        assert.equal(shut.status, 403);
        await api.patch(`/imodels/${made.id}/userpermissions`, {
          userPermissions: [{ userId: people.max.id, permissions: ['imodels_webview'] }],
        });
        const open = await max.post(`/imodels/${made.id}/clone`, { iTwinId: to, name: 'let in' });
        assert.equal(open.status, 202);
      });

      test('manage on the iModel alone is not enough: it counts at iTwin level', async () => {
        const from = await server.iTwin();
        const to = await server.iTwin();
        const made = await makeIModel(olivia, from);
        await server.grant(from, 'max', ['imodels_webview']);
        await server.grant(to, 'max', ['imodels_manage']);
        await api.put(`/imodels/${made.id}/userpermissions`, {
          userPermissions: [{ userId: people.max.id, permissions: ['imodels_manage'] }],
        });
        const answer = await (await server.as('max')).post(`/imodels/${made.id}/clone`, { iTwinId: to });
        assert.equal(answer.status, 403);
      });

      test('an Organization Administrator of both organizations needs no role; of the other one sees nothing', async () => {
        const made = await makeIModel(olivia, await server.iTwin());
        const to = await server.iTwin();
        assert.equal((await (await server.as('admin')).post(`/imodels/${made.id}/clone`, { iTwinId: to })).status, 202);
        const foreign = await server.as('foreignAdmin');
        const refused = await foreign.post(`/imodels/${made.id}/clone`, {
          iTwinId: await server.iTwin('foreignAdmin'),
        });
        assert.equal(refused.status, 404);
        assert.equal((refused.body as WireError).error.code, 'iModelNotFound');
      });
    });
  });
}
