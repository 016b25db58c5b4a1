import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { test } from 'node:test';
import { sql } from 'kysely';
import { blobAccountsMigration } from '../../apps/server/src/db/migrations/0020-blob-accounts.ts';
import type { Answer, WireError } from '../support/api.ts';
import { makeIModel } from '../support/clients.ts';
import { otherStore, people } from '../support/server.ts';
import { onEachStore } from '../support/suite.ts';
import { until } from '../support/until.ts';

const mib = 2 ** 20;
const perGiB = (bytes: number): number => bytes / 2 ** 30;
const west = 'West Europe';

interface Usage {
  iTwin: Record<'bytes' | 'iModels' | 'webhooks' | 'repositories', { used: number; limit: number | null }>;
  organization: Record<'bytes' | 'iModels', { used: number; limit: number | null }> | null;
  limits: Record<string, number | null>;
}

onEachStore(
  'A tenant that uses as much as it can',
  (setup) => ({
    dataCenters: { [west]: otherStore(setup) },
    quotas: {
      baselineGiB: perGiB(8 * mib),
      changesetGiB: perGiB(4 * mib),
      iTwinGiB: perGiB(10 * mib),
      organizationGiB: perGiB(30 * mib),
      iTwinIModels: 6,
      organizationIModels: 40,
      webhooks: 2,
      repositories: 2,
      shares: 2,
      briefcases: 3,
      namedVersions: 2,
    },
    briefcases: { perUser: 10_000, perMinute: 10_000 },
  }),
  (context) => {
    const requireQuota = (answer: Answer, message: string): void => {
      const { error } = answer.body as WireError;
      assert.deepEqual(
        [answer.status, error?.details?.map(({ code }) => code)],
        [422, ['ResourceQuotaExceeded']],
        JSON.stringify(answer.body),
      );
      assert.ok(error.details?.[0]?.message.startsWith(message), error.details?.[0]?.message);
    };
    const usageOf = async (
      iTwinId: string,
      who: 'olivia' | 'admin' | 'eve' | 'foreignAdmin' = 'olivia',
    ): Promise<Usage> => {
      const { status, body } = await (await context.server.as(who)).get(`/itwins/${iTwinId}/usage`);
      assert.equal(status, 200, JSON.stringify(body));
      return (body as { usage: Usage }).usage;
    };
    const create = (iTwinId: string, size?: number) =>
      context.api.post('/imodels', {
        iTwinId,
        name: randomUUID(),
        ...(size !== undefined && { baselineFile: { size } }),
      });
    const idOf = (answer: Answer): string => (answer.body as { iModel: { id: string } }).iModel.id;
    const push = async (iModelId: string, fileSize: number, parentId = ''): Promise<Answer> => {
      const { briefcase } = (await context.api.post(`/imodels/${iModelId}/briefcases`, {})).body as {
        briefcase: { briefcaseId: number };
      };
      return context.api.post(`/imodels/${iModelId}/changesets`, {
        id: randomBytes(20).toString('hex'),
        parentId,
        briefcaseId: briefcase.briefcaseId,
        fileSize,
      });
    };

    test('announces no file larger than the maximum', async () => {
      const iTwinId = await context.server.iTwin();
      for (const size of [8 * mib + 1, Number.MAX_SAFE_INTEGER]) {
        const refused = await create(iTwinId, size);
        assert.deepEqual(
          [refused.status, (refused.body as WireError).error.details?.map(({ code, target }) => [code, target])],
          [422, [['InvalidValue', 'baselineFile']]],
        );
      }
      assert.equal((await create(iTwinId, 8 * mib)).status, 201);
      const { id } = await makeIModel(context.olivia, iTwinId);
      const refused = await push(id, 4 * mib + 1);
      assert.deepEqual(
        [refused.status, (refused.body as WireError).error.details?.map(({ code, target }) => [code, target])],
        [422, [['InvalidValue', 'fileSize']]],
      );
    });

    test('stores no more bytes than its iTwin may have: announced, pushed, or copied into another data center', async () => {
      const iTwinId = await context.server.iTwin();
      const { id } = await makeIModel(context.olivia, iTwinId);
      assert.equal((await create(iTwinId, 8 * mib)).status, 201);
      requireQuota(await create(iTwinId, 3 * mib), 'Maximum number of bytes per iTwin');
      requireQuota(await push(id, 3 * mib), 'Maximum number of bytes per iTwin');
      assert.equal((await push(id, mib)).status, 201);
      const { bytes } = (await usageOf(iTwinId)).iTwin;
      assert.deepEqual(bytes, { used: 9 * mib, limit: 10 * mib });
    });

    test('is refused a copy into another data center that exceeds its quota there', async () => {
      const [from, to] = [await context.server.iTwin(), await context.server.iTwin('olivia', undefined, west)];
      const made = await makeIModel(context.olivia, from, { changesets: 2 });
      // As if the changesets were large: their size is checked before the copy begins.
      await context.server.services.database.db
        .updateTable('changeset')
        .set({ file_size: 6 * mib })
        .where(
          'id',
          'in',
          made.changesets.map(({ id }) => id),
        )
        .execute();
      const accepted = await context.api.post(`/imodels/${made.id}/clone`, { iTwinId: to, name: randomUUID() });
      assert.equal(accepted.status, 202);
      const operation = await until('the end of the copy', async () => {
        const { createOperation } = (await context.api.get(accepted.headers.get('create-imodel-operation') ?? ''))
          .body as { createOperation: { state: string; failureReason: string } };
        return createOperation.state === 'scheduled' ? undefined : createOperation;
      });
      assert.equal(operation.state, 'failed');
      assert.match(operation.failureReason, /^Maximum number of bytes per iTwin limit reached/);
    });

    test('is charged once for shared bytes, whoever stored them; clones elsewhere add nothing', async () => {
      const [home, other] = [await context.server.iTwin(), await context.server.iTwin()];
      const made = await makeIModel(context.olivia, home, { changesets: 3 });
      const stored = made.changesets.reduce((sum, { bytes }) => sum + bytes.length, 0);
      assert.equal((await usageOf(home)).iTwin.bytes.used, stored);
      for (const iTwinId of [home, other])
        assert.equal(
          (await context.api.post(`/imodels/${made.id}/clone`, { iTwinId, name: randomUUID() })).status,
          202,
        );
      assert.deepEqual([(await usageOf(home)).iTwin.bytes.used, (await usageOf(other)).iTwin.bytes.used], [stored, 0]);
      assert.deepEqual([(await usageOf(home)).iTwin.iModels.used, (await usageOf(other)).iTwin.iModels.used], [2, 1]);
      // The source is deleted, its bytes stay for the clones, and stay charged to the account that stored them.
      assert.equal((await context.api.delete(`/imodels/${made.id}`)).status, 204);
      assert.equal((await usageOf(home)).iTwin.bytes.used, stored);
    });

    test('creates no more iModels than its iTwin may have, in any way; deleting one makes room at once', async () => {
      const iTwinId = await context.server.iTwin();
      const source = await makeIModel(context.olivia, iTwinId);
      const made = [source.id];
      for (let n = 1; n < 6; n++) made.push(idOf(await create(iTwinId)));
      const text = 'Maximum number of iModels per iTwin limit reached: 6.';
      requireQuota(await create(iTwinId), text);
      requireQuota(await create(iTwinId, 100), text);
      for (const how of ['clone', 'fork'])
        requireQuota(await context.api.post(`/imodels/${source.id}/${how}`, { iTwinId, name: randomUUID() }), text);
      requireQuota(
        await context.api.post('/imodels', { iTwinId, name: randomUUID(), template: { iModelId: source.id } }),
        text,
      );
      assert.equal((await context.api.delete(`/imodels/${made.at(-1)}`)).status, 204);
      assert.equal((await create(iTwinId)).status, 201);
      requireQuota(await create(iTwinId), text);
    });

    test('cannot evade quotas by creating iTwins: organizations and users without one have limits too', async () => {
      const eve = await context.server.as('eve');
      const iTwins: string[] = [];
      const sizes: number[] = [];
      for (let n = 0; n < 4; n++) {
        iTwins.push(await context.server.iTwin('eve'));
        const answer = await eve.post('/imodels', {
          iTwinId: iTwins[n],
          name: 'large',
          baselineFile: { size: 8 * mib },
        });
        sizes.push(answer.status);
        if (answer.status !== 201) requireQuota(answer, 'Maximum number of bytes per organization');
      }
      assert.deepEqual(sizes, [201, 201, 201, 422]);
      const { organization } = await usageOf(iTwins[3] as string, 'foreignAdmin');
      assert.deepEqual(organization, { bytes: { used: 24 * mib, limit: 30 * mib }, iModels: { used: 3, limit: 40 } });
      // Another tenant is not affected.
      assert.equal((await create(await context.server.iTwin(), mib)).status, 201);

      const { db } = context.server.services.database;
      await db.updateTable('itwin').set({ organization_id: null }).where('id', 'in', iTwins).execute();
      await db
        .updateTable('blob')
        .set({ account_id: `user:${people.eve.id}` })
        .where('itwin_id', 'in', iTwins)
        .execute();
      requireQuota(
        await eve.post('/imodels', { iTwinId: iTwins[3], name: 'large', baselineFile: { size: 8 * mib } }),
        'Maximum number of bytes per organization',
      );
    });

    test('has limits on webhooks, repositories, shares, briefcases and named versions', async () => {
      const iTwinId = await context.server.iTwin();
      const made = await makeIModel(context.olivia, iTwinId, { changesets: 3 });
      const expiresAt = new Date(Date.now() + 3_600_000).toISOString();
      const attempts: [string, number, () => Promise<Answer>][] = [
        [
          'Webhooks per iTwin',
          2,
          () =>
            context.api.post(`/itwins/${iTwinId}/webhooks`, {
              callbackUrl: 'https://hooks.example',
              eventTypes: ['iModels.iModelDeleted.v1'],
            }),
        ],
        [
          'Repositories per iTwin',
          2,
          () =>
            context.api.post(`/itwins/${iTwinId}/repositories`, {
              class: 'Forms',
              uri: `https://${randomUUID()}.example`,
            }),
        ],
        [
          'Shares per iModel',
          2,
          () => context.api.post(`/imodels/${made.id}/shares`, { name: 'x', permission: 'imodels_webview', expiresAt }),
        ],
        // One of them created the changesets.
        ['Briefcases per iModel', 2, () => context.api.post(`/imodels/${made.id}/briefcases`, {})],
      ];
      let version = 0;
      attempts.push([
        'Named Versions per iModel',
        2,
        () =>
          context.api.post(`/imodels/${made.id}/namedversions`, {
            name: randomUUID(),
            changesetId: made.changesets[version++]?.id,
          }),
      ]);
      for (const [text, most, attempt] of attempts) {
        for (let n = 0; n < most; n++) assert.equal((await attempt()).status, 201, text);
        requireQuota(await attempt(), `Maximum number of ${text} limit reached`);
      }
      const { shares } = (await context.api.get(`/imodels/${made.id}/shares`)).body as { shares: { id: string }[] };
      await context.server.services.database.db
        .updateTable('share')
        .set({ expires_at: 1 })
        .where('id', '=', shares[0]?.id ?? '')
        .execute();
      assert.equal(
        (await context.api.post(`/imodels/${made.id}/shares`, { name: 'x', permission: 'imodels_webview', expiresAt }))
          .status,
        201,
      );
    });

    test('shows its usage to administrators of the iTwin and of the organization, and to nobody else', async () => {
      const iTwinId = await context.server.iTwin();
      const { organization, limits, iTwin } = await usageOf(iTwinId);
      assert.deepEqual([organization, iTwin.iModels], [null, { used: 0, limit: 6 }]);
      assert.deepEqual(limits, {
        baselineFile: 8 * mib,
        changesetFile: 4 * mib,
        sharesPerIModel: 2,
        briefcasesPerIModel: 3,
        namedVersionsPerIModel: 2,
      });
      assert.ok(((await usageOf(iTwinId, 'admin')).organization?.iModels.used ?? 0) > 0);
      await context.server.grant(iTwinId, 'max', ['imodels_manage', 'itwins_modify']);
      assert.equal((await (await context.server.as('max')).get(`/itwins/${iTwinId}/usage`)).status, 403);
      assert.equal((await (await context.server.as('foreignAdmin')).get(`/itwins/${iTwinId}/usage`)).status, 404);
    });

    test('has data from an earlier version counted', async () => {
      const iTwinId = await context.server.iTwin();
      const made = await makeIModel(context.olivia, iTwinId, { changesets: 2 });
      assert.equal((await create(iTwinId, mib)).status, 201);
      const before = (await usageOf(iTwinId)).iTwin.bytes.used;
      assert.ok(before > mib && made.changesets.length === 2);
      const { db } = context.server.services.database;
      for (const index of ['blob_itwin', 'blob_account']) await sql`drop index ${sql.ref(index)}`.execute(db);
      for (const column of ['itwin_id', 'account_id'])
        await sql`alter table blob drop column ${sql.ref(column)}`.execute(db);
      await db.transaction().execute((tx) => blobAccountsMigration(context.engine).up(tx));
      assert.equal((await usageOf(iTwinId)).iTwin.bytes.used, before);
      const seeds = await db.selectFrom('blob').select('itwin_id').where('id', 'like', 'seed-%').execute();
      assert.ok(seeds.length > 0 && seeds.every(({ itwin_id }) => itwin_id === null));
    });
  },
);
