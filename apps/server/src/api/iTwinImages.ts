import { Type } from '../jsonSchema.ts';
import type { ITwinImageTable } from '../db/schemaOfITwins.ts';
import { detail } from '../errors.ts';
import { clientGone } from '../http/clientGone.ts';
import { NotAPictureError, ProportionsError, TooManyPixelsError } from '../thumbnails/pictures.ts';
import { maxThumbnailBytes } from '../thumbnails/pictureSizes.ts';
import { imageNames } from './itwins.ts';
import type { Links, StorageLink } from './links.ts';
import { itwinRoute, type Route } from './route.ts';

const tag = 'iTwins';

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
  summary: 'Get the image of an iTwin',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get iTwin Image.',
  response: {
    status: 200,
    description: 'The image, with signed URLs of both sizes that expire.',
    schema: ImageResponse,
  },
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
  summary: 'Upload the image of an iTwin',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot create iTwin Image.',
  file: {
    types: ['image/png', 'image/jpeg'],
    limit: maxThumbnailBytes,
    tooLarge: 'Provided file is greater than the maximum allowed file size of 5MB.',
  },
  response: { status: 201, description: 'The image.', schema: ImageResponse },
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
  summary: 'Delete the image of an iTwin',
  access: { on: 'itwin', permission: 'itwins_modify', from: 'path' },
  invalid: 'Cannot delete iTwin Image.',
  response: { status: 204, description: 'Deleted.' },
  errors: ['ImageNotFound'],
  async handler({ access, caller, services }) {
    await services.iTwinImages.delete(caller, access.itwin.id);
  },
});

export const iTwinImageRoutes: Route[] = [getImage, uploadImage, deleteImage];
