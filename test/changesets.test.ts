import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { ChangesetOrderByProperty, ContainingChanges, OrderByOperator } from '@itwin/imodels-client-management';
import type { WireError } from './support/api.ts';
import { all, changesetIdOf, makeIModel, pushMore, workFolder, type MadeIModel } from './support/clients.ts';
import { people } from './support/server.ts';
import { onEachStore } from './support/suite.ts';

interface Created {
  changeset: {
    id: string;
    index: number;
    state: string;
    creatorId: null;
    pushDateTime: null;
    displayName: string;
    _links: { upload: { href: string; storageType: string }; complete: { href: string } };
  };
}

onEachStore('Changesets', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });
  let shared: Promise<MadeIModel> | undefined;
  /** An iModel with 10 changesets that no test changes. */
  const ten = (): Promise<MadeIModel> => (shared ??= makeIModel(context.olivia, context.iTwinId, { changesets: 10 }));

  async function indexes(urlParams: object): Promise<number[]> {
    const iModelId = (await ten()).id;
    const minimal = await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId, urlParams }));
    const full = await all(context.olivia.client.changesets.getRepresentationList({ ...as(), iModelId, urlParams }));
    assert.deepEqual(
      full.map(({ id }) => id),
      minimal.map(({ id }) => id),
    );
    return minimal.map(({ index }) => index);
  }

  test('are listed by index, in pages, in ranges and in descending order', async () => {
    const upTo10 = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10];
    assert.deepEqual(await indexes({}), upTo10);
    for (const $top of [1, 3, 5, 10]) assert.deepEqual(await indexes({ $top }), upTo10);
    const descending = { property: ChangesetOrderByProperty.Index, operator: OrderByOperator.Descending };
    assert.deepEqual(await indexes({ $top: 4, $orderBy: descending }), upTo10.toReversed());
    assert.deepEqual(await indexes({ afterIndex: 5, lastIndex: 10 }), [6, 7, 8, 9, 10]);
    assert.deepEqual(await indexes({ afterIndex: 5, lastIndex: 10, $orderBy: descending, $top: 2 }), [10, 9, 8, 7, 6]);
    assert.deepEqual(await indexes({ afterIndex: 0, lastIndex: 2 }), [1, 2]);
    assert.deepEqual(await indexes({ afterIndex: 10 }), []);
    assert.deepEqual(await indexes({ lastIndex: 0 }), []);
    assert.deepEqual(await indexes({ $skip: 8, $top: 1 }), [9, 10]);
  });

  test('pages link backward as well as forward', async () => {
    const { id } = await ten();
    const read = async (url: string) =>
      (await context.api.get(url)).body as {
        changesets: { index: number }[];
        _links: Record<'prev' | 'next', { href: string } | null>;
      };
    for (const [order, second] of [
      ['asc', [4, 5, 6]],
      ['desc', [7, 6, 5]],
    ] as const) {
      const first = await read(`/imodels/${id}/changesets?$top=3&$orderBy=index ${order}`);
      const next = await read(first._links.next?.href ?? '');
      assert.deepEqual(
        next.changesets.map(({ index }) => index),
        second,
      );
      const back = await read(next._links.prev?.href ?? '');
      assert.deepEqual(back.changesets, first.changesets);
      assert.equal(back._links.prev, null);
    }
  });

  test('are found by id and by index, in full representation', async () => {
    const made = await ten();
    for (const changeset of [{ changesetIndex: 4 }, { changesetId: made.changesets[3]?.id ?? '' }]) {
      const found = await context.olivia.client.changesets.getSingle({ ...as(), iModelId: made.id, ...changeset });
      assert.equal(found.id, made.changesets[3]?.id);
      assert.equal(found.index, 4);
      assert.equal(found.parentId, made.changesets[2]?.id);
      assert.equal(found.displayName, '4');
      assert.equal(found.description, null);
      assert.equal(found.creatorId, people.olivia.id);
      assert.equal(found.briefcaseId, made.briefcaseId);
      assert.equal(found.fileSize, made.changesets[3]?.bytes.length);
      assert.equal(found.state, 'fileUploaded');
      assert.equal(found.groupId, null);
      assert.deepEqual(found.application, { id: 'suite', name: 'Test suite' });
      assert.equal(found.synchronizationInfo, null);
      assert.equal(found._links.namedVersion, null);
      assert.match(
        found._links.currentOrPrecedingCheckpoint?.href ?? '',
        /\/imodels\/[0-9a-f-]+\/changesets\/0\/checkpoint$/,
      );
      assert.equal((await found.getCreator())?.id, people.olivia.id);
    }
    assert.equal(
      (await context.olivia.client.changesets.getSingle({ ...as(), iModelId: made.id, changesetIndex: 1 })).parentId,
      '',
    );
  });

  test('unknown changesets answer ChangesetNotFound, however they are addressed', async () => {
    const { id } = await ten();
    for (const name of [
      '0',
      '11',
      '555',
      '9'.repeat(39),
      'f'.repeat(40),
      '1'.repeat(40),
      'nonExistentChangesetId',
      'invalidId',
      '-1',
      '1.5',
      '%00',
      encodeURIComponent('../../x'),
    ]) {
      const answer = await context.api.get(`/imodels/${id}/changesets/${name}`);
      assert.equal(answer.status, 404, name);
      assert.deepEqual(answer.body, {
        error: { code: 'ChangesetNotFound', message: 'Requested Changeset is not available.' },
      });
    }
  });

  test('every read gives a new, working download link that contains the id', async () => {
    const made = await ten();
    const link = async (): Promise<string> =>
      (await context.olivia.client.changesets.getSingle({ ...as(), iModelId: made.id, changesetIndex: 1 }))._links
        .download?.href ?? '';
    const links = [await link(), await link()];
    assert.notEqual(links[0], links[1]);
    for (const href of links) {
      assert.ok(href.includes(made.changesets[0]?.id ?? '?'));
      assert.deepEqual(Buffer.from(await (await fetch(href)).arrayBuffer()), made.changesets[0]?.bytes);
    }
  });

  test('are downloaded by the official client byte for byte', async () => {
    const made = await ten();
    const work = workFolder();
    try {
      const files = await context.olivia.client.changesets.downloadList({
        ...as(),
        iModelId: made.id,
        targetDirectoryPath: work.path,
      });
      assert.deepEqual(
        files.map(({ filePath }) => readFileSync(filePath)),
        made.changesets.map(({ bytes }) => bytes),
      );
      const single = await context.olivia.client.changesets.downloadSingle({
        ...as(),
        iModelId: made.id,
        changesetIndex: 7,
        targetDirectoryPath: path.join(work.path, 'single'),
      });
      assert.deepEqual(readFileSync(single.filePath), made.changesets[6]?.bytes);
    } finally {
      work.remove();
    }
  });

  test('changesets that share their bytes have separate links', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const { db } = context.server.services.database;
    const [first, second] = made.changesets;
    const { blob_id } = await db
      .selectFrom('changeset')
      .select('blob_id')
      .where('id', '=', first?.id ?? '')
      .executeTakeFirstOrThrow();
    await db
      .updateTable('changeset')
      .set({ blob_id })
      .where('id', '=', second?.id ?? '')
      .execute();
    for (const { id, _links } of await all(
      context.olivia.client.changesets.getRepresentationList({ ...as(), iModelId: made.id }),
    )) {
      assert.match(_links.download?.href ?? '', new RegExp(id));
      assert.deepEqual(Buffer.from(await (await fetch(_links.download?.href ?? '')).arrayBuffer()), first?.bytes);
    }
  });

  test('push times strictly increase', async () => {
    const times = (
      await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: (await ten()).id }))
    ).map(({ pushDateTime }) => Date.parse(pushDateTime));
    for (let n = 1; n < times.length; n++) assert.ok((times[n] as number) > (times[n - 1] as number));
  });

  test('description, kind of changes and synchronization info are returned by reads, but not by the completion', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const work = workFolder();
    try {
      const bytes = randomBytes(300);
      const id = changesetIdOf(made.changesets[0]?.id ?? '', bytes);
      const filePath = path.join(work.path, 'x.cs');
      writeFileSync(filePath, bytes);
      const synchronizationInfo = { taskId: 'task 1', changedFiles: ['a.dgn', 'b.dgn'] };
      const pushed = await context.olivia.client.changesets.create({
        ...as(),
        iModelId: made.id,
        changesetProperties: {
          id,
          parentId: made.changesets[0]?.id ?? '',
          briefcaseId: made.briefcaseId,
          filePath,
          description: 'described',
          containingChanges: ContainingChanges.Schema,
          synchronizationInfo,
        },
      });
      assert.equal(pushed.index, 2);
      assert.equal(pushed.state, 'fileUploaded');
      assert.equal(pushed.synchronizationInfo, null);
      assert.deepEqual(
        [pushed._links.namedVersion, pushed._links.currentOrPrecedingCheckpoint, pushed._links.download],
        [null, null, null],
      );
      const found = await context.olivia.client.changesets.getSingle({ ...as(), iModelId: made.id, changesetId: id });
      assert.deepEqual(
        [found.description, found.containingChanges, found.synchronizationInfo],
        ['described', 1, synchronizationInfo],
      );
    } finally {
      work.remove();
    }
  });

  /** A new iModel with one changeset, for pushes over plain HTTP. */
  async function fresh() {
    const made = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const head = made.changesets[0]?.id ?? '';
    const post = (body: object) =>
      context.api.post(`/imodels/${made.id}/changesets`, {
        parentId: head,
        briefcaseId: made.briefcaseId,
        fileSize: 10,
        ...body,
      });
    const complete = (id: string, body: object = {}) =>
      context.api.patch(`/imodels/${made.id}/changesets/${id}`, {
        state: 'fileUploaded',
        briefcaseId: made.briefcaseId,
        ...body,
      });
    return { made, head, post, complete };
  }
  const newId = (): string => randomBytes(20).toString('hex');
  const codeOf = (answer: { body: unknown }): string => (answer.body as WireError).error.code;
  const upload = (created: { body: unknown }, bytes: Buffer) =>
    context.api.put((created.body as Created).changeset._links.upload.href, bytes, { 'x-ms-blob-type': 'BlockBlob' });

  test('the answer to an announced push matches the API', async () => {
    const { made, post } = await fresh();
    const id = newId();
    const answer = await post({ id });
    assert.equal(answer.status, 201);
    const { changeset } = answer.body as Created;
    assert.deepEqual(
      [
        changeset.id,
        changeset.index,
        changeset.state,
        changeset.creatorId,
        changeset.pushDateTime,
        changeset.displayName,
      ],
      [id, 0, 'waitingForFile', null, null, '2'],
    );
    assert.equal(changeset._links.upload.storageType, 'azure');
    assert.equal(changeset._links.complete.href, `${context.server.origin}/imodels/${made.id}/changesets/${id}`);
  });

  test('a changeset is invisible until its push is complete', async () => {
    const { made, post, complete } = await fresh();
    const id = newId();
    const begun = await post({ id });
    assert.equal(codeOf(await complete(id)), 'FileNotFound');
    assert.equal((await upload(begun, randomBytes(10))).status, 201);
    assert.equal((await context.api.get(`/imodels/${made.id}/changesets/${id}`)).status, 404);
    assert.equal(
      (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }))).length,
      1,
    );
    assert.equal((await complete(id)).status, 200);
    assert.equal((await context.api.get(`/imodels/${made.id}/changesets/${id}`)).status, 200);
  });

  test('a completion that is repeated after a lost answer gets the same answer', async () => {
    const { made, post, complete } = await fresh();
    const id = newId();
    await upload(await post({ id }), randomBytes(10));
    const first = await complete(id);
    const second = await complete(id);
    assert.deepEqual([first.status, second.status], [200, 200]);
    assert.deepEqual(second.body, first.body);
    assert.equal(
      (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }))).length,
      2,
    );
  });

  test('a file of a size other than declared is not stored, and its completion answers DataConflict', async () => {
    const { made, post, complete } = await fresh();
    const id = newId();
    const begun = await post({ id });
    for (const size of [9, 11]) assert.equal((await upload(begun, randomBytes(size))).status, context.refused(400));
    const answer = await complete(id);
    assert.deepEqual([answer.status, codeOf(answer)], [409, 'DataConflict']);
    assert.equal((await upload(begun, randomBytes(10))).status, 201);
    assert.equal((await complete(id)).status, 200);
    assert.equal(
      (await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }))).length,
      2,
    );
  });

  test('an existing id answers ChangesetExists, a stale parent NewerChangesExist', async () => {
    const { made, head, post } = await fresh();
    const exists = await post({ id: head });
    assert.deepEqual([exists.status, codeOf(exists)], [409, 'ChangesetExists']);
    await pushMore(context.olivia, made, 1);
    const stale = await post({ id: newId() });
    assert.deepEqual(
      [stale.status, stale.body],
      [409, { error: { code: 'NewerChangesExist', message: "'parentId' does not match latest Changeset." } }],
    );
    const none = await post({ id: newId(), parentId: null });
    assert.equal(codeOf(none), 'NewerChangesExist');
  });

  test('briefcases are checked before parents, and must belong to the caller', async () => {
    const { made, post } = await fresh();
    const unknown = await post({ id: newId(), briefcaseId: 77, parentId: newId() });
    assert.deepEqual([unknown.status, codeOf(unknown)], [404, 'BriefcaseNotFound']);
    await context.server.grant(context.iTwinId, 'max', ['imodels_write']);
    const max = await context.server.as('max');
    const foreign = await max.post(`/imodels/${made.id}/changesets`, {
      id: newId(),
      parentId: made.changesets[0]?.id,
      briefcaseId: made.briefcaseId,
      fileSize: 1,
    });
    assert.deepEqual([foreign.status, codeOf(foreign)], [403, 'InsufficientPermissions']);
  });

  test('while one briefcase pushes, others wait; the same one may start over', async () => {
    const { made, post, complete } = await fresh();
    const other = (await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id })).briefcaseId;
    const abandoned = await post({ id: newId() });
    const waits = await post({ id: newId(), briefcaseId: other });
    assert.deepEqual(
      [waits.status, waits.body],
      [409, { error: { code: 'ConflictWithAnotherUser', message: 'Another user is pushing a Changeset.' } }],
    );
    const id = newId();
    const again = await post({ id });
    assert.equal(again.status, 201);
    assert.equal((await upload(abandoned, randomBytes(10))).status, context.refused(404));
    assert.equal(codeOf(await complete((abandoned.body as Created).changeset.id)), 'ChangesetNotFound');
    await upload(again, randomBytes(10));
    assert.equal(codeOf(await complete(id, { briefcaseId: other })), 'ConflictWithAnotherUser');
    assert.equal((await complete(id)).status, 200);
    assert.equal((await post({ id: newId(), parentId: id, briefcaseId: other })).status, 201);
  });

  test('a push keeps its lease no longer than intended when a fast clock is set back', async () => {
    const { made, post } = await fresh();
    const other = (await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id })).briefcaseId;
    await post({ id: newId() });
    const threeHoursAhead = Date.now() + 3 * 3_600_000;
    await context.server.services.database.db
      .updateTable('pending_changeset')
      .set({ lease_until: threeHoursAhead, created_at: threeHoursAhead })
      .where('imodel_id', '=', made.id)
      .execute();
    assert.equal((await post({ id: newId(), briefcaseId: other })).status, 201);
  });

  test('releasing a briefcase releases its unfinished push', async () => {
    const { made, post } = await fresh();
    const other = (await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id })).briefcaseId;
    await post({ id: newId() });
    await context.olivia.client.briefcases.release({ ...as(), iModelId: made.id, briefcaseId: made.briefcaseId });
    assert.equal((await post({ id: newId(), briefcaseId: other })).status, 201);
  });

  const badBodies: [what: string, body: object, detail: object][] = [
    [
      'a missing id',
      { id: undefined },
      { code: 'MissingRequiredProperty', message: 'Required property is missing.', target: 'id' },
    ],
    [
      'a negative size',
      { fileSize: -1 },
      {
        code: 'InvalidValue',
        message: "Provided 'fileSize' value is not valid. 'fileSize' must be a non-negative integer value.",
        target: 'fileSize',
      },
    ],
    [
      'an id that is no SHA-1',
      { id: 'abc' },
      {
        code: 'InvalidValue',
        message: "Provided 'id' value is not valid. 'id' must be 40 hexadecimal digits.",
        target: 'id',
      },
    ],
    [
      'a briefcase of 0',
      { briefcaseId: 0 },
      {
        code: 'InvalidValue',
        message: "Provided 'briefcaseId' value is not valid. 'briefcaseId' must be a positive integer value.",
        target: 'briefcaseId',
      },
    ],
  ];
  for (const [what, body, detail] of badBodies) {
    test(`a push with ${what} is refused`, async () => {
      const answer = await context.api.post(`/imodels/${(await ten()).id}/changesets`, {
        id: newId(),
        briefcaseId: 2,
        fileSize: 1,
        ...body,
      });
      assert.equal(answer.status, 422);
      assert.deepEqual(answer.body, {
        error: { code: 'InvalidiModelsRequest', message: 'Cannot create Changeset.', details: [detail] },
      });
    });
  }

  test('a completion with another state is refused', async () => {
    const answer = await context.api.patch(`/imodels/${(await ten()).id}/changesets/${newId()}`, {
      state: 'waitingForFile',
      briefcaseId: 2,
    });
    assert.deepEqual((answer.body as WireError).error.details, [
      {
        code: 'InvalidValue',
        message: "Provided 'state' value is not valid. Should be set to 'fileUploaded'.",
        target: 'state',
      },
    ]);
    assert.equal((answer.body as WireError).error.message, 'Cannot update Changeset.');
  });

  test('20 clients that push concurrently produce exactly one chain, with every index once', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const pushers = await Promise.all(
      Array.from(
        { length: 20 },
        async () => (await context.olivia.client.briefcases.acquire({ ...as(), iModelId: made.id })).briefcaseId,
      ),
    );
    const expected = new Set(['ConflictWithAnotherUser', 'NewerChangesExist']);
    async function push(briefcaseId: number): Promise<void> {
      for (let done = 0, tries = 0; done < 2; tries++) {
        assert.ok(tries < 2000, 'a pusher starves');
        const { changesets } = (await context.api.get(`/imodels/${made.id}/changesets?$top=1&$orderBy=index desc`))
          .body as { changesets: { id: string }[] };
        const parentId = changesets[0]?.id ?? '';
        const bytes = randomBytes(20);
        const id = changesetIdOf(parentId, bytes);
        const begun = await context.api.post(`/imodels/${made.id}/changesets`, {
          id,
          parentId,
          briefcaseId,
          fileSize: 20,
        });
        if (begun.status !== 201) {
          assert.ok(expected.has(codeOf(begun)), codeOf(begun));
          continue;
        }
        assert.equal((await upload(begun, bytes)).status, 201);
        const completed = await context.api.patch((begun.body as Created).changeset._links.complete.href, {
          state: 'fileUploaded',
          briefcaseId,
        });
        assert.equal(completed.status, 200, JSON.stringify(completed.body));
        done++;
      }
    }
    await Promise.all(pushers.map(push));
    const chain = await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id }));
    assert.deepEqual(
      chain.map(({ index }) => index),
      Array.from({ length: 40 }, (_, n) => n + 1),
    );
    for (const [n, { parentId }] of chain.entries()) assert.equal(parentId, n === 0 ? '' : chain[n - 1]?.id);
  });
});

onEachStore('An unfinished push', { pushLeaseSeconds: 1 }, (context) => {
  test('blocks other pushes only while its lease lasts', async () => {
    const made = await makeIModel(context.olivia, context.iTwinId);
    const { authorization } = context.olivia;
    const [first, second] = [
      await context.olivia.client.briefcases.acquire({ authorization, iModelId: made.id }),
      await context.olivia.client.briefcases.acquire({ authorization, iModelId: made.id }),
    ];
    const begin = (briefcaseId: number) =>
      context.api.post(`/imodels/${made.id}/changesets`, {
        id: randomBytes(20).toString('hex'),
        briefcaseId,
        fileSize: 4,
      });
    const abandoned = await begin(first.briefcaseId);
    assert.equal(abandoned.status, 201);
    let taken = await begin(second.briefcaseId);
    const until = Date.now() + 20_000;
    while (taken.status !== 201) {
      assert.equal((taken.body as WireError).error.code, 'ConflictWithAnotherUser');
      assert.ok(Date.now() < until, 'the lease never ran out');
      taken = await begin(second.briefcaseId);
    }
    const late = await context.api.patch((abandoned.body as Created).changeset._links.complete.href, {
      state: 'fileUploaded',
      briefcaseId: first.briefcaseId,
    });
    assert.deepEqual([late.status, (late.body as WireError).error.code], [409, 'ConflictWithAnotherUser']);
  });
});
