import { Type } from 'typebox';
import { requireITwin } from '../access/permissions.ts';
import { acceptClone } from '../clone/accept.ts';
import { parseGuid } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { imodelRoute, type Route } from './route.ts';
import { ContainersEnabled, Nullable, Text255 } from './schemas.ts';

const clone = imodelRoute({
  operationId: 'clone-imodel',
  method: 'POST',
  path: '/imodels/:iModelId/clone',
  tag: 'Clone',
  summary: 'Clone an iModel',
  description: [
    'Makes a new, standalone iModel out of this one: its baseline, its extent, and its changesets up to the chosen one. Nothing',
    'else comes along (named versions, briefcases, locks, groups, extended data, users, permissions, thumbnail), nothing is',
    'synchronised later, and deleting this iModel does not touch the clone. The set of changesets is fixed when the request is',
    'accepted.',
  ].join(' '),
  access: {
    on: 'imodel',
    permission: 'imodels_manage',
    level: 'iTwin',
    also: '`imodels_manage` on the target iTwin too, and at least `imodels_webview` on the iModel where it has permissions of its own.',
  },
  invalid: 'Cannot clone iModel.',
  body: Type.Object({
    iTwinId: Type.String({ description: 'iTwin that will hold the clone.' }),
    name: Type.Optional(Nullable(Text255("Name of the clone; the source's by default. Unique within the iTwin."))),
    description: Type.Optional(Nullable(Text255("Description of the clone; the source's by default."))),
    changesetId: Type.Optional(Nullable(Type.String({ description: 'Last changeset to copy; `""` copies the baseline only. All by default.' }))),
    changesetIndex: Type.Optional(
      Nullable(
        Type.Integer({
          minimum: 0,
          maximum: Number.MAX_SAFE_INTEGER,
          description: 'The same by index; 0 copies the baseline only.',
          explain: "'changesetIndex' must be a non-negative integer value.",
        }),
      ),
    ),
    containersEnabled: Type.Optional(Nullable(ContainersEnabled)),
  }),
  response: {
    status: 202,
    description: 'Accepted: the clone is durable. It is usable as soon as its create operation is `successful`.',
    headers: { Location: 'Address of the new iModel.', 'Create-iModel-Operation': 'Address of its create operation.' },
  },
  errors: ['iTwinNotFound', 'ChangesetNotFound', 'iModelNotInitialized', 'iModelExists'],
  async handler({ access, caller, body, links, services, reply, invalid }) {
    const { changesetId, changesetIndex } = body;
    // Rule of the API: two ways to say the same thing, so only one of them.
    if (changesetId != null && changesetIndex != null) throw invalid([detail.exclusiveProperties(['changesetId', 'changesetIndex'])]);
    // Rule of the API: an iModel with permissions of its own must let the caller at least look at it.
    if (!access.permissions.has('imodels_webview')) throw new ApiError('InsufficientPermissions');
    const targetId = parseGuid(body.iTwinId);
    const target = requireITwin(targetId === undefined ? undefined : await services.permissions.onITwin(caller, targetId), 'imodels_manage');

    const id = await acceptClone(services.database, caller, access, target, {
      name: body.name ?? undefined,
      description: body.description ?? undefined,
      containersEnabled: body.containersEnabled ?? undefined,
      upTo: changesetIndex != null ? { index: changesetIndex } : changesetId != null ? { id: changesetId } : undefined,
    });
    reply.headers({ location: links.imodel(id), 'create-imodel-operation': links.imodel(id, '/operations/create') });
  },
});

export const cloneRoutes: Route[] = [clone];
