import { Type } from '../jsonSchema.ts';
import { detail } from '../errors.ts';
import { clientGone } from '../http/clientGone.ts';
import { NotAPictureError, TooManyPixelsError } from '../thumbnails/pictures.ts';
import { maxThumbnailBytes, type ThumbnailSize } from '../thumbnails/pictureSizes.ts';
import { imodelRoute, type Route } from './route.ts';

const tag = 'Thumbnails';

const getThumbnail = imodelRoute({
  operationId: 'get-imodel-thumbnail',
  method: 'GET',
  path: '/imodels/:iModelId/thumbnail',
  tag,
  summary: 'Get the thumbnail of an iModel',
  description:
    'PNG, 400 × 250 or 800 × 500 pixels: the uploaded picture, or else the one that was drawn of the nearest checkpoint, or else a default picture.',
  access: {
    on: 'imodel',
    permission: 'imodels_webview',
    level: 'iModel',
    beforeInitialized: 'The picture is its own; there is only the default one by then.',
  },
  invalid: 'Cannot get Thumbnail.',
  query: Type.Object({
    size: Type.Optional(
      Type.String({
        enum: ['small', 'large'],
        refusal: "'{value}' is not a valid 'size'. Valid 'size' values are: 'small', 'large'.",
      }),
    ),
  }),
  response: { status: 200, description: 'The picture.', binary: 'image/png' },
  async handler({ access, query, services }) {
    return services.thumbnails.get(access.imodel, (query.size ?? 'small') as ThumbnailSize);
  },
});

const uploadThumbnail = imodelRoute({
  operationId: 'upload-imodel-thumbnail',
  method: 'PUT',
  path: '/imodels/:iModelId/thumbnail',
  tag,
  summary: 'Upload the thumbnail of an iModel',
  access: { on: 'imodel', permission: 'imodels_manage', level: 'iModel' },
  invalid: 'Cannot upload Thumbnail.',
  file: { types: ['image/jpeg', 'image/png'], limit: maxThumbnailBytes },
  response: { status: 201, description: 'Stored.' },
  errors: ['iModelNotInitialized'],
  async handler({ access, caller, body, services, reply, invalid }) {
    try {
      await services.thumbnails.set(access, body as Buffer, { caller, signal: clientGone(reply) });
    } catch (error) {
      if (error instanceof TooManyPixelsError) throw invalid([detail.tooManyPixels()]);
      if (!(error instanceof NotAPictureError)) throw error;
      throw invalid([
        {
          code: 'InvalidRequestBody',
          message:
            "Invalid Thumbnail format. Please use one of the supported media formats: 'image/jpeg', 'image/png'.",
          innerError: { code: 'InvalidThumbnailFormat' },
        },
      ]);
    }
  },
});

export const thumbnailRoutes: Route[] = [getThumbnail, uploadThumbnail];
