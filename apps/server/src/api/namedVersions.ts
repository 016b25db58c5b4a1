import { Type } from '../jsonSchema.ts';
import type { NamedVersionTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import type { Links } from './links.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { madeIn } from './made.ts';
import { imodelRoute, type Route } from './route.ts';
import {
  ApplicationSchema,
  DescriptionSchema,
  emptyToNull,
  LinkSchema,
  NameText,
  Nullable,
  PageLinks,
  SearchText,
  time,
  TimeSchema,
} from './schemas.ts';

const tag = 'Named versions';
const states = ['visible', 'hidden'];

const MinimalVersion = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  changesetId: Nullable(Type.String()),
  changesetIndex: Type.Integer(),
});
const FullVersion = Type.Object({
  ...MinimalVersion.properties,
  name: Type.String(),
  description: Nullable(Type.String()),
  createdDateTime: TimeSchema,
  state: Type.String({ enum: states }),
  application: ApplicationSchema,
  _links: Type.Object({ creator: LinkSchema, changeset: Nullable(LinkSchema) }),
});
const VersionResponse = Type.Object({ namedVersion: FullVersion });

/** Rule of the wire: a named version of the baseline has index 0, no changeset id and no link to a changeset. */
function toMinimal(row: NamedVersionTable) {
  return {
    id: row.id,
    displayName: row.name,
    changesetId: row.changeset_id === '' ? null : row.changeset_id,
    changesetIndex: row.changeset_index,
  };
}

function toFull(row: NamedVersionTable, links: Links) {
  return {
    ...toMinimal(row),
    name: row.name,
    description: row.description,
    createdDateTime: time(row.created_at),
    state: row.state,
    application: { id: row.application_id, name: row.application_name },
    _links: {
      creator: links.user(row.imodel_id, row.creator_id),
      changeset: row.changeset_id === '' ? null : links.to(row.imodel_id, `/changesets/${row.changeset_id}`),
    },
  };
}

const tooLong = (property: string): string =>
  `Provided '${property}' is not valid. The value exceeds allowed 255 characters.`;
const NameProperty = NameText('Unique within the iModel.', { tooLong: tooLong('name') });

const listVersions = imodelRoute({
  operationId: 'get-imodel-named-versions',
  method: 'GET',
  path: '/imodels/:iModelId/namedversions',
  tag,
  summary: 'List named versions, hidden ones included',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Named Versions.',
  prefer: true,
  query: Type.Object({
    name: Type.Optional(SearchText({ description: 'Exact name.' })),
    $search: Type.Optional(SearchText({ minLength: 1, description: 'Part of name or description, in any case.' })),
    state: Type.Optional(Type.String({ enum: states })),
    $orderBy: Type.Optional(
      Type.String({ maxLength: 255, description: '`changesetIndex`, `createdDateTime`, each with `asc` or `desc`.' }),
    ),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of named versions.',
    schema: Type.Object({ namedVersions: Type.Array(MinimalVersion), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, representation, links, services, invalid }) {
    const { id } = access.imodel;
    const keys = sortKeys(
      query.$orderBy,
      {
        changesetIndex: { column: 'changeset_index', type: 'number' },
        createdDateTime: { column: 'created_at', type: 'number' },
      },
      'changesetIndex',
      { column: 'id', type: 'text' },
      invalid,
    );
    const filter = {
      name: query.name,
      search: query.$search,
      state: query.state as NamedVersionTable['state'] | undefined,
    };
    const page = await services.namedVersions.list(id, filter, pageRequest(query, keys, invalid));
    return {
      namedVersions: page.items.map((row) => (representation ? toFull(row, links) : toMinimal(row))),
      _links: links.page(`/imodels/${id}/namedversions`, rawQuery, page),
    };
  },
});

const createVersion = imodelRoute({
  operationId: 'create-imodel-named-version',
  method: 'POST',
  path: '/imodels/:iModelId/namedversions',
  tag,
  summary: 'Name a changeset, or the baseline',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot create Named Version.',
  made: madeIn('named_version', 'namedVersion'),
  body: Type.Object({
    name: NameProperty,
    description: Type.Optional(DescriptionSchema),
    changesetId: Type.Optional(Nullable(Type.String({ maxLength: 255, description: 'The baseline by default.' }))),
  }),
  response: { status: 201, description: 'The named version.', schema: VersionResponse },
  errors: ['ChangesetNotFound', 'NamedVersionExists', 'NamedVersionOnChangesetExists', 'iModelNotInitialized'],
  async handler({ access, caller, body, links, services }) {
    const row = await services.namedVersions.create(caller, access, {
      name: body.name,
      description: emptyToNull(body.description),
      changesetId: emptyToNull(body.changesetId),
    });
    return { namedVersion: toFull(row, links) };
  },
});

const getVersion = imodelRoute({
  operationId: 'get-imodel-named-version-details',
  method: 'GET',
  path: '/imodels/:iModelId/namedversions/:namedVersionId',
  tag,
  summary: 'Get a named version',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Named Version.',
  response: { status: 200, description: 'The named version.', schema: VersionResponse },
  errors: ['NamedVersionNotFound'],
  async handler({ access, params, links, services }) {
    return {
      namedVersion: toFull(
        await services.namedVersions.get(access.imodel.id, parseGuid(params['namedVersionId'] ?? '')),
        links,
      ),
    };
  },
});

const updateVersion = imodelRoute({
  operationId: 'update-imodel-named-version',
  method: 'PATCH',
  path: '/imodels/:iModelId/namedversions/:namedVersionId',
  tag,
  summary: 'Change name, description or state',
  description: 'What is not named stays as it is, the state included.',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot update Named Version.',
  body: Type.Object({
    name: Type.Optional(NameProperty),
    description: Type.Optional(DescriptionSchema),
    state: Type.Optional(Type.String({ enum: states })),
  }),
  response: { status: 200, description: 'The named version as it is now.', schema: VersionResponse },
  errors: ['NamedVersionNotFound', 'NamedVersionExists', 'iModelNotInitialized'],
  async handler({ access, caller, params, body, links, services, invalid }) {
    if (body.name === undefined && body.description === undefined && body.state === undefined)
      throw invalid([
        {
          code: 'MissingRequiredProperty',
          message:
            "Required property is missing. At least one of the following properties must be provided: 'name', 'description', 'state'.",
        },
      ]);
    const row = await services.namedVersions.update(caller, access, parseGuid(params['namedVersionId'] ?? ''), {
      name: body.name,
      description: body.description === undefined ? undefined : emptyToNull(body.description),
      state: body.state as NamedVersionTable['state'] | undefined,
    });
    return { namedVersion: toFull(row, links) };
  },
});

export const namedVersionRoutes: Route[] = [listVersions, createVersion, getVersion, updateVersion];
