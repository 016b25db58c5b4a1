import { Type, type Static } from '../jsonSchema.ts';
import type { IModelTable } from '../db/schema.ts';
import { CannotSquashError, type TemplateRequest } from '../cloning/cloning.ts';
import type { Extent } from '../domain.ts';
import { detail, type ErrorDetail } from '../errors.ts';
import type { Links } from './links.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { madeIModel } from './made.ts';
import { imodelRoute, itwinRoute, type ITwinCall, type Route } from './route.ts';
import {
  ContainersEnabled,
  DescriptionSchema,
  emptyToNull,
  ExtentSchema,
  guidPattern,
  IdText,
  LinkSchema,
  NameSchema,
  Nullable,
  PageLinks,
  SearchText,
  StorageLinkSchema,
  time,
  TimeSchema,
} from './schemas.ts';

const tag = 'iModels';

export const MinimalIModel = Type.Object({
  id: Type.String(),
  displayName: Type.String(),
  dataCenterLocation: Type.String(),
});
const FullIModel = Type.Object({
  ...MinimalIModel.properties,
  name: Type.String(),
  description: Nullable(Type.String()),
  state: Type.String({ enum: ['notInitialized', 'initialized'] }),
  createdDateTime: TimeSchema,
  lastChangesetPushDateTime: Nullable(TimeSchema),
  iTwinId: Type.String(),
  isSecured: Type.Boolean({ description: 'Has permissions of its own, which replace those of its iTwin.' }),
  extent: Nullable(ExtentSchema),
  containersEnabled: Type.Integer(),
  _links: Type.Object({ creator: LinkSchema, changesets: LinkSchema, namedVersions: LinkSchema }),
});
const CreatedIModel = Type.Object({
  ...FullIModel.properties,
  _links: Type.Object({
    ...FullIModel.properties._links.properties,
    upload: Nullable(StorageLinkSchema),
    complete: Nullable(LinkSchema),
  }),
});
const IModelResponse = Type.Object({ iModel: FullIModel });

/** The columns that the representations show. */
const minimalColumns = ['id', 'name'] as const;
const fullColumns = [
  ...minimalColumns,
  'description',
  'state',
  'created_at',
  'last_pushed_at',
  'itwin_id',
  'secured_by',
  'extent',
  'containers_enabled',
  'creator_id',
] as const;

/** The minimal representation of an iModel. */
export function toMinimal(
  row: Pick<IModelTable, (typeof minimalColumns)[number]>,
  dataCenter: string,
): Static<typeof MinimalIModel> {
  return { id: row.id, displayName: row.name, dataCenterLocation: dataCenter };
}

/** The full representation of an iModel. */
export function toIModel(
  row: Pick<IModelTable, (typeof fullColumns)[number]>,
  dataCenter: string,
  links: Links,
): Static<typeof FullIModel> {
  return {
    id: row.id,
    displayName: row.name,
    dataCenterLocation: dataCenter,
    name: row.name,
    description: row.description,
    state: row.state,
    createdDateTime: time(row.created_at),
    // A derived iModel includes the changesets of its source only once it is initialized.
    lastChangesetPushDateTime:
      row.last_pushed_at === null || row.state !== 'initialized' ? null : time(row.last_pushed_at),
    iTwinId: row.itwin_id,
    isSecured: row.secured_by !== null,
    extent: row.extent === null ? null : (JSON.parse(row.extent) as Extent),
    containersEnabled: row.containers_enabled,
    _links: {
      creator: links.user(row.id, row.creator_id),
      changesets: links.to(row.id, '/changesets'),
      namedVersions: links.to(row.id, '/namedversions'),
    },
  };
}

const listIModels = itwinRoute({
  operationId: 'get-itwin-imodels',
  method: 'GET',
  path: '/imodels',
  tag,
  summary: 'List the iModels of an iTwin',
  description:
    'An iModel with permissions of its own that shut the caller out is left out, unless the caller holds `imodels_manage` on the iTwin.',
  access: { on: 'itwin', permission: 'imodels_webview', from: 'query' },
  invalid: 'Cannot get iModels.',
  prefer: true,
  query: Type.Object({
    iTwinId: Type.String({ pattern: guidPattern }),
    name: Type.Optional(
      SearchText({
        description:
          'Exact name: the iModel that holds it. A failed creation holds none and is found with `state=notInitialized`.',
      }),
    ),
    $search: Type.Optional(SearchText({ minLength: 1, description: 'Part of name or description, in any case.' })),
    state: Type.Optional(Type.String({ enum: ['notInitialized', 'initialized'] })),
    $orderBy: Type.Optional(
      Type.String({ maxLength: 255, description: '`name`, `createdDateTime`, each with `asc` or `desc`.' }),
    ),
    ...pagingParameters,
  }),
  response: {
    status: 200,
    description: 'A page of iModels.',
    schema: Type.Object({ iModels: Type.Array(MinimalIModel), _links: PageLinks }),
  },
  async handler({ access, caller, query, rawQuery, representation, links, services, invalid }) {
    if (query.name !== undefined && query.$search !== undefined)
      throw invalid([detail.exclusiveParameters(['name', '$search'])]);
    const keys = sortKeys(
      query.$orderBy,
      { name: { column: 'name_order', type: 'text' }, createdDateTime: { column: 'created_at', type: 'number' } },
      'createdDateTime',
      { column: 'id', type: 'text' },
      invalid,
    );
    const listed = await services.permissions.listedIModels(caller, access);
    const filter = { name: query.name, search: query.$search, state: query.state as IModelTable['state'] | undefined };
    const request = pageRequest(query, keys, invalid);
    const dataCenter = access.itwin.data_center;
    const list = <C extends keyof IModelTable>(columns: readonly C[]) =>
      services.iModels.list(access.itwin.id, columns, listed, filter, request);
    if (!representation) {
      const page = await list(minimalColumns);
      return {
        iModels: page.items.map((row) => toMinimal(row, dataCenter)),
        _links: links.page('/imodels', rawQuery, page),
      };
    }
    const page = await list(fullColumns);
    return {
      iModels: page.items.map((row) => toIModel(row, dataCenter, links)),
      _links: links.page('/imodels', rawQuery, page),
    };
  },
});

const createIModel = itwinRoute({
  operationId: 'create-imodel',
  method: 'POST',
  path: '/imodels',
  tag,
  summary: 'Create an iModel',
  description:
    'Empty and usable at once; from a template, which needs `imodels_read` on it; or from a baseline file that is then uploaded to `_links.upload` and completed at `_links.complete`.',
  access: { on: 'itwin', permission: 'imodels_manage', from: 'body' },
  invalid: 'Cannot create iModel.',
  made: madeIModel,
  body: Type.Object({
    iTwinId: IdText({ minLength: 1, description: 'iTwin that will hold it.' }),
    name: NameSchema,
    description: Type.Optional(DescriptionSchema),
    extent: Type.Optional(Nullable(ExtentSchema)),
    containersEnabled: Type.Optional(ContainersEnabled),
    creationMode: Type.Optional(
      Nullable(Type.String({ pattern: '^([eE]mpty|[fF]rom[iI][mM]odel[vV]ersion|[fF]rom[bB]aseline)$' })),
    ),
    baselineFile: Type.Optional(
      Nullable(
        Type.Object(
          {
            size: Type.Integer({
              minimum: 1,
              maximum: Number.MAX_SAFE_INTEGER,
              description: 'Bytes.',
              explain: "'size' must be a positive integer value.",
            }),
          },
          { description: 'Baseline file to be uploaded.' },
        ),
      ),
    ),
    template: Type.Optional(
      Nullable(
        Type.Object(
          {
            iModelId: IdText({ minLength: 1 }),
            changesetId: Type.Optional(
              Nullable(IdText({ description: 'State to begin with; the baseline by default.' })),
            ),
          },
          { description: 'iModel to begin with. The changesets become part of the new baseline.' },
        ),
      ),
    ),
    geographicCoordinateSystem: Type.Optional(
      Nullable(
        Type.Object({
          horizontalCRSId: Type.String({
            maxLength: 255,
            // An EPSG code, or the name of a coordinate system in the dictionaries of iTwin.js.
            pattern: '^([eE][pP][sS][gG]:[1-9][0-9]{3,6}|[A-Za-z0-9][A-Za-z0-9_./+-]*)$',
            explain: "'horizontalCRSId' must be an EPSG code, such as 'EPSG:3857', or the name of a coordinate system.",
          }),
        }),
      ),
    ),
  }),
  response: {
    status: 201,
    description: 'The iModel, with links for the upload if it waits for one.',
    schema: Type.Object({ iModel: CreatedIModel }),
    headers: { Location: 'Address of the iModel.' },
  },
  errors: ['iModelExists', 'iModelNotFound', 'iModelNotInitialized', 'ChangesetNotFound'],
  async handler({ access, caller, body, links, services, requireAccess, reply, invalid }) {
    const faults = contradictionsIn(body);
    if (faults.length > 0) throw invalid(faults);
    const largest = services.quotas.largest('baseline');
    if (body.baselineFile != null && largest !== null && body.baselineFile.size > largest)
      throw invalid([
        detail.invalidValue(
          'baselineFile',
          `Provided 'baselineFile' value is not valid. 'size' cannot be larger than ${largest} bytes.`,
        ),
      ]);
    const wanted = {
      name: body.name,
      description: emptyToNull(body.description),
      extent: body.extent ?? null,
      containersEnabled: body.containersEnabled ?? 0,
      geographicCrs: body.geographicCoordinateSystem?.horizontalCRSId ?? null,
    };
    const template = body.template ?? undefined;
    const { imodel, uploadBlobId } =
      template === undefined
        ? await services.iModels.create(caller, access, { ...wanted, baselineFileSize: body.baselineFile?.size })
        : {
            imodel: await createFromTemplate({ services, caller, access, requireAccess, invalid }, template, wanted),
            uploadBlobId: undefined,
          };
    reply.header('location', links.imodel(imodel.id));
    const answer = toIModel(imodel, access.itwin.data_center, links);
    return {
      iModel: {
        ...answer,
        _links: {
          ...answer._links,
          upload: uploadBlobId === undefined ? null : await links.upload(uploadBlobId, `${imodel.id}.bim`),
          complete: uploadBlobId === undefined ? null : links.to(imodel.id, '/baselinefile'),
        },
      },
    };
  },
});

/**
 * The property that each `creationMode` requires. Keys are in lower case, because the API's documentation is
 * inconsistent about case.
 */
const sources = { empty: undefined, fromimodelversion: 'template', frombaseline: 'baselineFile' } as const;

/**
 * Contradictions in a create request. Rule of the API: an iModel is empty, from a template or from a baseline file.
 * Without `creationMode` the other properties determine which, and an empty iModel then has no coordinate system.
 */
function contradictionsIn(body: {
  creationMode?: string | null;
  template?: unknown;
  baselineFile?: unknown;
  geographicCoordinateSystem?: unknown;
}): ErrorDetail[] {
  const { template, baselineFile, geographicCoordinateSystem } = body;
  const mode = body.creationMode == null ? undefined : (body.creationMode.toLowerCase() as keyof typeof sources);
  if (template != null && baselineFile != null) return [detail.exclusiveProperties(['template', 'baselineFile'])];
  const given = template != null ? 'template' : baselineFile != null ? 'baselineFile' : undefined;
  if (mode === undefined)
    return geographicCoordinateSystem == null || given !== undefined
      ? []
      : [
          detail.invalidValue(
            'geographicCoordinateSystem',
            "Provided 'geographicCoordinateSystem' value is not valid. For empty iModels it can only be set when 'creationMode' is 'empty'.",
          ),
        ];
  const needed = sources[mode];
  if (given !== undefined && given !== needed)
    return [
      detail.invalidValue(
        given,
        `Provided '${given}' value is not valid. It cannot be used when 'creationMode' is '${body.creationMode}'.`,
      ),
    ];
  return needed !== undefined && given === undefined ? [detail.missingProperty(needed)] : [];
}

/** Rule of the API: creating an iModel from a template requires read access to the template. */
async function createFromTemplate(
  {
    services,
    caller,
    access,
    requireAccess,
    invalid,
  }: Pick<ITwinCall<unknown, unknown>, 'services' | 'caller' | 'access' | 'requireAccess' | 'invalid'>,
  template: { iModelId: string; changesetId?: string | null },
  properties: Omit<TemplateRequest, 'caller' | 'source' | 'target' | 'changesetId'>,
): Promise<IModelTable> {
  const source = await requireAccess({
    on: 'imodel',
    id: template.iModelId,
    permission: 'imodels_read',
    level: 'iModel',
  });
  const request = { caller, source, target: access, ...properties, changesetId: template.changesetId ?? null };
  const id = await services.cloning.createFromTemplate(request).catch((error: unknown) => {
    if (error instanceof CannotSquashError)
      throw invalid([
        detail.invalidValue(
          'template',
          "Provided 'template' value is not valid. This server cannot apply changesets: iTwin.js is not installed.",
        ),
      ]);
    throw error;
  });
  return services.iModels.get(id);
}

const getIModel = imodelRoute({
  operationId: 'get-imodel-details',
  method: 'GET',
  path: '/imodels/:iModelId',
  tag,
  summary: 'Get an iModel',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel', beforeInitialized: 'It tells the state.' },
  invalid: 'Cannot get iModel.',
  response: { status: 200, description: 'The iModel.', schema: IModelResponse },
  async handler({ access, links }) {
    return { iModel: toIModel(access.imodel, access.onITwin.itwin.data_center, links) };
  },
});

const changeable = ['extent', 'name', 'description'] as const;

const updateIModel = imodelRoute({
  operationId: 'update-imodel',
  method: 'PATCH',
  path: '/imodels/:iModelId',
  tag,
  summary: 'Change name, description or extent',
  access: { on: 'imodel', permission: 'imodels_manage', level: 'iModel' },
  invalid: 'Cannot update iModel.',
  body: Type.Object({
    name: Type.Optional(NameSchema),
    description: Type.Optional(DescriptionSchema),
    extent: Type.Optional(Nullable(ExtentSchema)),
  }),
  response: { status: 200, description: 'The iModel as it is now.', schema: IModelResponse },
  errors: ['iModelExists', 'iModelNotInitialized'],
  async handler({ access, caller, body, links, services, invalid }) {
    // Rule of the API: at least one of the three is required, and the error has no target.
    if (changeable.every((property) => body[property] === undefined))
      throw invalid([
        {
          code: 'MissingRequiredProperty',
          message: `Required property is missing. At least one of the following properties must be provided: ${changeable.map((name) => `'${name}'`).join(', ')}.`,
        },
      ]);
    const change = { ...body, ...(body.description !== undefined && { description: emptyToNull(body.description) }) };
    const imodel = await services.iModels.update(caller, access.imodel.id, change);
    return { iModel: toIModel(imodel, access.onITwin.itwin.data_center, links) };
  },
});

const deleteIModel = imodelRoute({
  operationId: 'delete-imodel',
  method: 'DELETE',
  path: '/imodels/:iModelId',
  tag,
  summary: 'Delete an iModel',
  description: 'Its clones are not touched. Its name is free at once.',
  access: {
    on: 'imodel',
    permission: 'imodels_delete',
    level: 'iTwin',
    beforeInitialized: 'A creation can be cancelled, and a failed one removed.',
  },
  invalid: 'Cannot delete iModel.',
  response: { status: 204, description: 'Gone.' },
  async handler({ access, caller, services }) {
    await services.iModels.delete(caller, access.imodel.id);
  },
});

const OperationState = Type.String({
  enum: ['waitingForFile', 'scheduled', 'successful', 'failed', 'mainIModelIsMissingFederationGuids'],
});

const getCreateOperation = imodelRoute({
  operationId: 'get-create-imodel-operation-details',
  method: 'GET',
  path: '/imodels/:iModelId/operations/create',
  tag,
  summary: 'How the creation of an iModel went',
  description: '`progress`, `failureReason` and the times are additions of this server.',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    beforeInitialized: 'It tells how the creation goes.',
  },
  invalid: 'Cannot get Create iModel operation.',
  response: {
    status: 200,
    description: 'The operation.',
    schema: Type.Object({
      createOperation: Type.Object({
        state: OperationState,
        // Clients deep-compare this object, so it has exactly these two properties. Additions go beside it.
        clonedFrom: Nullable(
          Type.Object({ iModelId: Type.String(), changesetId: Type.String() }, { additionalProperties: false }),
        ),
        forkedFrom: Nullable(
          Type.Object(
            { iModelId: Type.String(), changesetId: Type.String(), relationshipId: Type.String() },
            { additionalProperties: false },
          ),
        ),
        progress: Type.Object({
          changesets: Type.Integer(),
          totalChangesets: Type.Integer(),
          bytes: Type.Integer({ description: 'Bytes copied into the other data center.' }),
          totalBytes: Type.Integer({
            description: '0 where nothing has to move. Those of checkpoints join when their turn comes.',
          }),
        }),
        failureReason: Nullable(Type.String()),
        createdDateTime: TimeSchema,
        finishedDateTime: Nullable(TimeSchema),
      }),
    }),
  },
  async handler({ access, services }) {
    const operation = await services.iModels.createOperation(access.imodel.id);
    return {
      createOperation: {
        state: operation.state,
        clonedFrom:
          operation.cloned_from_imodel_id === null
            ? null
            : { iModelId: operation.cloned_from_imodel_id, changesetId: operation.cloned_from_changeset_id ?? '' },
        forkedFrom:
          operation.forked_from_imodel_id === null
            ? null
            : {
                iModelId: operation.forked_from_imodel_id,
                changesetId: operation.forked_from_changeset_id ?? '',
                relationshipId: operation.relationship_id ?? '',
              },
        progress: {
          changesets: operation.state === 'successful' ? operation.changesets : operation.changesets_done,
          totalChangesets: operation.changesets,
          bytes: Math.min(operation.bytes, operation.bytes_done + operation.bytes_under_way),
          totalBytes: operation.bytes,
        },
        failureReason: operation.failure_reason,
        createdDateTime: time(operation.created_at),
        finishedDateTime: operation.finished_at === null ? null : time(operation.finished_at),
      },
    };
  },
});

export const imodelRoutes: Route[] = [
  listIModels,
  createIModel,
  getIModel,
  updateIModel,
  deleteIModel,
  getCreateOperation,
];
