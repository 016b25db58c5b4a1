import { Type, type Static } from 'typebox';
import type { ITwinImageTable, RepositoryTable } from '../db/schema.ts';
import { parseGuid } from '../domain.ts';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import type { NewRepository } from '../iTwins/repositories.ts';
import { clientGone } from '../http/clientGone.ts';
import { NotAPictureError, ProportionsError, TooManyPixelsError } from '../thumbnails/pictures.ts';
import { maxThumbnailBytes } from '../thumbnails/pictureSizes.ts';
import { FullITwin, imageNames, MinimalITwin } from './itwins.ts';
import type { Links, StorageLink } from './links.ts';
import { madeIn } from './made.ts';
import type { ApiErrorOf } from './paging.ts';
import { callerRoute, itwinRoute, type Call, type Route } from './route.ts';
import { emptyToNull, IdText, LabelText, Nullable, NullableWord, time } from './schemas.ts';

const tag = 'iTwins';

const AccountResponse = Type.Object({ iTwin: Type.Union([FullITwin, MinimalITwin]) });

/** An organization in the form of an iTwin. Rule of the API: that is how accounts are told. */
async function accountOf(
  { services, representation }: Pick<Call<unknown, unknown>, 'services' | 'representation'>,
  organizationId: string | null,
) {
  if (organizationId === null) throw new ApiError('iTwinNotFound');
  const name = services.directory.data.organizations.find(({ id }) => id === organizationId)?.name ?? organizationId;
  const account = {
    id: organizationId,
    class: 'Account',
    subClass: 'Account',
    type: null,
    number: name,
    displayName: name,
  };
  if (!representation) return { iTwin: account };
  return {
    iTwin: {
      ...account,
      geographicLocation: null,
      dataCenterLocation: services.config.dataCenter,
      status: 'Active',
      parentId: null,
      iTwinAccountId: organizationId,
      imageName: null,
      image: null,
      // An organization is a line of the users file, which says nothing of its beginning: it is known since its first iTwin.
      createdDateTime: time(await services.iTwins.firstOf(organizationId)),
      createdBy: null,
    },
  };
}

const getAccount = itwinRoute({
  operationId: 'get-itwin-account',
  method: 'GET',
  path: '/itwins/:iTwinId/account',
  tag,
  summary: 'Get the account that an iTwin belongs to: its organization',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get Account.',
  prefer: true,
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  handler: (call) => accountOf(call, call.access.itwin.organization_id),
});

const getPrimaryAccount = callerRoute({
  operationId: 'get-my-primary-account',
  method: 'GET',
  path: '/itwins/myprimaryaccount',
  tag,
  summary: "Get the caller's own account",
  access: { on: 'caller' },
  invalid: 'Cannot get Account.',
  prefer: true,
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  errors: ['iTwinNotFound'],
  handler: (call) => accountOf(call, call.caller.user.organizationId),
});

const imagePath = '/itwins/:iTwinId/image';
const ImageResponse = Type.Object({
  image: Type.Object({
    id: Type.String(),
    smallImageName: Type.String(),
    smallImageUrl: Type.String(),
    largeImageName: Type.String(),
    largeImageUrl: Type.String(),
  }),
});

async function toImage(row: ITwinImageTable, links: Links) {
  const { small, large } = imageNames(row.id);
  const files = [
    { blobId: row.small_blob_id, fileName: small },
    { blobId: row.large_blob_id, fileName: large },
  ];
  const [ofSmall, ofLarge] = (await links.downloads(files)) as [StorageLink, StorageLink];
  return {
    image: {
      id: row.id,
      smallImageName: small,
      smallImageUrl: ofSmall.href,
      largeImageName: large,
      largeImageUrl: ofLarge.href,
    },
  };
}

const getImage = itwinRoute({
  operationId: 'get-itwin-image',
  method: 'GET',
  path: imagePath,
  tag,
  summary: 'Get the picture of an iTwin',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin Image.',
  response: { status: 200, description: 'Addresses of the picture, for a while.', schema: ImageResponse },
  errors: ['ImageNotFound'],
  async handler({ access, links, services }) {
    return toImage(await services.iTwinImages.get(access.itwin.id), links);
  },
});

const uploadImage = itwinRoute({
  operationId: 'upload-itwin-image',
  method: 'PUT',
  path: imagePath,
  tag,
  summary: 'Upload a picture of an iTwin',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot create iTwin Image.',
  file: {
    types: ['image/png', 'image/jpeg'],
    limit: maxThumbnailBytes,
    tooLarge: 'Provided file is greater than the maximum allowed file size of 5MB.',
  },
  response: { status: 201, description: 'The picture.', schema: ImageResponse },
  async handler({ access, caller, body, links, services, reply, invalid }) {
    try {
      return await toImage(
        await services.iTwinImages.set(access.itwin, body as Buffer, { caller, signal: clientGone(reply) }),
        links,
      );
    } catch (error) {
      if (error instanceof ProportionsError)
        throw invalid([
          detail.invalidValue(
            'image',
            'The width or height dimensions of the image cannot be greater than 5 times the size of each other.',
          ),
        ]);
      if (error instanceof TooManyPixelsError) throw invalid([detail.tooManyPixels('image')]);
      if (!(error instanceof NotAPictureError)) throw error;
      throw invalid([
        { code: 'InvalidRequestBody', message: 'The iTwin Image is not a PNG or JPEG picture.', target: 'image' },
      ]);
    }
  },
});

const deleteImage = itwinRoute({
  operationId: 'delete-itwin-image',
  method: 'DELETE',
  path: imagePath,
  tag,
  summary: 'Delete the picture of an iTwin',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot delete iTwin Image.',
  response: { status: 204, description: 'Gone.' },
  errors: ['ImageNotFound'],
  async handler({ access, caller, services }) {
    await services.iTwinImages.delete(caller, access.itwin.id);
  },
});

const classes = [
  'RealityData',
  'iModels',
  'Storage',
  'Forms',
  'Issues',
  'ProjectWise',
  'GeographicInformationSystem',
  'Construction',
  'Subsurface',
  'GeospatialFeatures',
  'CesiumCuratedContent',
  'SensorData',
  'PdfPlansets',
  'IndexedMedia',
  'Performance',
];
/** The classes that each subclass may stand with; any where none is named. */
const classesOf: Readonly<Record<string, readonly string[]>> = {
  WebMapService: ['GeographicInformationSystem'],
  WebMapTileService: ['GeographicInformationSystem'],
  MapServer: ['GeographicInformationSystem'],
  ArcGIS: ['GeographicInformationSystem'],
  UrlTemplate: ['GeographicInformationSystem'],
  WebFeatureService: ['GeographicInformationSystem', 'GeospatialFeatures'],
  OgcApiFeatures: ['GeographicInformationSystem', 'GeospatialFeatures'],
  EvoWorkspace: ['Subsurface'],
  Performance: [],
};
const subClasses = Object.keys(classesOf);

function fits(repositoryClass: string, subClass: string): boolean {
  const allowed = classesOf[subClass] ?? [];
  return allowed.length === 0 || allowed.includes(repositoryClass);
}

const maxOptionsCharacters = 10_000;
const Secret = Type.String({ maxLength: 4000 });
const Authentication = Type.Object({
  type: Type.String({ enum: ['Header', 'QueryParameter', 'Basic'] }),
  key: Type.Optional(Secret),
  value: Type.Optional(Secret),
  username: Type.Optional(Secret),
  password: Type.Optional(Secret),
});
const wrongAuthentication =
  "Authentication value is incorrect. It has a type, and 'key' and 'value' for Header and QueryParameter, 'username' and 'password' for Basic.";
const Options = Type.Unsafe<Record<string, unknown>>({
  type: 'object',
  description: `Whatever a client needs to use it, as JSON of at most ${maxOptionsCharacters} characters.`,
});
const Repository = Type.Object({
  id: Type.String(),
  class: Type.String(),
  subClass: Type.Optional(Type.String()),
  displayName: Type.String({ description: 'Its address where it was given no name.' }),
  uri: Type.String(),
  options: Type.Optional(Options),
  authentication: Type.Optional(Authentication),
  capabilities: Type.Object(
    {},
    { description: 'Empty: this server lists no resources of repositories and no graphics.' },
  ),
});
const RepositoryResponse = Type.Object({ repository: Repository });
const repositoriesPath = '/itwins/:iTwinId/repositories';

function toRepository(row: RepositoryTable): Static<typeof Repository> {
  return {
    id: row.id,
    class: row.class,
    ...(row.sub_class !== null && { subClass: row.sub_class }),
    displayName: row.display_name ?? row.uri,
    uri: row.uri,
    ...(row.options !== null && { options: JSON.parse(row.options) as Record<string, unknown> }),
    ...(row.authentication !== null && {
      authentication: JSON.parse(row.authentication) as Static<typeof Authentication>,
    }),
    capabilities: {},
  };
}

const missing = 'A required property is missing or empty.';
const described = {
  displayName: Type.Optional(Nullable(LabelText({ tooLong: 'DisplayName cannot be more than 255 characters.' }))),
  options: Type.Optional(Nullable(Options)),
  authentication: Type.Optional(Nullable(Type.Object(Authentication.properties, { refusal: wrongAuthentication }))),
};
const Uri = Type.String({
  minLength: 1,
  maxLength: 2000,
  pattern: '\\S',
  tooLong: 'Uri cannot be more than 2000 characters.',
  missing,
});

/** The columns of what a body describes; absent stays. @throws ApiError 422 */
function describedColumns(
  body: {
    displayName?: string | null | undefined;
    options?: Record<string, unknown> | null | undefined;
    authentication?: Static<typeof Authentication> | null | undefined;
  },
  invalid: ApiErrorOf,
): Partial<Pick<NewRepository, 'display_name' | 'options' | 'authentication'>> {
  const json = (value: unknown): string | null => (value === null ? null : JSON.stringify(value));
  const options = body.options === undefined ? undefined : json(body.options);
  if (options != null && options.length > maxOptionsCharacters)
    throw invalid([
      detail.invalidValue('options', `Options cannot be more than ${maxOptionsCharacters} characters of JSON.`),
    ]);
  const { authentication } = body;
  const needed = authentication?.type === 'Basic' ? (['username', 'password'] as const) : (['key', 'value'] as const);
  if (authentication != null && needed.some((name) => authentication[name] === undefined))
    throw invalid([detail.invalidValue('authentication', wrongAuthentication)]);
  return {
    ...(body.displayName !== undefined && { display_name: emptyToNull(body.displayName) }),
    ...(options !== undefined && { options }),
    ...(authentication !== undefined && { authentication: json(authentication) }),
  };
}

const listRepositories = itwinRoute({
  operationId: 'get-repositories-by-itwin-id',
  method: 'GET',
  path: repositoriesPath,
  tag,
  summary: 'List the places outside where more of an iTwin is',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot query iTwin Repositories.',
  query: Type.Object({
    class: Type.Optional(
      Type.String({ enum: classes, refusal: 'A valid iTwin Repository Class was not specified in the query.' }),
    ),
    subClass: Type.Optional(
      Type.String({ enum: subClasses, refusal: 'A valid iTwin Repository SubClass was not specified in the query.' }),
    ),
  }),
  response: {
    status: 200,
    description: 'Repositories.',
    schema: Type.Object({ repositories: Type.Array(Repository) }),
  },
  async handler({ access, query, services, invalid }) {
    if (query.class !== undefined && query.subClass !== undefined && !fits(query.class, query.subClass))
      throw invalid([
        detail.invalidValue('subClass', 'A valid iTwin Repository SubClass was not specified in the query.'),
      ]);
    return { repositories: (await services.repositories.list(access.itwin.id, query)).map(toRepository) };
  },
});

const getRepository = itwinRoute({
  operationId: 'get-repository',
  method: 'GET',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Get a repository',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  response: { status: 200, description: 'The repository.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryNotFound'],
  async handler({ access, params, services }) {
    return {
      repository: toRepository(
        await services.repositories.get(access.itwin.id, parseGuid(params['repositoryId'] ?? '')),
      ),
    };
  },
});

const createRepository = itwinRoute({
  operationId: 'create-repository',
  method: 'POST',
  path: repositoriesPath,
  tag,
  summary: 'Add a repository',
  description: 'Every member of the iTwin sees it with its `authentication`.',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot add iTwin Repository.',
  made: madeIn('repository', 'repository'),
  body: Type.Object({
    class: Type.String({ enum: classes, refusal: 'Class value is incorrect.', missing }),
    subClass: Type.Optional(NullableWord(subClasses, { refusal: 'SubClass value is incorrect.' })),
    uri: Uri,
    ...described,
  }),
  response: { status: 201, description: 'The repository.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryExists'],
  async handler({ access, caller, body, services, invalid }) {
    if (body.subClass != null && !fits(body.class, body.subClass))
      throw invalid([detail.invalidValue('subClass', 'SubClass value is incorrect.')]);
    const row = await services.repositories.create(caller, access.itwin.id, {
      class: body.class,
      sub_class: body.subClass ?? null,
      uri: body.uri,
      display_name: null,
      options: null,
      authentication: null,
      ...describedColumns(body, invalid),
    });
    return { repository: toRepository(row) };
  },
});

const updateRepository = itwinRoute({
  operationId: 'update-repository',
  method: 'PATCH',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Change a repository',
  description: 'What is not named stays; `options` and `authentication` are replaced as a whole.',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot update iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  body: Type.Object({
    uri: Type.Optional(Uri),
    ...described,
    id: Type.Optional(Nullable(IdText())),
    class: Type.Optional(Nullable(IdText())),
    subClass: Type.Optional(Nullable(IdText())),
  }),
  bodyTypes: ['application/json', 'application/json-patch+json', 'application/merge-patch+json'],
  response: { status: 200, description: 'The repository as it is now.', schema: RepositoryResponse },
  errors: ['iTwinRepositoryNotFound', 'iTwinRepositoryExists'],
  async handler({ access, caller, params, body, services, invalid }) {
    const before = await services.repositories.get(access.itwin.id, parseGuid(params['repositoryId'] ?? ''));
    // Clients send the whole repository back: naming what these are is no attempt to change them.
    const refused = (
      [
        ['id', before.id],
        ['class', before.class],
        ['subClass', before.sub_class],
      ] as const
    )
      .filter(([name, value]) => body[name] !== undefined && body[name] !== value)
      .map(([target]): ErrorDetail => ({
        code: 'ReadOnlyProperty',
        message: `${target[0]?.toUpperCase() ?? ''}${target.slice(1)} is read only and cannot be modified.`,
        target,
      }));
    if (refused.length > 0) throw invalid(refused);
    const row = await services.repositories.update(caller, before, {
      ...(body.uri !== undefined && { uri: body.uri }),
      ...describedColumns(body, invalid),
    });
    return { repository: toRepository(row) };
  },
});

const deleteRepository = itwinRoute({
  operationId: 'delete-repository',
  method: 'DELETE',
  path: `${repositoriesPath}/:repositoryId`,
  tag,
  summary: 'Remove a repository',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot delete iTwin Repository.',
  iTwinNotFound: 'iTwinRepositoryNotFound',
  response: { status: 204, description: 'Gone.' },
  errors: ['iTwinRepositoryNotFound'],
  async handler({ access, caller, params, services }) {
    await services.repositories.delete(caller, access.itwin.id, parseGuid(params['repositoryId'] ?? ''));
  },
});

const deleteITwin = itwinRoute({
  operationId: 'delete-itwin',
  method: 'DELETE',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Delete an iTwin with every iModel in it',
  description:
    'Clones of its iModels in other iTwins are not touched. For Organization Administrators, and for owners of an iTwin that belongs to no organization.',
  access: { on: 'itwin', permission: 'organization_administrator', from: 'path' },
  invalid: 'Cannot delete iTwin.',
  response: { status: 204, description: 'Gone.' },
  async handler({ access, caller, services }) {
    await services.iTwins.delete(caller, access.itwin.id);
  },
});

export const itwinThingRoutes: Route[] = [
  getPrimaryAccount,
  getAccount,
  getImage,
  uploadImage,
  deleteImage,
  listRepositories,
  getRepository,
  createRepository,
  updateRepository,
  deleteRepository,
  deleteITwin,
];
