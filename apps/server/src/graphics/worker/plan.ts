import type { SnapshotDb } from '@itwin/core-backend';
import {
  GeometryStreamIterator,
  type GeometricElement2dProps,
  type GeometryParams,
  type GeometryPartProps,
  type SubCategoryProps,
} from '@itwin/core-common';
import { Angle, CurveCollection, CurvePrimitive, LineString3d, StrokeOptions } from '@itwin/core-geometry';
import type { Mesh } from './geometry.ts';

/** The part of iTwin.js that reads elements. */
export type ElementReader = Pick<SnapshotDb, 'elements'>;

/** Lines of one colour. */
interface PlanLines {
  mesh: Mesh;
  tbgr: number;
}

/** The lines of one colour while they are collected. */
interface Found {
  points: number[];
  indices: number[];
}

/** Angle between neighbouring segments of a curve. */
const strokes = StrokeOptions.createForCurves();
strokes.angleTol = Angle.createDegrees(15);

/** Reads the lines of two-dimensional elements from their geometry, because `exportGraphics` gives nothing for them. */
export class PlanReader {
  readonly #db: ElementReader;
  /** Colours of subcategories. */
  readonly #colours = new Map<string, number>();

  constructor(db: ElementReader) {
    this.#db = db;
  }

  /** The lines of an element: curves and outlines. Texts, images and fillings are left out. */
  linesOf(id: string): PlanLines[] {
    const props = this.#db.elements.getElementProps<GeometricElement2dProps>({ id, wantGeometry: true });
    const found = new Map<number, Found>();
    this.#collect(GeometryStreamIterator.fromGeometricElement2d(props), found, true);
    return [...found].map(([tbgr, { points, indices }]) => ({
      tbgr,
      mesh: { points: Float64Array.from(points), indices: Int32Array.from(indices) },
    }));
  }

  #collect(entries: GeometryStreamIterator, found: Map<number, Found>, withParts: boolean): void {
    for (const { primitive, localToWorld, geomParams } of entries) {
      if (primitive.type === 'partReference' && withParts) {
        const part = this.#db.elements.getElementProps<GeometryPartProps>({
          id: primitive.part.id,
          wantGeometry: true,
        });
        const place = primitive.part.toLocal;
        const toWorld =
          localToWorld === undefined || place === undefined
            ? (localToWorld ?? place)
            : localToWorld.multiplyTransformTransform(place);
        // Parts cannot refer to parts.
        this.#collect(GeometryStreamIterator.fromGeometryPart(part, geomParams, toWorld), found, false);
      }
      if (primitive.type !== 'geometryQuery') continue;
      const tbgr = this.#colourOf(geomParams);
      let lines = found.get(tbgr);
      if (lines === undefined) found.set(tbgr, (lines = { points: [], indices: [] }));
      // The iterator has placed the geometry already.
      for (const line of linesIn(primitive.geometry)) {
        for (let n = 0; n < line.numPoints(); n++) {
          const { x = 0, y = 0 } = line.pointAt(n) ?? {};
          const at = lines.points.push(x, y, 0) / 3 - 1;
          if (n > 0) lines.indices.push(at - 1, at);
        }
      }
    }
  }

  #colourOf({ lineColor, subCategoryId }: GeometryParams): number {
    if (lineColor !== undefined) return lineColor.tbgr;
    const known = this.#colours.get(subCategoryId);
    if (known !== undefined) return known;
    const colour = this.#db.elements.tryGetElementProps<SubCategoryProps>(subCategoryId)?.appearance?.color ?? 0;
    this.#colours.set(subCategoryId, colour);
    return colour;
  }
}

function linesIn(geometry: unknown): LineString3d[] {
  if (geometry instanceof CurvePrimitive) {
    const line = LineString3d.create();
    geometry.emitStrokes(line, strokes);
    return [line];
  }
  if (geometry instanceof CurveCollection) return (geometry.children ?? []).flatMap((child: unknown) => linesIn(child));
  return [];
}
