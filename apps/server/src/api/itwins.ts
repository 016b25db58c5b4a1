import { Type, type Static } from '../jsonSchema.ts';
import type { ITwinTable } from '../db/schemaOfITwins.ts';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import { type ITwinFilter, type QueryScope, filterProperties } from '../iTwins/itwins.ts';
import type { Services } from '../services.ts';
import type { Links } from './links.ts';
import { madeIn } from './made.ts';
import { FilterError, filterCondition, namesInFilter } from './odata.ts';
import { pageRequest, pagingParameters, sortKeys, type ApiErrorOf } from './paging.ts';
import { callerRoute, itwinRoute, type Call, type Route } from './route.ts';
import {
  Fixed,
  LabelText,
  NameText,
  Nullable,
  NullableWord,
  PageLinks,
  SearchText,
  time,
  TimeSchema,
} from './schemas.ts';

const tag = 'iTwins';
const classes = ['Account', 'Thing', 'Endeavor'] as const;
/** Rule of the API: the classes and their subclasses. */
const subClassesOf: Readonly<Record<(typeof classes)[number], readonly string[]>> = {
  Account: ['Account'],
  Thing: ['Portfolio', 'Asset'],
  Endeavor: ['Program', 'Project', 'WorkPackage'],
};
const subClasses = Object.values(subClassesOf).flat();
const statuses = ['Active', 'Inactive', 'Trial'] as const;

export const MinimalITwin = Type.Object({
  id: Type.String(),
  class: Type.String({ enum: [...classes] }),
  subClass: Type.String({ enum: subClasses }),
  type: Nullable(Type.String()),
  number: Type.String(),
  displayName: Type.String(),
});
export const FullITwin = Type.Object({
  ...MinimalITwin.properties,
  geographicLocation: Nullable(Type.String()),
  dataCenterLocation: Type.String(),
  status: Type.String({ enum: [...statuses] }),
  parentId: Nullable(
    Type.String({
      description: 'The iTwin above it; its account where none was named. Null only without an organization.',
    }),
  ),
  iTwinAccountId: Nullable(Type.String({ description: 'The organization that the iTwin belongs to.' })),
  imageName: Nullable(Type.String()),
  image: Nullable(Type.String({ description: 'Address of the small picture, for a while.' })),
  createdDateTime: TimeSchema,
  createdBy: Nullable(Type.String({ description: 'User id of the creator.' })),
});
const ITwinResponse = Type.Object({ iTwin: FullITwin });
/** An iTwin in a list: its minimal or full representation, or the properties in `$select`. */
const ListedITwin = Type.Partial(FullITwin);
export const ITwinListResponse = Type.Object({ iTwins: Type.Array(ListedITwin), _links: PageLinks });

function toMinimalITwin(row: ITwinTable): Static<typeof MinimalITwin> {
  return {
    id: row.id,
    class: row.class,
    subClass: row.sub_class,
    type: row.type,
    number: row.number,
    displayName: row.display_name,
  };
}

/** File names of the two sizes of an image. */
export const imageNames = (imageId: string): { small: string; large: string } => ({
  small: `small_${imageId}.png`,
  large: `large_${imageId}.png`,
});

/** The full representation of iTwins, each with a new link to its image. */
async function toITwins(
  rows: readonly ITwinTable[],
  { links, services }: { links: Links; services: Services },
): Promise<Static<typeof FullITwin>[]> {
  const images = await services.iTwinImages.ofITwins(rows.map(({ id }) => id));
  const addresses = await links.downloads(
    images.map((image) => ({ blobId: image.small_blob_id, fileName: imageNames(image.id).small })),
  );
  const imageOf = new Map(
    images.map((image, index) => [
      image.itwin_id,
      { imageName: imageNames(image.id).small, image: addresses[index]?.href ?? null },
    ]),
  );
  return rows.map((row) => ({
    ...toMinimalITwin(row),
    geographicLocation: row.geographic_location,
    dataCenterLocation: row.data_center,
    status: row.status,
    parentId: row.parent_id ?? row.organization_id,
    iTwinAccountId: row.organization_id,
    ...(imageOf.get(row.id) ?? { imageName: null, image: null }),
    createdDateTime: time(row.created_at),
    createdBy: row.owner_id,
  }));
}

async function toITwin(
  row: ITwinTable,
  call: { links: Links; services: Services },
): Promise<{ iTwin: Static<typeof FullITwin> }> {
  const [iTwin] = await toITwins([row], call);
  return { iTwin: iTwin as Static<typeof FullITwin> };
}

const wrongStatus = 'Status value is incorrect. Valid values are Active, Inactive and Trial.';
const wrongSubClass = 'A valid iTwin SubClass was not specified in the query.';

/** Query parameters of all lists of iTwins, including favorites and recents. */
export const iTwinListParameters = {
  displayName: Type.Optional(SearchText()),
  number: Type.Optional(SearchText()),
  $search: Type.Optional(SearchText({ minLength: 1, description: 'Part of display name or number, in any case.' })),
  class: Type.Optional(
    Type.String({ enum: [...classes], refusal: 'A valid iTwin Class was not specified in the query.' }),
  ),
  subClass: Type.Optional(Type.String({ maxLength: 255, description: 'One or several, joined by commas.' })),
  type: Type.Optional(Type.String({ maxLength: 100 })),
  parentId: Type.Optional(Type.String({ maxLength: 255 })),
  iTwinAccountId: Type.Optional(Type.String({ maxLength: 255 })),
  status: Type.Optional(Type.String({ enum: [...statuses], refusal: wrongStatus })),
  includeInactive: Type.Optional(Type.Boolean({ description: 'Inactive ones too.' })),
  $filter: Type.Optional(
    Type.String({
      minLength: 1,
      maxLength: 2000,
      description:
        "OData: `eq`, `ne`, `gt`, `ge`, `lt`, `le`, `in`, `contains`, `startswith`, `endswith`, `and`, `or`, `not`. As `status eq 'Trial' and contains(displayName, 'plant')`.",
    }),
  ),
  $select: Type.Optional(
    Type.String({ minLength: 1, maxLength: 1000, description: 'Names of the properties to answer, joined by commas.' }),
  ),
  ...pagingParameters,
  // Rule of the API: the messages for these two differ from those of other lists.
  $top: Type.Optional(
    Type.Integer({
      minimum: 1,
      maximum: 1000,
      description: 'Items on a page.',
      refusal: 'The $top query option must be a positive integer that does not exceed 1000.',
    }),
  ),
  $skip: Type.Optional(
    Type.Integer({
      minimum: 0,
      maximum: Number.MAX_SAFE_INTEGER,
      description: 'Items to leave out first.',
      refusal: 'The $skip query option must be a non-negative integer.',
    }),
  ),
};
export type ITwinListQuery = Static<ReturnType<typeof Type.Object<typeof iTwinListParameters>>>;

/**
 * Rule of the API: a header selects the scope of the list. Without it, this server lists every iTwin that the caller
 * may see.
 */
const queryScopes: Readonly<Record<string, QueryScope>> = {
  memberofitwin: 'member',
  all: 'all',
  organizationadmin: 'administrator',
};

/** Builds the filter of a list of iTwins. @throws ApiError 422 for invalid or contradictory parameters */
export function iTwinFilterOf(
  query: ITwinListQuery,
  { reply, invalid }: Pick<Call<unknown, unknown>, 'reply' | 'invalid'>,
): ITwinFilter {
  const details: ErrorDetail[] = [];
  if (query.$search !== undefined && (query.displayName !== undefined || query.number !== undefined))
    details.push({
      code: 'InvalidParameter',
      message: '$search cannot be used in conjuction with displayName or number.',
      target: '$search',
    });
  if (query.status !== undefined && query.includeInactive !== undefined)
    details.push({
      code: 'InvalidParameter',
      message: 'The includeInactive parameter should not be used at the same time as the status parameter.',
      target: 'includeInactive',
    });
  const wanted = query.subClass?.split(',').map((name) => name.trim());
  if (wanted?.some((name) => !subClasses.includes(name)) === true)
    details.push(detail.invalidValue('subClass', wrongSubClass));
  const given = reply.request.headers['x-itwin-query-scope'];
  const scope = given === undefined ? 'all' : queryScopes[String(given).toLowerCase()];
  if (scope === undefined)
    details.push({
      code: 'InvalidHeaderValue',
      message:
        "The value of 'x-itwin-query-scope' is incorrect. Valid values are memberOfItwin, all and OrganizationAdmin.",
      target: 'x-itwin-query-scope',
    });
  const condition = query.$filter === undefined ? undefined : conditionOf(query.$filter, details);
  if (details.length > 0) throw invalid(details);
  return {
    ...query,
    search: query.$search,
    subClass: wanted,
    condition,
    scope: scope ?? 'all',
    // A filter on the status determines itself whether inactive iTwins are included.
    includeInactive:
      query.includeInactive ?? (query.$filter !== undefined && namesInFilter(query.$filter).includes('status')),
  };
}

function conditionOf(filter: string, details: ErrorDetail[]): ITwinFilter['condition'] {
  try {
    return filterCondition(filter, filterProperties);
  } catch (error) {
    if (!(error instanceof FilterError)) throw error;
    details.push(detail.invalidValue('$filter', `The $filter query option is not valid: ${error.message}.`));
    return undefined;
  }
}

/** The iTwins of a page in the requested representation: minimal, full, or the selected properties. */
export async function listedITwins(
  rows: readonly ITwinTable[],
  query: ITwinListQuery,
  call: Pick<Call<unknown, unknown>, 'links' | 'services' | 'representation'>,
) {
  if (query.$select === undefined) return call.representation ? toITwins(rows, call) : rows.map(toMinimalITwin);
  const selected = query.$select.split(',').map((name) => name.trim());
  return (await toITwins(rows, call)).map((iTwin) =>
    Object.fromEntries(Object.entries(iTwin).filter(([name]) => selected.includes(name))),
  );
}

/** @throws ApiError 422 for an unknown property in `$select` */
export function requireSelectable(query: ITwinListQuery, invalid: ApiErrorOf): void {
  const names = query.$select?.split(',').map((name) => name.trim()) ?? [];
  const unknown = names.filter((name) => !Object.hasOwn(FullITwin.properties, name));
  if (unknown.length > 0)
    throw invalid([
      detail.invalidValue('$select', `'${(unknown[0] as string).slice(0, 100)}' is not a property of an iTwin.`),
    ]);
}

const listITwins = callerRoute({
  operationId: 'get-my-itwins',
  method: 'GET',
  path: '/itwins',
  tag,
  summary: 'List iTwins that the caller may see',
  description:
    'The header `x-itwin-query-scope` narrows it: `memberOfItwin` leaves out those that are seen as an administrator only, `OrganizationAdmin` all others.',
  access: { on: 'caller' },
  invalid: 'Cannot query iTwins.',
  prefer: true,
  query: Type.Object({
    ...iTwinListParameters,
    $orderBy: Type.Optional(
      Type.String({
        maxLength: 255,
        description:
          '`displayName`, `number`, `createdDateTime`, `class`, `subClass`, `status`, `dataCenterLocation`, each with `asc` or `desc`.',
      }),
    ),
  }),
  response: { status: 200, description: 'A page of iTwins.', schema: ITwinListResponse },
  async handler(call) {
    const { caller, query, rawQuery, links, services, invalid } = call;
    requireSelectable(query, invalid);
    const filter = iTwinFilterOf(query, call);
    const text = (column: string) => ({ column, type: 'text' }) as const;
    const keys = sortKeys(
      query.$orderBy,
      {
        // Case-insensitive, like every order by name.
        displayName: text('search_text'),
        number: text('number'),
        createdDateTime: { column: 'created_at', type: 'number' },
        class: text('class'),
        subClass: text('sub_class'),
        status: text('status'),
        dataCenterLocation: text('data_center'),
      },
      'createdDateTime',
      text('id'),
      invalid,
    );
    const page = await services.iTwins.list(caller, filter, pageRequest(query, keys, invalid));
    return { iTwins: await listedITwins(page.items, query, call), _links: links.page('/itwins', rawQuery, page) };
  },
});

const missing = 'A required property is missing or empty.';
const common = {
  type: Type.Optional(Nullable(LabelText({ maxLength: 100, tooLong: 'Type cannot be more than 100 characters.' }))),
  geographicLocation: Type.Optional(
    Nullable(LabelText({ tooLong: 'GeographicLocation cannot be more than 255 characters.' })),
  ),
  status: Type.Optional(NullableWord(statuses, { refusal: wrongStatus })),
};
const DisplayName = NameText('Unique within organization and subclass.', {
  tooLong: 'DisplayName cannot be more than 255 characters.',
  missing,
});
const numberTooLong = 'Number cannot be more than 255 characters.';

const createITwin = callerRoute({
  operationId: 'create-itwin',
  method: 'POST',
  path: '/itwins',
  tag,
  summary: 'Create an iTwin',
  description:
    "It belongs to the organization of its parent; without one, to the caller's. The caller becomes its owner.",
  access: { on: 'caller' },
  invalid: 'Cannot create iTwin.',
  made: madeIn('itwin', 'iTwin'),
  body: Type.Object({
    ...common,
    displayName: DisplayName,
    class: Type.String({ enum: [...classes], refusal: 'Class value is incorrect.', missing }),
    subClass: Type.String({ enum: subClasses, refusal: 'SubClass value is incorrect.', missing }),
    number: Type.Optional(Nullable(LabelText({ tooLong: numberTooLong, description: 'Its id by default.' }))),
    dataCenterLocation: Type.Optional(Nullable(Type.String({ maxLength: 255 }))),
    parentId: Type.Optional(
      Nullable(
        Type.String({
          maxLength: 255,
          description: 'An iTwin of an organization of the caller, or the id of the organization.',
        }),
      ),
    ),
  }),
  response: { status: 201, description: 'The iTwin.', schema: ITwinResponse },
  errors: ['iTwinExists', 'InsufficientPermissions'],
  async handler(call) {
    const { caller, body, services, invalid } = call;
    if (body.class === 'Account' || body.subClass === 'Account') {
      // Accounts are the organizations in the users file, so the API cannot create them.
      if (caller.administeredOrganizationIds.length === 0) throw new ApiError('InsufficientPermissions');
      throw invalid([
        detail.invalidValue('class', 'Class value is incorrect. Accounts are the organizations of the users file.'),
      ]);
    }
    const ofClass: readonly string[] = subClassesOf[body.class as (typeof classes)[number]];
    if (!ofClass.includes(body.subClass))
      throw invalid([detail.invalidValue('subClass', 'SubClass value is incorrect.')]);
    const parent = await parentOf(call, body.parentId);
    const row = await services.iTwins.create(caller, {
      class: body.class,
      subClass: body.subClass,
      displayName: body.displayName,
      number: body.number == null || body.number.trim() === '' ? undefined : body.number,
      type: body.type ?? null,
      geographicLocation: body.geographicLocation ?? null,
      dataCenterLocation: body.dataCenterLocation ?? undefined,
      status: body.status ?? 'Active',
      ...parent,
    });
    return toITwin(row, call);
  },
});

/**
 * The parent and the organization of a new iTwin. Rule of the API: without `parentId`, the account is the parent; the
 * account is the root of every hierarchy, so an iTwin belongs to the account of its parent.
 * @throws ApiError 422 for a parent that the caller cannot see, 403 for a parent of another organization
 */
async function parentOf(
  { caller, requireAccess, invalid }: Pick<Call<unknown, unknown>, 'caller' | 'requireAccess' | 'invalid'>,
  parentId: string | null | undefined,
): Promise<{ parentId: string | null; organizationId: string | null }> {
  const own = caller.user.organizationId;
  if (parentId == null || parentId === '') return { parentId: null, organizationId: own };
  const isOwn = (organizationId: string | null): boolean =>
    organizationId === own || (organizationId !== null && caller.administeredOrganizationIds.includes(organizationId));
  if (isOwn(parentId)) return { parentId, organizationId: parentId };
  const found = await requireAccess({ on: 'itwin', id: parentId, permission: 'member' }).catch((error: unknown) => {
    if (error instanceof ApiError) throw invalid([detail.invalidValue('parentId', 'ParentId value is incorrect.')]);
    throw error;
  });
  if (!isOwn(found.itwin.organization_id)) throw new ApiError('InsufficientPermissions');
  return { parentId: found.itwin.id, organizationId: found.itwin.organization_id };
}

const getITwin = itwinRoute({
  operationId: 'get-itwin',
  method: 'GET',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Get an iTwin',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin.',
  response: { status: 200, description: 'The iTwin.', schema: ITwinResponse },
  handler: (call) => toITwin(call.access.itwin, call),
});

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
    ...common,
    displayName: Type.Optional(DisplayName),
    number: Type.Optional(NameText('Unique within organization and subclass.', { tooLong: numberTooLong, missing })),
    // Rule of the API: these properties are read-only. An attempt to change one has an error message of its own.
    id: Fixed('Id is read only and cannot be modified.'),
    class: Fixed('Class is read only and cannot be modified.'),
    subClass: Fixed('SubClass is read only and cannot be modified.'),
    createdDateTime: Fixed('CreatedDateTime is read only and should not be set.'),
    dataCenterLocation: Fixed('DataCenterLocation is read only and should not be set.'),
    createdBy: Fixed('CreatedBy is read only and should not be set.'),
    iTwinAccountId: Fixed('ITwinAccountId is read only and should not be set.'),
    parentId: Fixed('ParentId is read only and cannot be modified.'),
    imageName: Fixed('ImageName is read only and should not be set.'),
    image: Fixed('Image is read only and should not be set.'),
  }),
  bodyTypes: ['application/json', 'application/json-patch+json', 'application/merge-patch+json'],
  response: { status: 200, description: 'The iTwin as it is now.', schema: ITwinResponse },
  errors: ['iTwinExists'],
  async handler(call) {
    const { access, caller, body, services } = call;
    const row = await services.iTwins.update(caller, access.itwin, {
      display_name: body.displayName,
      number: body.number,
      type: body.type,
      geographic_location: body.geographicLocation,
      status: body.status ?? undefined,
    });
    return toITwin(row, call);
  },
});

const deleteITwin = itwinRoute({
  operationId: 'delete-itwin',
  method: 'DELETE',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Delete an iTwin and all its iModels',
  description:
    'Clones of its iModels in other iTwins are kept. Requires an Organization Administrator, or an owner if the iTwin belongs to no organization.',
  access: { on: 'itwin', permission: 'organization_administrator', from: 'path' },
  invalid: 'Cannot delete iTwin.',
  response: { status: 204, description: 'Deleted.' },
  async handler({ access, caller, services }) {
    await services.iTwins.delete(caller, access.itwin.id);
  },
});

export const itwinRoutes: Route[] = [listITwins, createITwin, getITwin, updateITwin, deleteITwin];
