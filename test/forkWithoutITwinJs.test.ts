import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { ContainerTypes } from '@itwin/imodels-client-management';
import type { WireError } from './support/api.ts';
import { all, makeIModel } from './support/clients.ts';
import { onEachStore } from './support/suite.ts';

const everyContainer = ContainerTypes.SchemaSync | ContainerTypes.CodeStore | ContainerTypes.ViewStore;

onEachStore('Fork and template on a server without iTwin.js', {}, (context) => {
  const as = () => ({ authorization: context.olivia.authorization });

  test('a fork with history is available at once, keeps every changeset, and names its source', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 10, description: 'the main one' });
    const fork = await context.olivia.client.iModels.fork({
      ...as(),
      iModelId: source.id,
      iModelProperties: {
        iTwinId: context.iTwinId,
        name: randomUUID(),
        preserveHistory: true,
        containersEnabled: everyContainer,
      },
    });
    assert.deepEqual(
      [fork.description, fork.extent, fork.containersEnabled, fork.state],
      ['the main one', null, 7, 'initialized'],
    );
    const changesets = await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: fork.id }));
    assert.deepEqual(
      changesets.map(({ id }) => id),
      source.changesets.map(({ id }) => id),
    );
    const operation = await context.olivia.client.operations.getCreateIModelDetails({ ...as(), iModelId: fork.id });
    assert.deepEqual(
      [operation.state, operation.clonedFrom, operation.forkedFrom?.iModelId, operation.forkedFrom?.changesetId],
      ['successful', null, source.id, source.changesets[9]?.id],
    );
    assert.match(operation.forkedFrom?.relationshipId ?? '', /^[0-9a-f-]{36}$/);
  });

  test('forks and templates that need a new baseline are refused with the reason and leave nothing behind', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 2 });
    const name = randomUUID();
    const fork = await context.api.post(`/imodels/${source.id}/fork`, { iTwinId: context.iTwinId, name });
    assert.deepEqual(
      [fork.status, (fork.body as WireError).error.message, (fork.body as WireError).error.details?.[0]?.target],
      [422, 'Cannot fork iModel.', 'preserveHistory'],
    );
    const templated = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name,
      template: { iModelId: source.id, changesetId: source.changesets[0]?.id },
    });
    assert.deepEqual([templated.status, (templated.body as WireError).error.details?.[0]?.target], [422, 'template']);
    assert.deepEqual(
      ((await context.api.get(`/imodels?iTwinId=${context.iTwinId}&name=${name}`)).body as { iModels: unknown[] })
        .iModels,
      [],
    );
  });

  test('a template without changesets, or such a source to fork, needs no new baseline', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 2, description: 'not inherited' });
    const made = await context.olivia.client.iModels.createFromTemplate({
      ...as(),
      iModelProperties: {
        iTwinId: context.iTwinId,
        name: randomUUID(),
        containersEnabled: everyContainer,
        template: { iModelId: source.id },
      },
    });
    assert.deepEqual(
      [made.state, made.description, made.extent, made.containersEnabled],
      ['initialized', null, null, 7],
    );
    assert.deepEqual(await all(context.olivia.client.changesets.getMinimalList({ ...as(), iModelId: made.id })), []);
    const fork = await context.olivia.client.iModels.fork({
      ...as(),
      iModelId: source.id,
      iModelProperties: { iTwinId: context.iTwinId, name: randomUUID(), changesetIndex: 0 },
    });
    const operation = await context.olivia.client.operations.getCreateIModelDetails({ ...as(), iModelId: fork.id });
    assert.deepEqual([operation.state, operation.forkedFrom?.changesetId], ['successful', '']);
  });

  test('refusals match those of clone; a template must be readable by the caller', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId, { changesets: 1 });
    const codeOf = (answer: { body: unknown }): string => (answer.body as WireError).error.code;
    const fork = (body: object) =>
      context.api.post(`/imodels/${source.id}/fork`, {
        iTwinId: context.iTwinId,
        name: randomUUID(),
        preserveHistory: true,
        ...body,
      });
    assert.equal(codeOf(await fork({ changesetIndex: 9 })), 'ChangesetNotFound');
    assert.equal(codeOf(await fork({ iTwinId: randomUUID() })), 'iTwinNotFound');
    assert.equal(codeOf(await fork({ name: source.name })), 'iModelExists');
    assert.equal(
      ((await fork({ changesetIndex: 1, changesetId: '' })).body as WireError).error.details?.[0]?.code,
      'MutuallyExclusivePropertiesProvided',
    );
    const create = (template: object, api = context.api) =>
      api.post('/imodels', { iTwinId: context.iTwinId, name: randomUUID(), template });
    assert.equal(codeOf(await create({ iModelId: randomUUID() })), 'iModelNotFound');
    assert.equal(codeOf(await create({ iModelId: source.id, changesetId: 'f'.repeat(40) })), 'ChangesetNotFound');
    const own = await context.server.iTwin('eve');
    const eve = await context.server.as('eve');
    assert.equal(
      codeOf(await eve.post('/imodels', { iTwinId: own, name: 'x', template: { iModelId: source.id } })),
      'iModelNotFound',
    );
    const mode = await context.api.post('/imodels', {
      iTwinId: context.iTwinId,
      name: randomUUID(),
      creationMode: 'fromiModelVersion',
    });
    assert.equal((mode.body as WireError).error.details?.[0]?.target, 'template');
  });

  test('a fork counts against its own rate limit, not that of clone', async () => {
    const source = await makeIModel(context.olivia, context.iTwinId);
    const trial = await context.server.as('olivia', 'trial-app');
    const send = (what: string) =>
      trial.post(`/imodels/${source.id}/${what}`, {
        iTwinId: context.iTwinId,
        name: randomUUID(),
        preserveHistory: true,
      });
    for (let n = 0; n < 5; n++) assert.equal((await send('fork')).status, 202);
    assert.equal((await send('fork')).status, 429);
    assert.equal(
      (await context.api.post(`/imodels/${source.id}/clone`, { iTwinId: context.iTwinId, name: randomUUID() })).status,
      202,
    );
  });
});
