import { mkdirSync, rmSync } from 'node:fs';
import path from 'node:path';
import {
  BriefcaseDb,
  BriefcaseManager,
  ElementOwnsExternalSourceAspects,
  IModelHost,
  IModelNative,
  PhysicalModel,
  SnapshotDb,
  SpatialCategory,
  type IModelDb,
} from '@itwin/core-backend';
import { DbResult, Guid, type Id64String } from '@itwin/core-bentley';
import {
  Code,
  ColorDef,
  GeometryStreamBuilder,
  IModel,
  type ExternalSourceAspectProps,
  type PhysicalElementProps,
} from '@itwin/core-common';
import { Point3d, Sphere } from '@itwin/core-geometry';
import { startOnOffshoot } from '../packages/itwinjs/src/index.ts';

/**
 * Creates and reads real iModels with iTwin.js, for the demo and the tests. The calls of iTwin.js block, so the server
 * must run in another process.
 */
export class RealModels {
  readonly #folder: string;

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * @param folder folder for temporary files
   * @param origin address of the server
   * @param token access token of the user, or a function that returns it
   */
  static async start(folder: string, origin: string, token: string | (() => string)): Promise<RealModels> {
    mkdirSync(folder, { recursive: true });
    await startOnOffshoot({
      server: origin,
      getAccessToken: async () => `Bearer ${typeof token === 'string' ? token : token()}`,
      cacheDir: folder,
    });
    return new RealModels(folder);
  }

  async stop(): Promise<void> {
    await IModelHost.shutdown();
  }

  /** Creates an iModel from a baseline with a model and a category, through the hub access of iTwin.js. */
  async create(iTwinId: string, name: string): Promise<string> {
    const file = path.join(this.#folder, `${Guid.createValue()}.bim`);
    const db = SnapshotDb.createEmpty(file, { rootSubject: { name } });
    PhysicalModel.insert(db, IModel.rootSubjectId, 'Plant');
    SpatialCategory.insert(db, IModel.dictionaryId, 'Vessels', { color: ColorDef.fromString('steelblue').toJSON() });
    db.saveChanges('set up');
    db.close();
    const iModelId = await IModelHost.createNewIModel({ iTwinId, iModelName: name, version0: file });
    rmSync(file, { force: true });
    return iModelId;
  }

  /** Acquires and opens a new briefcase, which is downloaded from the nearest checkpoint. */
  async openBriefcase(iTwinId: string, iModelId: string): Promise<BriefcaseDb> {
    const local = await BriefcaseManager.downloadBriefcase({ iTwinId, iModelId });
    return BriefcaseDb.open(local);
  }

  /** Opens the checkpoint of a changeset read-only. Blocks are downloaded on demand. */
  async openCheckpoint(
    iTwinId: string,
    iModelId: string,
    changeset: { id: string; index: number },
  ): Promise<SnapshotDb> {
    return SnapshotDb.openCheckpoint({ iTwinId, iModelId, changeset });
  }

  /**
   * Inserts a row of spheres, changes the first one and adds an aspect to it, under a lock on the model. Pushes the
   * changes as one changeset, which releases the lock.
   * @returns the id of the changeset
   */
  async pushSpheres(db: BriefcaseDb, count: number, at: number): Promise<string> {
    const { model, category } = this.plantOf(db);
    await db.locks.acquireLocks({ exclusive: model });
    const inserted: Id64String[] = [];
    for (let n = 0; n < count; n++) {
      const builder = new GeometryStreamBuilder();
      builder.appendGeometry(Sphere.createCenterRadius(Point3d.createZero(), 0.4));
      const props: PhysicalElementProps = {
        classFullName: 'Generic:PhysicalObject',
        model,
        category,
        code: Code.createEmpty(),
        userLabel: `vessel ${at}.${n + 1}`,
        placement: { origin: { x: n, y: at, z: 0 }, angles: {} },
        geom: builder.geometryStream,
      };
      inserted.push(db.elements.insertElement(props));
    }
    const [first] = inserted;
    if (first !== undefined) {
      // Changesets should also contain an update and an aspect, not only inserted elements.
      db.elements.updateElement<PhysicalElementProps>({
        ...db.elements.getElementProps<PhysicalElementProps>(first),
        placement: { origin: { x: 0, y: at, z: 1 }, angles: {} },
      });
      const aspect: ExternalSourceAspectProps = {
        classFullName: 'BisCore:ExternalSourceAspect',
        element: new ElementOwnsExternalSourceAspects(first),
        scope: { id: IModel.rootSubjectId },
        identifier: `row ${at}`,
        kind: 'Row',
      };
      db.elements.insertAspect(aspect);
    }
    db.saveChanges(`row ${at}`);
    await db.pushChanges({ description: `row ${at}: ${count} vessels` });
    return db.changeset.id;
  }

  /** The model and the category that `create` inserted. */
  plantOf(db: IModelDb): { model: Id64String; category: Id64String } {
    const one = (ecsql: string): Id64String =>
      db.withPreparedStatement(ecsql, (statement) =>
        statement.step() === DbResult.BE_SQLITE_ROW ? statement.getValue(0).getId() : '',
      );
    return {
      model: one('select ECInstanceId from bis.PhysicalModel limit 1'),
      category: one('select ECInstanceId from bis.SpatialCategory limit 1'),
    };
  }

  /** Inserts an element without FederationGuid, as old applications did. */
  insertWithoutGuid(db: BriefcaseDb, model: Id64String, category: Id64String): void {
    const props: PhysicalElementProps = {
      classFullName: 'Generic:PhysicalObject',
      model,
      category,
      code: Code.createEmpty(),
      federationGuid: Guid.empty,
    };
    db.elements.insertElement(props);
  }

  /** Sorted labels of all physical elements, to compare the contents of iModels. */
  labels(db: IModelDb): string[] {
    return db.withPreparedStatement('select UserLabel from bis.PhysicalElement order by UserLabel', (statement) => {
      const labels: string[] = [];
      while (statement.step() === DbResult.BE_SQLITE_ROW) labels.push(statement.getValue(0).getString());
      return labels;
    });
  }
}

/** The id that iTwin.js computes for a changeset file: SHA-1 over the parent's id and the changes. */
export function computeChangesetId(parentId: string, pathname: string): string {
  return IModelNative.platform.DgnDb.computeChangesetId({ parentId, pathname });
}
