/**
 * Writes an iModel whose appearance is known: `drawingProcess.ts FILE plan|textured`. The plan has a red region of 10 by 8 metres, on it a
 * smaller yellow one and a text in blue, which is in a subcategory of its own, and a green region in a subcategory that is invisible by
 * itself. The textured model has a box with a picture in magenta and lime beside an orange box of another subcategory, a
 * picture that is larger than the viewer needs, one whose file is cut off, and an orange sign with a text in blue. A process of its own,
 * because iTwin.js blocks.
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
  RenderMaterialElement,
  SnapshotDb,
  SpatialCategory,
  SubCategory,
  Texture,
} from '@itwin/core-backend';
import {
  Code,
  ColorDef,
  FillDisplay,
  FontType,
  GeometryParams,
  GeometryStreamBuilder,
  ImageSourceFormat,
  IModel,
  SubCategoryAppearance,
  TextString,
  type GeometricElement2dProps,
  type PhysicalElementProps,
} from '@itwin/core-common';
import { Box, LineString3d, Loop, Range3d } from '@itwin/core-geometry';
import { startITwinJs } from '../../apps/server/src/checkpoints/itwinjs/itwinjs.ts';
import { writePng } from '../../apps/server/src/graphics/worker/png.ts';

const [file = '', kind = 'plan'] = process.argv.slice(2);

function appearance(colour: string, invisible = false): SubCategoryAppearance {
  return new SubCategoryAppearance({ color: ColorDef.fromString(colour).toJSON(), invisible });
}

function rectangle(x0: number, y0: number, x1: number, y1: number): Loop {
  return Loop.create(LineString3d.create([x0, y0], [x1, y0], [x1, y1], [x0, y1], [x0, y0]));
}

async function insertPlan(db: SnapshotDb): Promise<void> {
  const model = Drawing.insert(db, DocumentListModel.insert(db, IModel.rootSubjectId, 'Drawings'), 'Plan');
  const category = DrawingCategory.insert(db, IModel.dictionaryId, 'Rooms', appearance('black'));
  const notes = SubCategory.insert(db, category, 'Notes', appearance('blue'));
  const drafts = SubCategory.insert(db, category, 'Drafts', appearance('black', true));
  const font = await db.fonts.acquireId({ name: 'Arial', type: FontType.TrueType });
  const insert = (
    userLabel: string,
    origin: { x: number; y: number },
    subCategory: string | undefined,
    append: (builder: GeometryStreamBuilder, params: GeometryParams) => void,
  ): void => {
    const builder = new GeometryStreamBuilder();
    append(builder, new GeometryParams(category, subCategory));
    const props: GeometricElement2dProps = {
      classFullName: 'BisCore:DrawingGraphic',
      model,
      category,
      code: Code.createEmpty(),
      userLabel,
      placement: { origin, angle: 0 },
      geom: builder.geometryStream,
    };
    db.elements.insertElement(props);
  };
  const filled = (colour: string, region: Loop) => (builder: GeometryStreamBuilder, params: GeometryParams) => {
    params.fillDisplay = FillDisplay.Always;
    params.fillColor = ColorDef.fromString(colour);
    builder.appendGeometryParamsChange(params);
    builder.appendGeometry(region);
  };
  insert('room', { x: 100, y: 50 }, undefined, filled('red', rectangle(0, 0, 10, 8)));
  insert('carpet', { x: 101, y: 51 }, undefined, filled('yellow', rectangle(0, 0, 3, 6)));
  insert('draft', { x: 106, y: 51 }, drafts, filled('lime', rectangle(0, 0, 3, 2)));
  insert('note', { x: 105, y: 54 }, notes, (builder, params) => {
    builder.appendGeometryParamsChange(params);
    builder.appendTextString(new TextString({ text: 'HALL', font, height: 1.5, bold: true }));
  });
}

/** A picture of two colours, magenta at the left and lime at the right. */
function twoColours(size: number): string {
  const rgb = new Uint8Array(size * size * 3);
  for (let n = 0; n < size * size; n++) rgb.set(n % size < size / 2 ? [255, 0, 255] : [0, 255, 0], n * 3);
  return writePng(rgb, size, size).toString('base64');
}

async function insertTextured(db: SnapshotDb): Promise<void> {
  const model = PhysicalModel.insert(db, IModel.rootSubjectId, 'Boxes');
  const category = SpatialCategory.insert(db, IModel.dictionaryId, 'Boxes', appearance('gray'));
  const second = SubCategory.insert(db, category, 'Second', appearance('orange'));
  const signs = SubCategory.insert(db, category, 'Signs', appearance('blue'));
  const font = await db.fonts.acquireId({ name: 'Arial', type: FontType.TrueType });
  const material = (name: string, picture: string): string => {
    const texture = Texture.insertTexture(db, IModel.dictionaryId, `${name} picture`, ImageSourceFormat.Png, picture);
    return RenderMaterialElement.insert(db, IModel.dictionaryId, name, {
      paletteName: 'test',
      patternMap: { TextureId: texture, pattern_scale: [1, 1] },
    });
  };
  const insert = (
    x: number,
    set: (params: GeometryParams) => void,
    range = Range3d.createXYZXYZ(0, 0, 0, 4, 4, 4),
    text?: TextString,
  ): void => {
    const params = new GeometryParams(category);
    set(params);
    const builder = new GeometryStreamBuilder();
    builder.appendGeometryParamsChange(params);
    const box = Box.createRange(range, true);
    if (box === undefined) throw new Error('the geometry is not valid');
    builder.appendGeometry(box);
    if (text !== undefined) {
      builder.appendGeometryParamsChange(new GeometryParams(category, signs));
      builder.appendTextString(text);
    }
    const props: PhysicalElementProps = {
      classFullName: 'Generic:PhysicalObject',
      model,
      category,
      code: Code.createEmpty(),
      placement: { origin: { x, y: 0, z: 0 }, angles: {} },
      geom: builder.geometryStream,
    };
    db.elements.insertElement(props);
  };
  const small = material('small', twoColours(64));
  const large = material('large', twoColours(1600));
  const broken = material('broken', twoColours(64).slice(0, 120));
  insert(0, (params) => (params.materialId = small));
  insert(5, (params) => (params.materialId = large));
  insert(10, (params) => (params.subCategoryId = second));
  insert(15, (params) => (params.materialId = broken));
  insert(
    10,
    (params) => (params.subCategoryId = second),
    Range3d.createXYZXYZ(0, 2, 4, 5, 2.1, 6),
    new TextString({ text: 'STOP', font, height: 1.2, bold: true, origin: [0.5, 1.95, 4.4], rotation: { roll: 90 } }),
  );
}

// A folder of its own: iTwin.js refuses one that another process uses.
const cacheDir = mkdtempSync(path.join(tmpdir(), 'offshoot-drawing-'));
await startITwinJs({ cacheDir });
rmSync(file, { force: true });
const db = SnapshotDb.createEmpty(file, { rootSubject: { name: 'Drawing' } });
if (kind === 'plan') await insertPlan(db);
else await insertTextured(db);
db.saveChanges();
db.close();
await IModelHost.shutdown();
rmSync(cacheDir, { recursive: true, force: true });
