import { Type } from 'typebox';
import type { ITwinImageTable, RepositoryTable } from '../db/schema.ts';
import { parseGuid, type Caller } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import type { Services } from '../services.ts';
import { maxThumbnailBytes, NotAPictureError } from '../thumbnails/thumbnails.ts';
import { MinimalITwin } from './itwins.ts';
import type { Links, StorageLink } from './links.ts';
import { madeIn } from './made.ts';
import { callerRoute, itwinRoute, type Route } from './route.ts';
import { Nullable } from './schemas.ts';

const tag = 'iTwins';

const AccountResponse = Type.Object({ iTwin: MinimalITwin });

/** An organization in the form of an iTwin. Rule of the API: that is how accounts are told. */
function accountOf({ directory }: Services, organizationId: string | null) {
  if (organizationId === null) throw new ApiError('iTwinNotFound');
  const name = directory.data.organizations.find(({ id }) => id === organizationId)?.name ?? organizationId;
  return { iTwin: { id: organizationId, class: 'Account', subClass: 'Account', type: null, number: name, displayName: name } };
}

const getAccount = itwinRoute({
  operationId: 'get-itwin-account',
  method: 'GET',
  path: '/itwins/:iTwinId/account',
  tag,
  summary: 'Get the account that an iTwin belongs to: its organization',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get Account.',
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  async handler({ access, services }) {
    return accountOf(services, access.itwin.organization_id);
  },
});

const getPrimaryAccount = callerRoute({
  operationId: 'get-my-primary-account',
  method: 'GET',
  path: '/itwins/myprimaryaccount',
  tag,
  summary: "Get the caller's own account",
  access: { on: 'caller' },
  invalid: 'Cannot get Account.',
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  errors: ['iTwinNotFound'],
  async handler({ caller, services }: { caller: Caller; services: Services }) {
    return accountOf(services, caller.user.organizationId);
  },
});

const imagePath = '/itwins/:iTwinId/image';
const ImageResponse = Type.Object({
  image: Type.Object({ id: Type.String(), smallImageName: Type.String(), smallImageUrl: Type.String(), largeImageName: Type.String(), largeImageUrl: Type.String() }),
});

async function toImage(row: ITwinImageTable, links: Links) {
  const [small, large] = [`small_${row.id}.png`, `large_${row.id}.png`];
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
    return toImage(await services.iTwinThings.image(access.itwin.id), links);
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
  file: { types: ['image/png', 'image/jpeg'], limit: maxThumbnailBytes },
  response: { status: 201, description: 'The picture.', schema: ImageResponse },
  async handler({ access, caller, body, links, services, invalid }) {
    try {
      return toImage(await services.iTwinThings.setImage(caller, access.itwin, body as Buffer), links);
    } catch (error) {
      if (!(error instanceof NotAPictureError)) throw error;
      throw invalid([{ code: 'InvalidRequestBody', message: 'The iTwin Image is not a PNG or JPEG picture.', target: 'image' }]);
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
    await services.iTwinThings.deleteImage(caller, access.itwin.id);
  },
});

const classes = ['RealityData', 'iModels', 'Storage', 'Forms', 'Issues', 'ProjectWise', 'GeographicInformationSystem'];
const subClasses = ['WebMapService', 'WebMapTileService', 'MapServer'];
const Repository = Type.Object({ id: Type.String(), class: Type.String(), subClass: Nullable(Type.String()), uri: Type.String() });
const repositoriesPath = '/itwins/:iTwinId/repositories';

function toRepository({ id, class: kind, sub_class, uri }: RepositoryTable) {
  return { id, class: kind, subClass: sub_class, uri };
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
    class: Type.Optional(Type.String({ enum: classes, refusal: 'A valid iTwin Repository Class was not specified in the query.' })),
    subClass: Type.Optional(Type.String({ enum: subClasses, refusal: 'A valid iTwin Repository SubClass was not specified in the query.' })),
  }),
  response: { status: 200, description: 'Repositories.', schema: Type.Object({ repositories: Type.Array(Repository) }) },
  async handler({ access, query, services }) {
    return { repositories: (await services.iTwinThings.repositories(access.itwin.id, query)).map(toRepository) };
  },
});

const createRepository = itwinRoute({
  operationId: 'create-repository',
  method: 'POST',
  path: repositoriesPath,
  tag,
  summary: 'Add a repository',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot add iTwin Repository.',
  made: madeIn('repository', 'repository'),
  body: Type.Object({ class: Type.String({ maxLength: 100 }), subClass: Type.Optional(Nullable(Type.String({ maxLength: 100 }))), uri: Type.String({ minLength: 1, maxLength: 2000 }) }),
  response: { status: 201, description: 'The repository.', schema: Type.Object({ repository: Repository }) },
  errors: ['iTwinRepositoryExists'],
  async handler({ access, caller, body, services, invalid }) {
    const details = [
      ...(classes.includes(body.class) ? [] : [detail.invalidValue('class', 'Class value is incorrect.')]),
      ...(body.subClass == null || subClasses.includes(body.subClass) ? [] : [detail.invalidValue('subClass', 'SubClass value is incorrect.')]),
    ];
    if (details.length > 0) throw invalid(details);
    const row = await services.iTwinThings.addRepository(caller, access.itwin.id, { class: body.class, sub_class: body.subClass ?? null, uri: body.uri });
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
  response: { status: 204, description: 'Gone.' },
  errors: ['iTwinRepositoryNotFound'],
  async handler({ access, caller, params, services }) {
    await services.iTwinThings.deleteRepository(caller, access.itwin.id, parseGuid(params.repositoryId ?? ''));
  },
});

const deleteITwin = itwinRoute({
  operationId: 'delete-itwin',
  method: 'DELETE',
  path: '/itwins/:iTwinId',
  tag,
  summary: 'Delete an iTwin with every iModel in it',
  description: 'Clones of its iModels in other iTwins are not touched. For Organization Administrators, and for owners of an iTwin that belongs to no organization.',
  access: { on: 'itwin', permission: 'organization_administrator', from: 'path' },
  invalid: 'Cannot delete iTwin.',
  response: { status: 204, description: 'Gone.' },
  async handler({ access, caller, services }) {
    await services.iTwins.delete(caller, access.itwin.id);
  },
});

export const itwinThingRoutes: Route[] = [getPrimaryAccount, getAccount, getImage, uploadImage, deleteImage, listRepositories, createRepository, deleteRepository, deleteITwin];
