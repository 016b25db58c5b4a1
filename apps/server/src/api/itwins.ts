import { Type, type Static } from 'typebox';
import type { ITwinTable } from '../db/schema.ts';
import { detail } from '../errors.ts';
import { madeIn } from './made.ts';
import { pageRequest, pagingParameters, sortKeys } from './paging.ts';
import { callerRoute, itwinRoute, type Route } from './route.ts';
import { LabelText, NameText, Nullable, PageLinks, SearchText, time, TimeSchema } from './schemas.ts';

const tag = 'iTwins';
const classes = ['Account', 'Thing', 'Endeavor'];
const subClasses = ['Account', 'Portfolio', 'Asset', 'Program', 'Project', 'WorkPackage'];
const statuses = ['Active', 'Inactive', 'Trial'];

export const MinimalITwin = Type.Object({
  id: Type.String(),
  class: Type.String({ enum: classes }),
  subClass: Type.String({ enum: subClasses }),
  type: Nullable(Type.String()),
  number: Type.String(),
  displayName: Type.String(),
});
const FullITwin = Type.Object({
  ...MinimalITwin.properties,
  geographicLocation: Nullable(Type.String()),
  dataCenterLocation: Type.String(),
  status: Type.String({ enum: statuses }),
  parentId: Nullable(Type.String()),
  iTwinAccountId: Nullable(Type.String({ description: 'The organization that the iTwin belongs to.' })),
  imageName: Type.Null(),
  image: Type.Null(),
  createdDateTime: TimeSchema,
  createdBy: Nullable(Type.String({ description: 'User id of the creator, who is its owner.' })),
});
const ITwinResponse = Type.Object({ iTwin: FullITwin });

/** An iTwin in its short form. */
export function toMinimalITwin(row: ITwinTable): Static<typeof MinimalITwin> {
  return { id: row.id, class: row.class, subClass: row.sub_class, type: row.type, number: row.number, displayName: row.display_name };
}

/** An iTwin in its full form. */
export function toITwin(row: ITwinTable): Static<typeof FullITwin> {
  return {
    ...toMinimalITwin(row),
    geographicLocation: row.geographic_location,
    dataCenterLocation: row.data_center,
    status: row.status,
    parentId: row.parent_id,
    iTwinAccountId: row.organization_id,
    imageName: null,
    image: null,
    createdDateTime: time(row.created_at),
    createdBy: row.owner_id,
  };
}

const listITwins = callerRoute({
  operationId: 'get-my-itwins',
  method: 'GET',
  path: '/itwins',
  tag,
  summary: 'List iTwins that the caller may see',
  access: { on: 'caller' },
  invalid: 'Cannot query iTwins.',
  prefer: true,
  query: Type.Object({
    displayName: Type.Optional(SearchText()),
    number: Type.Optional(SearchText()),
    $search: Type.Optional(SearchText({ minLength: 1, description: 'Part of display name or number, in any case.' })),
    class: Type.Optional(Type.String({ enum: classes })),
    subClass: Type.Optional(Type.String({ maxLength: 255, description: 'One or several, joined by commas.' })),
    type: Type.Optional(Type.String({ maxLength: 100 })),
    parentId: Type.Optional(Type.String({ maxLength: 255 })),
    status: Type.Optional(Type.String({ enum: statuses })),
    includeInactive: Type.Optional(Type.Boolean({ description: 'Inactive ones too.' })),
    $orderBy: Type.Optional(Type.String({ maxLength: 255, description: '`displayName`, `number`, `createdDateTime`, each with `asc` or `desc`.' })),
    ...pagingParameters,
  }),
  response: { status: 200, description: 'A page of iTwins.', schema: Type.Object({ iTwins: Type.Array(MinimalITwin), _links: PageLinks }) },
  async handler({ caller, query, rawQuery, representation, links, services, invalid }) {
    const details = [];
    if (query.$search !== undefined && (query.displayName !== undefined || query.number !== undefined))
      details.push({ code: 'InvalidParameter', message: '$search cannot be used in conjuction with displayName or number.', target: '$search' });
    if (query.status !== undefined && query.includeInactive !== undefined)
      details.push({
        code: 'InvalidParameter',
        message: 'The includeInactive parameter should not be used at the same time as the status parameter.',
        target: 'includeInactive',
      });
    const wanted = query.subClass?.split(',').map((name) => name.trim());
    if (wanted?.some((name) => !subClasses.includes(name)) === true)
      details.push(detail.invalidValue('subClass', 'A valid iTwin SubClass was not specified in the query.'));
    if (details.length > 0) throw invalid(details);

    const keys = sortKeys(
      query.$orderBy,
      {
        displayName: { column: 'display_name', type: 'text' },
        number: { column: 'number', type: 'text' },
        createdDateTime: { column: 'created_at', type: 'number' },
      },
      'createdDateTime',
      { column: 'id', type: 'text' },
      invalid,
    );
    const filter = { ...query, search: query.$search, subClass: wanted, includeInactive: query.includeInactive ?? false };
    const page = await services.iTwins.list(caller, filter, pageRequest(query, keys, invalid));
    return { iTwins: page.items.map((row) => (representation ? toITwin(row) : toMinimalITwin(row))), _links: links.page('/itwins', rawQuery, page) };
  },
});

const wrongStatus = () => detail.invalidValue('status', 'Status value is incorrect. Valid values are Active, Inactive and Trial.');

const createBody = {
  displayName: NameText('Unique within organization and subclass.', { tooLong: 'DisplayName cannot be more than 255 characters.' }),
  type: Type.Optional(Nullable(LabelText({ maxLength: 100, tooLong: 'Type cannot be more than 100 characters.' }))),
  geographicLocation: Type.Optional(Nullable(LabelText({ tooLong: 'GeographicLocation cannot be more than 255 characters.' }))),
};

const createITwin = callerRoute({
  operationId: 'create-itwin',
  method: 'POST',
  path: '/itwins',
  tag,
  summary: 'Create an iTwin',
  description: "It belongs to the caller's organization; the caller becomes its owner.",
  access: { on: 'caller' },
  invalid: 'Cannot create iTwin.',
  made: madeIn('itwin', 'iTwin'),
  body: Type.Object({
    ...createBody,
    class: Type.String({ enum: classes }),
    subClass: Type.String({ enum: subClasses }),
    number: Type.Optional(Nullable(LabelText({ tooLong: 'Number cannot be more than 255 characters.', description: 'Its id by default.' }))),
    dataCenterLocation: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
    status: Type.Optional(Nullable(Type.String())),
    parentId: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
  }),
  response: { status: 201, description: 'The iTwin.', schema: ITwinResponse },
  errors: ['iTwinExists'],
  async handler({ caller, body, services, invalid }) {
    const status = body.status ?? 'Active';
    if (!statuses.includes(status)) throw invalid([wrongStatus()]);
    const row = await services.iTwins.create(caller, {
      class: body.class,
      subClass: body.subClass,
      displayName: body.displayName,
      number: body.number == null || body.number === '' ? undefined : body.number,
      type: body.type ?? null,
      geographicLocation: body.geographicLocation ?? null,
      dataCenterLocation: body.dataCenterLocation ?? undefined,
      status,
      parentId: body.parentId ?? null,
    });
    return { iTwin: toITwin(row) };
  },
});

const getITwin = itwinRoute({
  operationId: 'get-itwin',
  method: 'GET',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Get an iTwin',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin.',
  response: { status: 200, description: 'The iTwin.', schema: ITwinResponse },
  async handler({ access }) {
    return { iTwin: toITwin(access.itwin) };
  },
});

/** Rule of the API: these are given once. Each attempt to change one is told by its name. */
const readOnly: Record<string, string> = {
  id: 'Id is read only and cannot be modified.',
  class: 'Class is read only and cannot be modified.',
  subClass: 'SubClass is read only and cannot be modified.',
  createdDateTime: 'CreatedDateTime is read only and should not be set.',
  dataCenterLocation: 'DataCenterLocation is read only and should not be set.',
};

const updateITwin = itwinRoute({
  operationId: 'update-itwin',
  method: 'PATCH',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Change an iTwin',
  description: 'An inactive one is left out of lists that do not ask for it.',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot update iTwin.',
  body: Type.Object({
    displayName: Type.Optional(createBody.displayName),
    number: Type.Optional(NameText('Unique within organization and subclass.', { tooLong: 'Number cannot be more than 255 characters.' })),
    type: createBody.type,
    geographicLocation: createBody.geographicLocation,
    status: Type.Optional(Type.String()),
  }),
  bodyTypes: ['application/json', 'application/json-patch+json', 'application/merge-patch+json'],
  response: { status: 200, description: 'The iTwin as it is now.', schema: ITwinResponse },
  errors: ['iTwinExists'],
  async handler({ access, caller, body, services, invalid }) {
    const refused = Object.entries(readOnly)
      .filter(([property]) => property in body)
      .map(([target, message]) => ({ code: 'ReadOnlyProperty', message, target }));
    if (refused.length > 0) throw invalid(refused);
    if (body.status !== undefined && !statuses.includes(body.status)) throw invalid([wrongStatus()]);
    const row = await services.iTwins.update(caller, access.itwin, {
      display_name: body.displayName,
      number: body.number,
      type: body.type,
      geographic_location: body.geographicLocation,
      status: body.status,
    });
    return { iTwin: toITwin(row) };
  },
});

export const itwinRoutes: Route[] = [listITwins, createITwin, getITwin, updateITwin];
