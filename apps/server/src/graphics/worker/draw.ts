import type {
  ExportGraphicsOptions,
  ExportPartDisplayInfo,
  ExportPartInstanceInfo,
  SnapshotDb,
} from '@itwin/core-backend';
import { GeometryClass } from '@itwin/core-common';
import type { DrawingLimits } from '../drawing.ts';
import type { Drawable, Drawables } from './elements.ts';
import { Geometry, type Mesh, type Part } from './geometry.ts';
import { PlanReader, type ElementReader } from './plan.ts';

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

interface Drawn {
  mesh: Mesh;
  tbgr: number;
  lines: boolean;
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
export function draw(
  db: Exporter & ElementReader,
  { elements, is2d }: Pick<Drawables, 'elements' | 'is2d'>,
  origin: readonly [number, number, number],
  { maxTriangles }: Pick<DrawingLimits, 'maxTriangles'>,
  onProgress: (elements: number) => void,
): Drawing {
  const geometry = new Geometry(origin);
  const parts = new Map<string, Part>();
  const plan = is2d ? new PlanReader(db) : undefined;
  const omitted = new Set<number>();
  let triangles = 0;
  let omittedTriangles = 0;
  // Lines take as much memory as triangles, but are not shown as such.
  let cost = 0;
  let at = 0;
  while (at < elements.length && cost <= maxTriangles * (1 - leastShare)) {
    const batch = elements.slice(at, at + batchSize);
    const exported = plan === undefined ? exportBatch(db, batch, geometry, parts) : readBatch(plan, batch);
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
      for (const { mesh, tbgr, lines } of meshes) geometry.place(feature, mesh, tbgr, lines);
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
  for (const { mesh, lines } of meshes)
    if (lines) segments += mesh.indices.length / 2;
    else triangles += mesh.indices.length / 3;
  for (const { part } of uses) {
    triangles += part.triangles;
    for (const { lines, indices } of part.pieces) if (lines) segments += indices / 2;
  }
  return { triangles, cost: triangles + segments };
}

/** Reads two-dimensional elements. One that cannot be read is left without geometry. */
function readBatch(plan: PlanReader, batch: readonly Drawable[]): Batch {
  const drawn = new Map<string, Drawn[]>();
  for (const { id } of batch)
    try {
      drawn.set(
        id,
        plan.linesOf(id).map((lines) => ({ ...lines, lines: true })),
      );
    } catch {
      drawn.delete(id);
    }
  return { drawn, uses: new Map() };
}

function exportBatch(db: Exporter, batch: readonly Drawable[], geometry: Geometry, parts: Map<string, Part>): Batch {
  const found: Batch = { drawn: new Map(), uses: new Map() };
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
    onGraphics: ({ elementId, color, mesh, geometryClass }) => {
      if (isShown(geometryClass)) add(elementId, { mesh, tbgr: color, lines: false });
    },
    onLineGraphics: ({ elementId, color, lines, geometryClass }) => {
      if (isShown(geometryClass)) add(elementId, { mesh: lines, tbgr: color, lines: true });
    },
  };
  db.exportGraphics(options);
  for (const { partId, partInstanceId, displayProps, transform } of partInstanceArray) {
    const key = `${partId} ${JSON.stringify(displayProps)}`;
    let part = parts.get(key);
    if (part === undefined) parts.set(key, (part = exportPart(db, partId, displayProps, geometry)));
    const uses = found.uses.get(partInstanceId);
    if (uses === undefined) found.uses.set(partInstanceId, [{ part, transform }]);
    else uses.push({ part, transform });
  }
}

function exportPart(db: Exporter, partId: string, displayProps: ExportPartDisplayInfo, geometry: Geometry): Part {
  const meshes: Drawn[] = [];
  db.exportPartGraphics({
    elementId: partId,
    displayProps,
    angleTol,
    onPartGraphics: ({ color, mesh, geometryClass }) => {
      if (isShown(geometryClass)) meshes.push({ mesh, tbgr: color, lines: false });
    },
    onPartLineGraphics: ({ color, lines, geometryClass }) => {
      if (isShown(geometryClass)) meshes.push({ mesh: lines, tbgr: color, lines: true });
    },
  });
  return geometry.part(meshes);
}

/** Construction geometry is hidden in the default views of iTwin.js too. */
function isShown(geometryClass: GeometryClass): boolean {
  return geometryClass !== GeometryClass.Construction;
}
