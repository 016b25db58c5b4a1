/**
 * Writes an iModel with geometry: `plantProcess.ts FILE ELEMENTS [2d]`. Of 100 elements, one is a slab, 11 are columns and
 * 20 are valves, which use a geometry part each; the others are pipes, vessels, panes of glass and wires. A process of
 * its own, because iTwin.js blocks.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import {
  DocumentListModel,
  Drawing,
  DrawingCategory,
  IModelHost,
  PhysicalModel,
  SnapshotDb,
  SpatialCategory,
} from '@itwin/core-backend';
import {
  Code,
  ColorDef,
  GeometryStreamBuilder,
  IModel,
  SubCategoryAppearance,
  type GeometricElement2dProps,
  type GeometryPartProps,
  type PhysicalElementProps,
} from '@itwin/core-common';
import {
  Angle,
  Arc3d,
  Box,
  Cone,
  LineString3d,
  Point3d,
  Range3d,
  Sphere,
  TorusPipe,
  Transform,
} from '@itwin/core-geometry';
import { startITwinJs } from '../../apps/server/src/checkpoints/itwinjs/itwinjs.ts';

const [file = '', countText = '100', kind = '3d'] = process.argv.slice(2);
const count = Number(countText);
/** Elements between two commits. */
const atOnce = 20_000;

/** Always the same numbers from 0 to 1. */
let seed = 7;
function random(): number {
  seed = (seed * 1_103_515_245 + 12_345) & 0x7fffffff;
  return seed / 0x7fffffff;
}

function required<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('the geometry is not valid');
  return value;
}

function insertRooms(db: SnapshotDb): void {
  const drawings = DocumentListModel.insert(db, IModel.rootSubjectId, 'Drawings');
  const model = Drawing.insert(db, drawings, 'Ground floor');
  const category = DrawingCategory.insert(db, IModel.dictionaryId, 'Walls', {
    color: ColorDef.fromString('black').toJSON(),
  });
  for (let n = 0; n < count; n++) {
    const builder = new GeometryStreamBuilder();
    builder.appendGeometry(LineString3d.create([0, 0, 0], [4, 0, 0], [4, 3, 0], [0, 3, 0], [0, 0, 0]));
    builder.appendGeometry(Arc3d.createXY(Point3d.create(2, 1.5, 0), 0.5));
    const props: GeometricElement2dProps = {
      classFullName: 'BisCore:DrawingGraphic',
      model,
      category,
      code: Code.createEmpty(),
      userLabel: `room ${n}`,
      placement: { origin: { x: (n % 20) * 5, y: Math.floor(n / 20) * 4 }, angle: 0 },
      geom: builder.geometryStream,
    };
    db.elements.insertElement(props);
  }
}

function insertPart(db: SnapshotDb, fill: (builder: GeometryStreamBuilder) => void): string {
  const builder = new GeometryStreamBuilder();
  fill(builder);
  const props: GeometryPartProps = {
    classFullName: 'BisCore:GeometryPart',
    model: IModel.dictionaryId,
    code: Code.createEmpty(),
    geom: builder.geometryStream,
  };
  return db.elements.insertElement(props);
}

function insertPlant(db: SnapshotDb): void {
  const model = (name: string): string => PhysicalModel.insert(db, IModel.rootSubjectId, name);
  const models = { structure: model('Structure'), piping: model('Piping'), equipment: model('Equipment') };
  const category = (name: string, colour: string, transp = 0): string =>
    SpatialCategory.insert(
      db,
      IModel.dictionaryId,
      name,
      new SubCategoryAppearance({ color: ColorDef.fromString(colour).toJSON(), transp }),
    );
  const categories = {
    slab: category('Slabs', 'lightgray'),
    column: category('Columns', 'slategray'),
    pipe: category('Pipes', 'steelblue'),
    valve: category('Valves', 'orangered'),
    vessel: category('Vessels', 'goldenrod'),
    glass: category('Glass', 'lightblue', 0.6),
    wire: category('Wires', 'black'),
  };
  const cone = (from: Point3d, to: Point3d, one: number, other: number): Cone =>
    required(Cone.createAxisPoints(from, to, one, other, true));
  const box = (...sides: [number, number, number, number, number, number]): Box =>
    required(Box.createRange(Range3d.createXYZXYZ(...sides), true));
  const zero = Point3d.createZero();
  const valve = insertPart(db, (builder) => {
    builder.appendGeometry(cone(Point3d.create(-0.3, 0, 0), zero, 0.2, 0.05));
    builder.appendGeometry(cone(Point3d.create(0.3, 0, 0), zero, 0.2, 0.05));
    builder.appendGeometry(cone(zero, Point3d.create(0, 0, 0.4), 0.03, 0.03));
    const ring = Transform.createTranslationXYZ(0, 0, 0.4);
    builder.appendGeometry(required(TorusPipe.createInFrame(ring, 0.2, 0.02, Angle.createDegrees(360), false)));
  });
  const column = insertPart(db, (builder) => builder.appendGeometry(box(-0.2, -0.2, 0, 0.2, 0.2, 4)));

  for (let n = 0; n < count; n++) {
    const of = n % 100;
    const cell = Math.floor(n / 100);
    const [left, front] = [(Math.floor(cell / 5) % 12) * 24, Math.floor(cell / 60) * 24];
    const floor = (cell % 5) * 5;
    const at = { x: left + random() * 20, y: front + random() * 20, z: floor };
    const quarter = random() < 0.5 ? 0 : 90;
    const builder = new GeometryStreamBuilder();
    const insert = (into: string, of: string, origin = at, yaw = 0, userLabel: string | undefined = `element ${n}`) => {
      const props: PhysicalElementProps = {
        classFullName: 'Generic:PhysicalObject',
        model: into,
        category: of,
        code: Code.createEmpty(),
        ...(userLabel !== undefined && { userLabel }),
        placement: { origin, angles: { yaw } },
        geom: builder.geometryStream,
      };
      db.elements.insertElement(props);
    };
    if (of === 0) {
      builder.appendGeometry(box(0, 0, 0, 23.5, 23.5, 0.3));
      insert(models.structure, categories.slab, { x: left, y: front, z: floor });
    } else if (of < 12) {
      builder.appendGeometryPart3d(column);
      insert(models.structure, categories.column);
    } else if (of < 55) {
      const width = 0.08 + random() * 0.1;
      builder.appendGeometry(cone(zero, Point3d.create(1 + random() * 8, 0, 0), width, width));
      insert(models.piping, categories.pipe, { ...at, z: floor + 1 + random() * 3 }, quarter);
    } else if (of < 75) {
      builder.appendGeometryPart3d(valve, zero, undefined, 1 + (of % 3) * 0.5);
      insert(models.piping, categories.valve, { ...at, z: floor + 1 + random() * 2 }, random() * 360);
    } else if (of < 85) {
      const radius = 0.4 + random();
      builder.appendGeometry(Sphere.createCenterRadius(zero, radius));
      insert(models.equipment, categories.vessel, { ...at, z: floor + radius });
    } else if (of < 90) {
      builder.appendGeometry(box(0, 0, 0.3, 4, 0.05, 3));
      insert(models.structure, categories.glass, at, quarter);
    } else {
      builder.appendGeometry(LineString3d.create([0, 0, 0], [3, 0, 0.1], [3, 2, 0.1], [5 + random() * 4, 2, 0.3]));
      insert(models.piping, categories.wire, { ...at, z: floor + 4 });
    }
    if (n % atOnce === atOnce - 1) db.saveChanges();
  }
}

// A folder of its own: iTwin.js refuses one that another process uses.
const cacheDir = mkdtempSync(path.join(tmpdir(), 'offshoot-plant-'));
await startITwinJs({ cacheDir });
rmSync(file, { force: true });
const db = SnapshotDb.createEmpty(file, { rootSubject: { name: 'Plant' } });
if (kind === '2d') insertRooms(db);
else insertPlant(db);
db.saveChanges();
db.close();
await IModelHost.shutdown();
rmSync(cacheDir, { recursive: true, force: true });
