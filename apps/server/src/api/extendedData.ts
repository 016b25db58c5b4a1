import { Type } from '../jsonSchema.ts';
import type { ExtendedDataTable } from '../db/schema.ts';
import { parseChangesetRef } from '../domain.ts';
import { detail } from '../errors.ts';
import { maxExtendedDataBytes, maxExtendedDataCharacters } from '../changesets/extendedData.ts';
import { pageRequest, pagingParameters } from './paging.ts';
import { imodelRoute, type Route } from './route.ts';
import { PageLinks } from './schemas.ts';

const tag = 'Extended data';

const DataSchema = Type.Object({
  changesetId: Type.String(),
  changesetIndex: Type.Integer(),
  data: Type.String({ description: 'Base64 of JSON.' }),
});
const DataResponse = Type.Object({ extendedData: DataSchema });

function toWire(row: ExtendedDataTable) {
  return { changesetId: row.changeset_id, changesetIndex: row.changeset_index, data: row.data };
}

const tooLong = `'data' cannot be longer than ${maxExtendedDataBytes} bytes.`;

/** Why data cannot be attached; undefined if it is valid. */
function faultOf(data: string): string | undefined {
  const bytes = Buffer.from(data, 'base64');
  if (bytes.length > maxExtendedDataBytes) return tooLong;
  // Node decodes base64 leniently, so data that does not encode to the same text, with or without padding, is refused.
  const canonical = bytes.toString('base64');
  try {
    if (data === '' || (data !== canonical && data !== canonical.replaceAll('=', '')))
      throw new SyntaxError('no base64');
    JSON.parse(bytes.toString('utf8'));
    return undefined;
  } catch {
    return "'data' must be a valid base64 encoded json.";
  }
}

const listData = imodelRoute({
  operationId: 'get-imodel-changesets-extended-data',
  method: 'GET',
  path: '/imodels/:iModelId/changesets/extendeddata',
  tag,
  summary: 'List the extended data of all changesets that have some',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Changesets Extended Data.',
  query: Type.Object(pagingParameters),
  response: {
    status: 200,
    description: 'A page of extended data.',
    schema: Type.Object({ extendedData: Type.Array(DataSchema), _links: PageLinks }),
  },
  async handler({ access, query, rawQuery, links, services, invalid }) {
    const { id } = access.imodel;
    const keys = [{ column: 'changeset_index', type: 'number' as const, descending: false }];
    const page = await services.extendedData.list(id, pageRequest(query, keys, invalid));
    return {
      extendedData: page.items.map(toWire),
      _links: links.page(`/imodels/${id}/changesets/extendeddata`, rawQuery, page),
    };
  },
});

const getData = imodelRoute({
  operationId: 'get-imodel-changeset-extended-data-details',
  method: 'GET',
  path: '/imodels/:iModelId/changesets/:changeset/extendeddata',
  tag,
  summary: 'Get the extended data of a changeset',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Changeset Extended Data.',
  response: { status: 200, description: 'The extended data.', schema: DataResponse },
  errors: ['ChangesetNotFound', 'ChangesetExtendedDataNotFound'],
  async handler({ access, params, services }) {
    const { index } = await services.changesets.get(access.imodel, parseChangesetRef(params['changeset'] ?? ''));
    return { extendedData: toWire(await services.extendedData.get(access.imodel.id, index)) };
  },
});

const createData = imodelRoute({
  operationId: 'create-imodel-changeset-extended-data',
  method: 'POST',
  path: '/imodels/:iModelId/changesets/:changeset/extendeddata',
  tag,
  summary: 'Attach extended data to a changeset, once',
  access: {
    on: 'imodel',
    permission: 'imodels_write',
    level: 'iModel',
    also: 'Only the user who pushed the changeset.',
  },
  invalid: 'Cannot create Changeset Extended Data.',
  body: Type.Object({
    data: Type.String({
      description: `Base64 of JSON, at most ${maxExtendedDataBytes} bytes of it.`,
      maxLength: maxExtendedDataCharacters,
      tooLong: `Provided 'data' value is not valid. ${tooLong}`,
      explain: "'data' must be a valid base64 encoded json.",
    }),
  }),
  response: { status: 201, description: 'The extended data.', schema: DataResponse },
  errors: ['ChangesetNotFound', 'ChangesetExtendedDataExists', 'iModelNotInitialized'],
  async handler({ access, caller, params, body, services, invalid }) {
    const changeset = await services.changesets.get(access.imodel, parseChangesetRef(params['changeset'] ?? ''));
    const fault = faultOf(body.data);
    if (fault !== undefined)
      throw invalid([detail.invalidValue('data', `Provided 'data' value is not valid. ${fault}`)]);
    return { extendedData: toWire(await services.extendedData.create(caller, access, changeset, body.data)) };
  },
});

export const extendedDataRoutes: Route[] = [listData, getData, createData];
