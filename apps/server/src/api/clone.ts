import { Type, type Static } from '../jsonSchema.ts';
import { CannotSquashError } from '../cloning/cloning.ts';
import type { CloneRequest } from '../cloning/copyIModel.ts';
import { ApiError, detail } from '../errors.ts';
import { madeIModel } from './made.ts';
import { imodelRoute, type IModelCall, type Route } from './route.ts';
import { ContainersEnabled, FreeText, IdText, NameText, Nullable } from './schemas.ts';

const CloneBody = Type.Object({
  // Clone rule: the target is the iTwin in the body.
  iTwinId: IdText({ minLength: 1, description: 'iTwin that will hold the new iModel.' }),
  name: Type.Optional(Nullable(NameText("Name of the new iModel; the source's by default. Unique within the iTwin."))),
  description: Type.Optional(
    Nullable(FreeText("Its description; the source's by default.", { minLength: 1, pattern: '\\S' })),
  ),
  changesetId: Type.Optional(
    Nullable(IdText({ description: 'Last changeset to copy; `""` copies the baseline only. All by default.' })),
  ),
  changesetIndex: Type.Optional(
    Nullable(
      Type.Integer({
        minimum: 0,
        maximum: Number.MAX_SAFE_INTEGER,
        description: 'Index of the last changeset to copy; 0 copies the baseline only.',
        explain: "'changesetIndex' must be a non-negative integer value.",
      }),
    ),
  ),
  containersEnabled: Type.Optional(Nullable(ContainersEnabled)),
});

/** Shared by the clone and fork routes. */
const cloneAndFork = {
  access: {
    on: 'imodel',
    // Clone rule: the caller manages the iTwin of the source.
    permission: 'imodels_manage',
    level: 'iTwin',
    also: '`imodels_manage` on the target iTwin too, and at least `imodels_webview` on the iModel where it has permissions of its own.',
  },
  response: {
    // Clone rule: the operation is asynchronous: 202 with Location and Create-iModel-Operation.
    status: 202,
    description: 'Accepted: the new iModel is durable. It is usable as soon as its create operation is `successful`.',
    headers: { Location: 'Address of the new iModel.', 'Create-iModel-Operation': 'Address of its create operation.' },
  },
  errors: ['iTwinNotFound', 'ChangesetNotFound', 'iModelNotInitialized', 'iModelExists'],
} as const;

/** Reads a request for a clone or a fork, and checks the permissions that the route does not declare. */
async function cloneRequest(
  { caller, access, requireTarget, invalid }: IModelCall<unknown, unknown>,
  body: Static<typeof CloneBody>,
): Promise<CloneRequest> {
  const { changesetId, changesetIndex } = body;
  // Rule of the API: both properties name the last changeset, so only one of them is allowed.
  if (changesetId != null && changesetIndex != null)
    throw invalid([detail.exclusiveProperties(['changesetId', 'changesetIndex'])]);
  // Clone rule: an iModel with permissions of its own must give the caller at least webview.
  if (!access.permissions.has('imodels_webview')) throw new ApiError('InsufficientPermissions');
  return {
    caller,
    source: access,
    // Clone rule: the caller manages the target iTwin.
    target: await requireTarget({ on: 'itwin', id: body.iTwinId, permission: 'imodels_manage' }),
    name: body.name ?? undefined,
    description: body.description ?? undefined,
    containersEnabled: body.containersEnabled ?? undefined,
    upTo: changesetIndex != null ? { index: changesetIndex } : changesetId != null ? { id: changesetId } : undefined,
  };
}

function answerWith({ links, reply }: Pick<IModelCall<unknown, unknown>, 'links' | 'reply'>, id: string): void {
  reply.headers({ location: links.imodel(id), 'create-imodel-operation': links.imodel(id, '/operations/create') });
}

const clone = imodelRoute({
  ...cloneAndFork,
  operationId: 'clone-imodel',
  method: 'POST',
  // Clone rule: the source is the iModel in the URL.
  path: '/imodels/:iModelId/clone',
  tag: 'Clone',
  summary: 'Clone an iModel',
  description: [
    'Creates a new, standalone iModel with the baseline and the extent of this one, and with its changesets up to the chosen one.',
    'Nothing else is copied: named versions, briefcases, locks, groups, extended data, users, permissions and thumbnail stay with the',
    'source. Nothing is synchronized afterwards, and deleting the source does not affect the clone. The set of changesets is fixed when',
    'the request is accepted. Within one data center, the clone is complete at once, including checkpoints. Into another one, its files',
    'are copied, and `progress` of the create operation reports how many.',
  ].join(' '),
  invalid: 'Cannot clone iModel.',
  made: madeIModel,
  body: CloneBody,
  async handler(call) {
    answerWith(call, await call.services.cloning.clone(await cloneRequest(call, call.body)));
  },
});

const fork = imodelRoute({
  ...cloneAndFork,
  operationId: 'fork-imodel',
  method: 'POST',
  path: '/imodels/:iModelId/fork',
  tag: 'Clone',
  summary: 'Fork an iModel',
  description: [
    'Like Clone, and the new iModel knows what it was forked from. Without `preserveHistory` its changesets become part of a new',
    'baseline. Every element must have a FederationGuid; if one has none the create operation ends as',
    '`mainIModelIsMissingFederationGuids`. A server without iTwin.js can tell neither that nor make a baseline: it forks with history only.',
  ].join(' '),
  invalid: 'Cannot fork iModel.',
  made: madeIModel,
  body: Type.Object({
    ...CloneBody.properties,
    preserveHistory: Type.Optional(Nullable(Type.Boolean({ description: 'Keep the changesets; false by default.' }))),
  }),
  async handler(call) {
    const { services, body, invalid } = call;
    const request = { ...(await cloneRequest(call, body)), preserveHistory: body.preserveHistory ?? false };
    const id = await services.cloning.fork(request).catch((error: unknown) => {
      if (error instanceof CannotSquashError)
        throw invalid([
          detail.invalidValue(
            'preserveHistory',
            "Provided 'preserveHistory' value is not valid. This server cannot apply changesets: iTwin.js is not installed.",
          ),
        ]);
      throw error;
    });
    answerWith(call, id);
  },
});

export const cloneRoutes: Route[] = [clone, fork];
