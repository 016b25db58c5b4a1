import { DatabaseSync } from 'node:sqlite';
import type { Box } from '../drawing.ts';

/** An element with geometry. */
export interface Drawable {
  /** Hexadecimal, such as `0x1f`. */
  id: string;
  classId: number;
  label: string | null;
  model: string;
  category: string;
  /** x, y, z of the low and of the high corner, metres. */
  box: readonly [number, number, number, number, number, number];
}

/** The elements to draw, the largest ones first, and the names of what they refer to. */
export interface Drawables {
  elements: Drawable[];
  /** Elements beyond the limit. */
  omitted: number;
  is2d: boolean;
  classNames: ReadonlyMap<number, string>;
  /** Labels of models and categories by their ids. */
  labels: ReadonlyMap<string, string>;
}

interface Row {
  id: string;
  classId: number;
  userLabel: string | null;
  code: string | null;
  model: string;
  category: string;
}
type SpatialRow = Row & Record<'x0' | 'y0' | 'z0' | 'x1' | 'y1' | 'z1', number>;
type PlaneRow = Row & Record<'x' | 'y' | 'angle' | 'x0' | 'y0' | 'x1' | 'y1', number>;

/** Ids can be larger than a number holds exactly. */
const idOf = (column: string): string => `printf('0x%x', ${column})`;
const common = `${idOf('e.Id')} as id, e.ECClassId as classId, e.UserLabel as userLabel, e.CodeValue as code,
  ${idOf('e.ModelId')} as model, ${idOf('g.CategoryId')} as category`;
const visible = `g.GeometryStream is not null and e.ModelId not in (select Id from bis_Model where IsPrivate = 1 or IsTemplate = 1)`;

/**
 * Reads the elements with geometry, through SQLite: BisCore maps these tables in the same way in every iModel, and one
 * sorted statement needs no page that is sorted again. Extents come from the spatial index, because those of the project are often far too large.
 * @param most elements to return; the smaller ones are counted only
 */
export function readDrawables(file: string, most: number): Drawables {
  const db = new DatabaseSync(file, { readOnly: true });
  try {
    db.exec('pragma trusted_schema = off');
    const spatial = largest(
      db
        .prepare(
          `select ${common}, s.MinX as x0, s.MinY as y0, s.MinZ as z0, s.MaxX as x1, s.MaxY as y1, s.MaxZ as z1
        from bis_GeometricElement3d g join bis_Element e on e.Id = g.ElementId join dgn_SpatialIndex s on s.ElementId = g.ElementId
        where ${visible}
        order by (s.MaxX - s.MinX) * (s.MaxX - s.MinX) + (s.MaxY - s.MinY) * (s.MaxY - s.MinY) + (s.MaxZ - s.MinZ) * (s.MaxZ - s.MinZ) desc, e.Id`,
        )
        .iterate() as Iterable<unknown> as Iterable<SpatialRow>,
      most,
      (row) => [row.x0, row.y0, row.z0, row.x1, row.y1, row.z1],
    );
    const is2d = spatial.elements.length === 0;
    const { elements, omitted } = is2d
      ? largest(
          db
            .prepare(
              `select ${common}, g.Origin_X as x, g.Origin_Y as y, coalesce(g.Rotation, 0) as angle,
            g.BBoxLow_X as x0, g.BBoxLow_Y as y0, g.BBoxHigh_X as x1, g.BBoxHigh_Y as y1
            from bis_GeometricElement2d g join bis_Element e on e.Id = g.ElementId
            where ${visible} and g.Origin_X is not null and g.BBoxLow_X is not null
            order by (g.BBoxHigh_X - g.BBoxLow_X) * (g.BBoxHigh_X - g.BBoxLow_X) + (g.BBoxHigh_Y - g.BBoxLow_Y) * (g.BBoxHigh_Y - g.BBoxLow_Y) desc, e.Id`,
            )
            .iterate() as Iterable<unknown> as Iterable<PlaneRow>,
          most,
          rotated,
        )
      : spatial;
    return {
      elements,
      omitted,
      is2d: is2d && elements.length > 0,
      classNames: classNamesIn(db),
      labels: labelsOf(db, elements),
    };
  } finally {
    db.close();
  }
}

function largest<R extends Row>(
  rows: Iterable<R>,
  most: number,
  boxOf: (row: R) => Drawable['box'],
): { elements: Drawable[]; omitted: number } {
  const elements: Drawable[] = [];
  let omitted = 0;
  for (const row of rows) {
    const box = boxOf(row);
    if (elements.length >= most || !box.every(Number.isFinite)) {
      omitted++;
      continue;
    }
    const { id, classId, model, category } = row;
    elements.push({ id, classId, label: row.userLabel ?? row.code, model, category, box });
  }
  return { elements, omitted };
}

/** The box around a rotated rectangle. */
function rotated({ x, y, angle, x0, y0, x1, y1 }: PlaneRow): Drawable['box'] {
  const [cos, sin] = [Math.cos((angle * Math.PI) / 180), Math.sin((angle * Math.PI) / 180)];
  const corners = [
    [x0, y0],
    [x1, y0],
    [x0, y1],
    [x1, y1],
  ] as const;
  const xs = corners.map(([u, v]) => x + u * cos - v * sin);
  const ys = corners.map(([u, v]) => y + u * sin + v * cos);
  return [Math.min(...xs), Math.min(...ys), 0, Math.max(...xs), Math.max(...ys), 0];
}

function classNamesIn(db: DatabaseSync): Map<number, string> {
  const rows = db
    .prepare("select c.Id as id, s.Name || ':' || c.Name as name from ec_Class c join ec_Schema s on s.Id = c.SchemaId")
    .all() as { id: number; name: string }[];
  return new Map(rows.map(({ id, name }) => [id, name]));
}

function labelsOf(db: DatabaseSync, elements: readonly Drawable[]): Map<string, string> {
  const find = db.prepare('select coalesce(UserLabel, CodeValue) as label from bis_Element where Id = ?');
  const labels = new Map<string, string>();
  for (const id of new Set(elements.flatMap(({ model, category }) => [model, category])))
    labels.set(id, (find.get(BigInt(id)) as { label: string | null } | undefined)?.label ?? id);
  return labels;
}

/** The box around all boxes; undefined if there are none. */
export function boundsOf(boxes: Iterable<Drawable['box']>): Box | undefined {
  const low: Box['low'] = [Infinity, Infinity, Infinity];
  const high: Box['high'] = [-Infinity, -Infinity, -Infinity];
  for (const box of boxes)
    for (const axis of [0, 1, 2] as const) {
      low[axis] = Math.min(low[axis], box[axis]);
      high[axis] = Math.max(high[axis], box[(axis + 3) as 3 | 4 | 5]);
    }
  return low[0] <= high[0] ? { low, high } : undefined;
}
