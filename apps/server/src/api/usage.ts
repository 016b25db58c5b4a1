import { Type } from '../jsonSchema.ts';
import { itwinRoute, type Route } from './route.ts';
import { Nullable } from './schemas.ts';

const Limit = Nullable(Type.Integer({ description: 'The limit; null if there is none.' }));
const UsedSchema = Type.Object({ used: Type.Integer(), limit: Limit });
const usage = {
  bytes: Type.Object(UsedSchema.properties, {
    description:
      'Bytes that are announced, stored, or deleted but not yet collected. Bytes that iModels share count once, for the account that stored them.',
  }),
  iModels: UsedSchema,
};

const getUsage = itwinRoute({
  operationId: 'get-itwin-usage',
  method: 'GET',
  path: '/itwins/:iTwinId/usage',
  tag: 'iTwins',
  summary: 'Get the usage and limits of an iTwin',
  description:
    'An extension of this server. `organization` holds the totals of all iTwins of the organization or, if the iTwin belongs to none, of all such iTwins of the same owner; it is null for callers who administer only this iTwin. A request that would exceed a limit is rejected with 422 and a detail `ResourceQuotaExceeded`.',
  access: { on: 'itwin', permission: 'administrator', from: 'path' },
  invalid: 'Cannot get usage.',
  response: {
    status: 200,
    description: 'Usage and limits.',
    schema: Type.Object({
      usage: Type.Object({
        iTwin: Type.Object({ ...usage, webhooks: UsedSchema, repositories: UsedSchema }),
        organization: Nullable(Type.Object(usage)),
        limits: Type.Object({
          baselineFile: Nullable(Type.Integer({ description: 'Bytes of the largest one.' })),
          changesetFile: Nullable(Type.Integer({ description: 'Bytes of the largest one.' })),
          sharesPerIModel: Limit,
          briefcasesPerIModel: Limit,
          namedVersionsPerIModel: Limit,
        }),
      }),
    }),
  },
  async handler({ access: { itwin, permissions }, services: { quotas, database } }) {
    const { shares, briefcases, namedVersions } = quotas.limits;
    const orNone = (limit: number): number | null => (limit === 0 ? null : limit);
    return {
      usage: {
        iTwin: await quotas.ofITwin(database.db, itwin),
        organization: permissions.has('organization_administrator')
          ? await quotas.ofOrganization(database.db, itwin)
          : null,
        limits: {
          baselineFile: quotas.largest('baseline'),
          changesetFile: quotas.largest('changeset'),
          sharesPerIModel: orNone(shares),
          briefcasesPerIModel: orNone(briefcases),
          namedVersionsPerIModel: orNone(namedVersions),
        },
      },
    };
  },
});

export const usageRoutes: Route[] = [getUsage];
