import { Type } from '../jsonSchema.ts';
import { parseChangesetRef, type Caller } from '../domain.ts';
import { checkpointed } from '../checkpoints/checkpoints.ts';
import type { IModelTable } from '../db/schema.ts';
import { graphicsFormat, type GraphicsSummary } from '../graphics/drawing.ts';
import type { Services } from '../services.ts';
import type { Links } from './links.ts';
import { imodelRoute, type Route } from './route.ts';
import { Nullable } from './schemas.ts';

const Point = Type.Array(Type.Number(), { minItems: 3, maxItems: 3 });
const Bounds = Type.Object({ low: Point, high: Point }, { description: 'Metres, in the coordinates of the iModel.' });
const href = Type.String({
  description:
    'Signed, good for a limited time, and the same for a caller for half of it. Sent with `Content-Encoding: br` to clients that accept that.',
});
const size = Type.Integer({ description: 'Bytes of the compressed file.' });

const GraphicsResponse = Type.Object({
  graphics: Type.Object({
    changesetId: Type.String({ description: 'Empty for the baseline.' }),
    changesetIndex: Type.Integer(),
    state: Type.String({ enum: ['scheduled', 'successful', 'failed', 'none'] }),
    error: Nullable(
      Type.Object({ code: Type.String(), message: Type.String() }, { description: 'Why there are no graphics.' }),
    ),
    summary: Nullable(
      Type.Object(
        {
          outdated: Type.Boolean({
            description:
              'Drawn by an earlier version of this server, which drew less. A request to draw replaces such graphics.',
          }),
          elements: Type.Integer({ description: 'Elements with geometry.' }),
          triangles: Type.Integer({ description: 'Triangles of all chunks.' }),
          omittedElements: Type.Integer({
            description: 'Elements that are not drawn, the smallest ones, because of the limits of the installation.',
          }),
          omittedTriangles: Type.Integer({
            description: 'Triangles of omitted elements, as far as they were counted: the least that is missing.',
          }),
          omittedTextures: Type.Integer({
            description: 'Textures that are not drawn, because they are too many, too large or not readable.',
          }),
          is2d: Type.Boolean({ description: 'The iModel has two-dimensional elements only, which are drawn in plan.' }),
          bounds: Nullable(Bounds),
        },
        { description: 'Null until the state is `successful`.' },
      ),
    ),
    chunks: Type.Array(
      Type.Object({
        href,
        size,
        triangles: Type.Integer(),
        bounds: Bounds,
      }),
      { description: 'Binary glTF; the first one has the largest elements.' },
    ),
    elements: Nullable(
      Type.Object(
        { href, size },
        { description: 'The table of elements, JSON. Null until the state is `successful`.' },
      ),
    ),
  }),
});
const answer = { status: 200, description: 'The graphics.', schema: GraphicsResponse } as const;

async function toGraphics(
  { graphics }: Services,
  links: Links,
  caller: Caller,
  imodel: IModelTable,
  { index, id }: { index: number; id: string },
) {
  const { row, summary, chunks, elements } = await graphics.find(imodel, index);
  const { format = 1, omittedTextures = 0, ...rest } = summary ?? ({} as GraphicsSummary);
  return {
    graphics: {
      changesetId: id,
      changesetIndex: index,
      state: row?.state ?? 'none',
      error:
        row?.state === 'failed'
          ? { code: 'GraphicsFailed', message: row.failure_reason ?? 'The iModel could not be drawn.' }
          : row === undefined && !graphics.enabled
            ? { code: 'GraphicsNotMade', message: graphics.whyNot }
            : null,
      summary: summary === undefined ? null : { ...rest, omittedTextures, outdated: format < graphicsFormat },
      chunks: chunks.map(({ blobId, size, triangles, bounds }, n) => ({
        href: links.graphics(blobId, `chunk-${n}.glb`, caller.user.id),
        size,
        triangles,
        bounds,
      })),
      elements:
        elements === undefined
          ? null
          : { href: links.graphics(elements.blobId, 'elements.json', caller.user.id), size: elements.size },
    },
  };
}

const path = '/imodels/:iModelId/changesets/:changeset/graphics';

const getGraphics = imodelRoute({
  operationId: 'get-changeset-graphics',
  method: 'GET',
  path,
  tag: 'Checkpoints',
  summary: 'Get the graphics of a changeset; index 0 is the baseline',
  description:
    'An extension of this server. Graphics are drawn from each checkpoint; the state is `none` if none were drawn of exactly this changeset. Chunks are binary glTF 2.0 with `KHR_mesh_quantization` and `EXT_mesh_gpu_instancing`: z is up, and positions are in metres from `asset.extras.origin`. The attribute `_FEATURE` of a vertex or an instance is the index of its element in the table, whose columns are `id`, `class`, `label`, `model`, `category`, `box` and `hash`. A node has the indexes of its model, category and subcategory in `extras`; a subcategory of the table with `hidden` is off at first. `hash` covers all that is drawn of an element, so that another hash at another changeset means that it looks different or is elsewhere; it is null for omitted elements.',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot get Graphics.',
  response: answer,
  errors: ['ChangesetNotFound'],
  async handler({ access, caller, params, links, services }) {
    const changeset = await checkpointed(
      services.database.db,
      access.imodel,
      parseChangesetRef(params['changeset'] ?? ''),
    );
    return toGraphics(services, links, caller, access.imodel, changeset);
  },
});

const makeGraphics = imodelRoute({
  operationId: 'make-changeset-graphics',
  method: 'PUT',
  path,
  tag: 'Checkpoints',
  summary: 'Draw a changeset; index 0 is the baseline',
  description:
    'An extension of this server. Schedules graphics that do not exist, have failed or are outdated, and the checkpoint that they are drawn from; no effect on others. `GraphicsNotMade` if no server of the installation draws.',
  access: { on: 'imodel', permission: 'imodels_write', level: 'iModel' },
  invalid: 'Cannot update Graphics.',
  response: { ...answer, status: 202 },
  errors: ['ChangesetNotFound', 'GraphicsNotMade'],
  async handler({ access, caller, params, links, services }) {
    const { imodel, changeset } = await services.graphics.request(
      caller,
      access,
      parseChangesetRef(params['changeset'] ?? ''),
    );
    return toGraphics(services, links, caller, imodel, changeset);
  },
});

export const graphicsRoutes: Route[] = [getGraphics, makeGraphics];
