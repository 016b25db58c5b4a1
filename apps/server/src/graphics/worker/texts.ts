import type { SnapshotDb } from '@itwin/core-backend';
import { ElementGeometry, ElementGeometryOpcode, type ElementGeometryDataEntry } from '@itwin/core-common';
import { YawPitchRollAngles } from '@itwin/core-geometry';
import type { Drawable } from './elements.ts';
import type { TilePiece } from './elementTile.ts';
import { drawEach, type ElementDrawer, type Subject } from './plan.ts';

/** The part of iTwin.js that reads the geometry of elements. */
export type GeometryReader = ElementDrawer & Pick<SnapshotDb, 'elementGeometryRequest' | 'fonts'>;

/** What is drawn of an element here. Symbology is the color and the subcategory of the text after it. */
const wanted: readonly number[] = [ElementGeometryOpcode.BasicSymbology, ElementGeometryOpcode.TextString];

/** Whether elements can have texts: each text names a font of the iModel. A list of fonts that cannot be read counts as empty. */
export function hasFonts(db: GeometryReader): boolean {
  try {
    for (const _family of db.fonts.queryMappedFamilies({ includeNonEmbedded: true })) return true;
    return false;
  } catch {
    return false;
  }
}

/**
 * Draws the texts of three-dimensional elements, which `exportGraphics` leaves out. Only the texts are drawn once more, because
 * letters need a tolerance so fine that a curved surface would have millions of triangles. Texts of geometry parts are left out.
 */
export function drawTexts(db: GeometryReader, batch: readonly Drawable[]): Promise<Map<string, TilePiece[]>> {
  return drawEach(db, batch, ({ id, category }) => textsOf(db, id, category));
}

function textsOf(db: GeometryReader, elementId: string, categoryId: string): Subject | undefined {
  let entries: ElementGeometryDataEntry[] = [];
  let toWorld: Float64Array | undefined;
  db.elementGeometryRequest({
    elementId,
    skipBReps: true,
    onGeometry: ({ entryArray, sourceToWorld }) => {
      entries = entryArray.filter(({ opcode }) => wanted.includes(opcode));
      toWorld = sourceToWorld;
    },
  });
  if (toWorld === undefined || !entries.some(({ opcode }) => opcode === ElementGeometryOpcode.TextString))
    return undefined;
  const transform = ElementGeometry.toTransform(toWorld);
  const placement = transform === undefined ? undefined : YawPitchRollAngles.tryFromTransform(transform);
  if (placement?.angles === undefined) return undefined;
  return {
    type: '3d',
    elementId,
    categoryId,
    geometry: { format: 'flatbuffer', data: entries },
    placement: { origin: placement.origin.toJSON(), angles: placement.angles.toJSON() },
  };
}
