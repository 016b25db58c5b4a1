import type {
  ExportGraphicsOptions,
  ExportPartDisplayInfo,
  ExportPartInstanceInfo,
  SnapshotDb,
} from '@itwin/core-backend';
import { GeometryClass } from '@itwin/core-common';
import type { DrawingLimits } from '../drawing.ts';
import { boundsOf, type Drawable, type Drawables } from './elements.ts';
import type { TilePiece } from './elementTile.ts';
import { Geometry, type Appearance, type Mesh, type Part } from './geometry.ts';
import { drawPlan } from './plan.ts';
import { drawTexts, hasFonts, type GeometryReader } from './texts.ts';

/** The part of iTwin.js that draws. */
type Exporter = Pick<SnapshotDb, 'exportGraphics' | 'exportPartGraphics'>;

/**
 * Angle between neighbouring facets of a curved surface, radians: 12 facets around a cylinder. It decides how many
 * triangles there are; a chord tolerance changes nothing beside it. The same for every model, because another tolerance
 * would change the hash of every element.
 */
const angleTol = Math.PI / 6;
/** Elements that are exported at once. Each batch is in memory twice. */
const batchSize = 200;
/** Drawing stops when less than this share of the limit is left. */
const leastShare = 0.005;

/** What was drawn, and what did not fit. */
export interface Drawing {
  geometry: Geometry;
  /** Elements that were drawn, by their index. An element without visible geometry counts as drawn. */
  isDrawn: (feature: number) => boolean;
  triangles: number;
  omittedElements: number;
  omittedTriangles: number;
}

/** Share of the extents of a plan that its elements are raised by, so that the smaller ones lie upon the larger ones. */
const planLift = 0.005;

interface Drawn extends Appearance {
  mesh: Mesh;
}
interface Used {
  part: Part;
  transform: Float64Array | undefined;
}

/** One batch of elements as iTwin.js exports it. */
interface Batch {
  drawn: Map<string, Drawn[]>;
  uses: Map<string, Used[]>;
}

/**
 * Draws elements in the given order, the largest ones first, until the limit of triangles is reached. An element that
 * does not fit is left out, and smaller ones may still fit.
 * @param onProgress called after each batch
 */
export async function draw(
  db: Exporter & GeometryReader,
  { elements, is2d }: Pick<Drawables, 'elements' | 'is2d'>,
  origin: readonly [number, number, number],
  { maxTriangles }: Pick<DrawingLimits, 'maxTriangles'>,
  onProgress: (elements: number) => void,
): Promise<Drawing> {
  const geometry = new Geometry(origin);
  const parts = new Map<string, Part>();
  const hasTexts = !is2d && hasFonts(db);
  const lift = is2d ? liftOf(elements) : () => 0;
  const omitted = new Set<number>();
  let triangles = 0;
  let omittedTriangles = 0;
  // Lines take as much memory as triangles, but are not shown as such.
  let cost = 0;
  let at = 0;
  while (at < elements.length && cost <= maxTriangles * (1 - leastShare)) {
    const batch = elements.slice(at, at + batchSize);
    const exported = is2d ? emptyBatch() : exportBatch(db, batch, geometry, parts);
    if (is2d) addPieces(exported, await drawPlan(db, batch));
    if (hasTexts) addPieces(exported, await drawTexts(db, batch));
    let fits = 0;
    batch.forEach(({ id }, n) => {
      const feature = at + n;
      const meshes = exported.drawn.get(id) ?? [];
      const uses = exported.uses.get(id) ?? [];
      const own = costOf(meshes, uses);
      if (cost + own.cost > maxTriangles) {
        omitted.add(feature);
        omittedTriangles += own.triangles;
        return;
      }
      fits++;
      cost += own.cost;
      triangles += own.triangles;
      for (const { mesh, ...appearance } of meshes) geometry.place(feature, mesh, appearance, lift(feature));
      for (const { part, transform } of uses) geometry.use(feature, part, transform);
    });
    at += batch.length;
    onProgress(at);
    if (fits === 0) break;
  }
  return {
    geometry,
    isDrawn: (feature) => feature < at && !omitted.has(feature),
    triangles,
    omittedElements: omitted.size + elements.length - at,
    omittedTriangles,
  };
}

function costOf(meshes: readonly Drawn[], uses: readonly Used[]): { triangles: number; cost: number } {
  let triangles = 0;
  let segments = 0;
  for (const { mesh, kind } of meshes)
    if (kind === 'lines') segments += mesh.indices.length / 2;
    else triangles += mesh.indices.length / 3;
  for (const { part } of uses) {
    triangles += part.triangles;
    for (const { lines, indices } of part.pieces) if (lines) segments += indices / 2;
  }
  return { triangles, cost: triangles + segments };
}

/** Heights of the elements of a plan, which are sorted from the largest to the smallest. */
function liftOf(elements: readonly Drawable[]): (feature: number) => number {
  const { low, high } = boundsOf(elements.map(({ box }) => box)) ?? { low: [0, 0, 0], high: [0, 0, 0] };
  const all = planLift * Math.max(high[0] - low[0], high[1] - low[1]);
  return (feature) => (all * feature) / elements.length;
}

function emptyBatch(): Batch {
  return { drawn: new Map(), uses: new Map() };
}

/** Adds what was drawn of elements one by one. */
function addPieces({ drawn }: Batch, found: ReadonlyMap<string, readonly TilePiece[]>): void {
  for (const [id, pieces] of found)
    drawn.set(id, [
      ...(drawn.get(id) ?? []),
      ...pieces.map(({ points, indices, ...appearance }) => ({
        ...appearance,
        mesh: { points: Float64Array.from(points), indices: Int32Array.from(indices), isTwoSided: true },
      })),
    ]);
}

function exportBatch(db: Exporter, batch: readonly Drawable[], geometry: Geometry, parts: Map<string, Part>): Batch {
  const found = emptyBatch();
  const ids = batch.map(({ id }) => id);
  try {
    exportInto(db, ids, found, geometry, parts);
  } catch {
    // One element that cannot be drawn must not take the others of its batch along.
    found.drawn.clear();
    found.uses.clear();
    for (const id of ids) {
      try {
        exportInto(db, [id], found, geometry, parts);
      } catch {
        found.drawn.delete(id);
        found.uses.delete(id);
      }
    }
  }
  return found;
}

function exportInto(db: Exporter, ids: string[], found: Batch, geometry: Geometry, parts: Map<string, Part>): void {
  const add = (id: string, drawn: Drawn): void => {
    const all = found.drawn.get(id);
    if (all === undefined) found.drawn.set(id, [drawn]);
    else all.push(drawn);
  };
  const partInstanceArray: ExportPartInstanceInfo[] = [];
  const options: ExportGraphicsOptions = {
    elementIdArray: ids,
    angleTol,
    partInstanceArray,
    onGraphics: ({ elementId, color, mesh, geometryClass, subCategory, textureId }) => {
      if (isShown(geometryClass))
        add(elementId, { mesh, tbgr: color, kind: 'surface', subCategory, texture: textureId });
    },
    onLineGraphics: ({ elementId, color, lines, geometryClass, subCategory }) => {
      if (isShown(geometryClass)) add(elementId, { mesh: lines, tbgr: color, kind: 'lines', subCategory });
    },
  };
  db.exportGraphics(options);
  for (const { partId, partInstanceId, displayProps, transform } of partInstanceArray) {
    const key = `${partId} ${JSON.stringify(displayProps)}`;
    let part = parts.get(key);
    if (part === undefined) parts.set(key, (part = exportPart(db, partId, displayProps, geometry)));
    const uses = found.uses.get(partInstanceId);
    const use = { part, transform };
    if (uses === undefined) found.uses.set(partInstanceId, [use]);
    else uses.push(use);
  }
}

function exportPart(db: Exporter, partId: string, displayProps: ExportPartDisplayInfo, geometry: Geometry): Part {
  const meshes: Drawn[] = [];
  const subCategory = displayProps.subCategoryId;
  db.exportPartGraphics({
    elementId: partId,
    displayProps,
    angleTol,
    onPartGraphics: ({ color, mesh, geometryClass, textureId }) => {
      if (isShown(geometryClass)) meshes.push({ mesh, tbgr: color, kind: 'surface', subCategory, texture: textureId });
    },
    onPartLineGraphics: ({ color, lines, geometryClass }) => {
      if (isShown(geometryClass)) meshes.push({ mesh: lines, tbgr: color, kind: 'lines', subCategory });
    },
  });
  return geometry.part(meshes);
}

/** Construction geometry is hidden in the default views of iTwin.js too. */
function isShown(geometryClass: GeometryClass): boolean {
  return geometryClass !== GeometryClass.Construction;
}
