import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { brotliCompressSync, constants } from 'node:zlib';
import { SnapshotDb } from '@itwin/core-backend';
import {
  graphicsFormat,
  type DrawingRequest,
  type DrawingResult,
  type DrawnFile,
  type GraphicsFileKind,
} from '../drawing.ts';
import { boundsOfChunk, chunksOf } from './chunks.ts';
import { draw, type Drawing } from './draw.ts';
import { boundsOf, readDrawables, type Drawables } from './elements.ts';
import { trianglesIn, type Piece } from './geometry.ts';
import { writeGlb } from './glb.ts';
import { drawPicture } from './picture.ts';
import { subCategoriesOf, type SubCategory } from './subCategories.ts';
import { decodeTextures } from './texels.ts';
import { readTextures } from './textures.ts';

/** Effort of the compression, 0-11. For 44 MB of geometry, 9 took 4.4 s and gave 11.1 MB; 5 takes 0.9 s and gives 13.0 MB. */
const brotliQuality = 5;

/**
 * Draws an iModel and writes the result beside its file: chunks of geometry and the table of elements, compressed with
 * brotli, and a picture in two sizes.
 * @param onProgress called when something was done
 */
export async function makeGraphics(
  request: DrawingRequest,
  onProgress: (elements: number) => void,
): Promise<DrawingResult> {
  const { file, maxElements } = request;
  const drawables = readDrawables(file, maxElements);
  const { elements, is2d } = drawables;
  const bounds = boundsOf(elements.map(({ box }) => box));
  const origin = bounds?.low.map((low, axis) => Math.round((low + (bounds.high[axis] as number)) / 2)) ?? [0, 0, 0];
  onProgress(0);
  const { drawing, subCategories, textures } = await drawFile(
    request,
    drawables,
    origin as unknown as readonly [number, number, number],
    onProgress,
  );
  const files: DrawnFile[] = [];
  const write = (kind: GraphicsFileKind, bytes: Buffer, detail?: DrawnFile['detail']): void => {
    const name = `graphics-${files.length}`;
    writeFileSync(path.join(path.dirname(file), name), bytes);
    files.push({ kind, name, ...(detail !== undefined && { detail }) });
    onProgress(elements.length);
  };
  const { texels, broken } = await decodeTextures(textures.images, () => onProgress(elements.length));
  // Browsers refuse a chunk with a picture that they cannot decode.
  for (const id of broken) textures.images.delete(id);
  const { table, ...kinds } = tableOf(drawables, drawing, subCategories);
  for (const chunk of chunksOf(drawing.geometry, textures.images)) {
    const triangles =
      trianglesIn(chunk.placed.map(({ piece }) => piece)) +
      chunk.instances.reduce((sum, { part }) => sum + part.triangles, 0);
    write('chunk', compressed(writeGlb(drawing.geometry, textures.images, chunk, kinds)), {
      triangles,
      bounds: boundsOfChunk(chunk, drawing.geometry.origin),
    });
  }
  write('elements', compressed(Buffer.from(JSON.stringify(table))));
  const hidden = new Set(subCategories.flatMap((each) => (each.hidden ? [each.id] : [])));
  const picture = drawPicture(drawing.geometry, is2d, hidden, texels);
  if (picture !== undefined) {
    write('small', picture.small);
    write('large', picture.large);
  }
  return {
    files,
    summary: {
      format: graphicsFormat,
      elements: elements.length + drawables.omitted,
      triangles: drawing.triangles,
      omittedElements: drawing.omittedElements + drawables.omitted,
      omittedTriangles: drawing.omittedTriangles,
      omittedTextures: textures.omitted + broken.length,
      is2d,
      bounds: boundsOf(elements.filter((_element, n) => drawing.isDrawn(n)).map(({ box }) => box)) ?? null,
    },
  };
}

async function drawFile(
  { file, maxTriangles }: DrawingRequest,
  drawables: Drawables,
  origin: readonly [number, number, number],
  onProgress: (elements: number) => void,
): Promise<{
  drawing: Drawing;
  subCategories: SubCategory[];
  textures: Awaited<ReturnType<typeof readTextures>>;
}> {
  const db = SnapshotDb.openFile(file);
  try {
    const drawing = await draw(db, drawables, origin, { maxTriangles }, onProgress);
    return {
      drawing,
      subCategories: subCategoriesOf(db, drawing.geometry),
      textures: await readTextures(db, drawing.geometry),
    };
  } finally {
    db.close();
  }
}

/** The table of elements, by columns. `hash` is null for an element that is not drawn. */
function tableOf({ elements, classNames, labels }: Drawables, drawing: Drawing, subCategories: readonly SubCategory[]) {
  const indexer = (): { indexOf: (key: string) => number; keys: string[] } => {
    const known = new Map<string, number>();
    const keys: string[] = [];
    return {
      keys,
      indexOf: (key) => {
        const index = known.get(key) ?? keys.push(key) - 1;
        known.set(key, index);
        return index;
      },
    };
  };
  const [models, categories, classes] = [indexer(), indexer(), indexer()];
  const model = elements.map((element) => models.indexOf(element.model));
  const category = elements.map((element) => categories.indexOf(element.category));
  const described = subCategories.map((each) => ({ ...each, category: categories.indexOf(each.category) }));
  const subCategoryIndexes = new Map(subCategories.map(({ id }, n) => [id, n]));
  const columns = {
    id: elements.map(({ id }) => id),
    class: elements.map(({ classId }) => classes.indexOf(classNames.get(classId) ?? 'BisCore:Element')),
    label: elements.map(({ label }) => label),
    model,
    category,
    box: elements.map(({ box }) => box.map((value) => Math.round(value * 1000) / 1000)),
    hash: elements.map((_element, n) => (drawing.isDrawn(n) ? drawing.geometry.hashOf(n) : null)),
  };
  const labelled = (ids: readonly string[]) => ids.map((id) => ({ id, label: labels.get(id) ?? id }));
  return {
    table: {
      models: labelled(models.keys),
      categories: labelled(categories.keys),
      subCategories: described,
      classes: classes.keys,
      elements: columns,
    },
    modelOf: (feature: number) => model[feature] ?? 0,
    categoryOf: (feature: number) => category[feature] ?? 0,
    subCategoryOf: ({ subCategory }: Piece) => subCategoryIndexes.get(subCategory) ?? 0,
  };
}

function compressed(bytes: Buffer): Buffer {
  return brotliCompressSync(bytes, {
    params: {
      [constants.BROTLI_PARAM_QUALITY]: brotliQuality,
      [constants.BROTLI_PARAM_LGWIN]: 22,
      [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length,
    },
  });
}
