import { randomUUID } from 'node:crypto';
import type { Checkpoints } from '../checkpoints/checkpoints.ts';
import type { Database, Tx } from '../db/database.ts';
import type { IModelTable } from '../db/schema.ts';
import { lockInitializedIModel } from '../db/statements/lockIModel.ts';
import { receiversOf, type Receivers } from '../events/events.ts';
import { enqueue } from '../operations/jobs.ts';
import type { Quotas } from '../quotas/quotas.ts';
import type { BlobStore } from '../storage/blobStore.ts';
import type { Stores } from '../storage/stores.ts';
import { beginTransfer } from '../transfer/begin.ts';
import { cloneInOneStatement } from './cloneStatement.ts';
import {
  baselineView,
  inheritedProperties,
  insertDerivedIModel,
  remoteStoreFor,
  viewUpTo,
  withForeignKeyRetry,
  type CloneRequest,
  type DerivedIModel,
  type DeriveRequest,
} from './copyIModel.ts';
import { deriveJob, type DerivePayload } from './deriveJob.ts';

interface CloningParts {
  database: Database;
  stores: Stores;
  quotas: Quotas;
  /** Enabled if some server of the installation runs iTwin.js, which a new baseline needs. */
  checkpoints: Pick<Checkpoints, 'enabled'>;
}

export interface ForkRequest extends CloneRequest {
  /** If false, the changesets become part of a new baseline. */
  preserveHistory: boolean;
}

export interface TemplateRequest
  extends
    DeriveRequest,
    Pick<DerivedIModel, 'name' | 'description' | 'extent' | 'containersEnabled' | 'geographicCrs'> {
  /** The changeset whose state becomes the new baseline; null for the template's baseline. */
  changesetId: string | null;
}

/** Thrown if a new baseline is needed and no server of this installation has iTwin.js. */
export class CannotSquashError extends Error {
  constructor() {
    super('no server of this installation can apply changesets: iTwin.js is not installed');
    this.name = 'CannotSquashError';
  }
}

/** The three ways to derive an iModel from another one. */
export class Cloning {
  readonly #parts: CloningParts;

  constructor(parts: CloningParts) {
    this.#parts = parts;
  }

  /**
   * Clones an iModel. Within one store this is one transaction, and the clone is complete, durable and usable when the
   * method returns. Into another data center the clone is accepted here and its files are copied by a durable job.
   *
   * A clone is a row with the source's baseline, the source's history and a head that limits what it sees of that history.
   * No changeset row and no blob is copied, so the cost is the same for 0 and 100,000 changesets and at any depth of
   * history. Checkpoints belong to changesets, so the clone has those of the source too.
   * @returns the id of the clone
   * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; QuotaExceededError
   */
  async clone(request: CloneRequest): Promise<string> {
    const { database } = this.#parts;
    const done = await cloneInOneStatement(this.#parts, request);
    if (done !== undefined) return done;
    return withForeignKeyRetry(database, async (tx) => {
      const { source, receivers } = await this.#begin(tx, request);
      // Clone rule: nothing is synchronized afterwards.
      // The head is fixed in this transaction: a later push to the source gets a higher index.
      const view = await viewUpTo(tx, source, request.upTo);
      return this.#derive(tx, request, {
        squash: false,
        wantsGuids: false,
        imodel: {
          source,
          target: request.target,
          receivers,
          ...inheritedProperties(source, request),
          view,
          operation: {
            kind: 'clone',
            changesets: view.head_index,
            cloned_from_imodel_id: source.id,
            cloned_from_changeset_id: view.head_changeset_id,
          },
        },
      });
    });
  }

  /**
   * Forks an iModel: a clone that also records what it was forked from. Without history, a job makes a new baseline of the
   * changesets. Rule of the API: if an element has no FederationGuid, by which a fork is merged later, the create operation
   * ends in a state of its own. Only iTwin.js can tell, so a fork with history is not searched where iTwin.js does not run.
   * @returns the id of the fork
   * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; CannotSquashError, QuotaExceededError
   */
  fork(request: ForkRequest): Promise<string> {
    const { database } = this.#parts;
    return withForeignKeyRetry(database, async (tx) => {
      const { source, receivers } = await this.#begin(tx, request);
      const view = await viewUpTo(tx, source, request.upTo);
      const squash = !request.preserveHistory && view.head_index > 0;
      return this.#derive(tx, request, {
        squash,
        wantsGuids: true,
        imodel: {
          source,
          target: request.target,
          receivers,
          ...inheritedProperties(source, request),
          view,
          operation: {
            kind: 'fork',
            changesets: squash ? 0 : view.head_index,
            forked_from_imodel_id: source.id,
            forked_from_changeset_id: view.head_changeset_id,
            relationship_id: randomUUID(),
          },
        },
      });
    });
  }

  /**
   * Creates an iModel from a template: from its baseline at once, or from its state at a changeset, of which a job makes a
   * new baseline. Rule of the API: neither description nor extent are the template's.
   * @returns the id of the iModel
   * @throws ApiError iModelNotFound, iModelNotInitialized, ChangesetNotFound, iModelExists; CannotSquashError, QuotaExceededError
   */
  createFromTemplate(request: TemplateRequest): Promise<string> {
    const { database } = this.#parts;
    const { target, name, description, extent, containersEnabled, geographicCrs } = request;
    return withForeignKeyRetry(database, async (tx) => {
      const { source, receivers } = await this.#begin(tx, request);
      const view = await viewUpTo(tx, source, { id: request.changesetId ?? '' });
      return this.#derive(tx, request, {
        squash: view.head_index > 0,
        wantsGuids: false,
        imodel: {
          source,
          target,
          receivers,
          name,
          description,
          extent,
          containersEnabled,
          geographicCrs,
          view,
          operation: { kind: 'template', changesets: 0 },
        },
      });
    });
  }

  /** Locks the source for a copy, and reads what the end of the transaction needs. */
  async #begin(
    tx: Tx,
    { source: { imodel }, target }: DeriveRequest,
  ): Promise<{ source: IModelTable; receivers: Promise<Receivers> }> {
    const locked = lockInitializedIModel(tx, this.#parts.database.engine, imodel.id, 'clone');
    const receivers = receiversOf(tx, target.itwin.id);
    return { source: await locked, receivers };
  }

  /** Inserts the new iModel, and schedules the work that remains. */
  async #derive(
    tx: Tx,
    { caller, source, target }: DeriveRequest,
    { imodel, squash, wantsGuids }: Omit<DerivePayload, 'order'> & { imodel: Omit<DerivedIModel, 'state'> },
  ): Promise<string> {
    const { quotas, stores, checkpoints } = this.#parts;
    if (squash && !checkpoints.enabled) throw new CannotSquashError();
    const needsJob = squash || (wantsGuids && checkpoints.enabled);
    const remoteStore: BlobStore | undefined = remoteStoreFor(stores, source, target);
    const order = { caller, fromIModelId: imodel.source.id };
    // Until its job has run, the new iModel refers to the history it is made from, so that the source may be deleted.
    // A squashed one has no pushes.
    const view = squash
      ? { ...imodel.view, last_pushed_at: null }
      : imodel.view.head_index === 0
        ? baselineView
        : imodel.view;
    const state = !needsJob && remoteStore === undefined ? 'initialized' : 'notInitialized';
    const id = await insertDerivedIModel(tx, caller, quotas, { ...imodel, view, state });
    if (needsJob)
      await enqueue(tx, {
        kind: deriveJob,
        subjectId: id,
        tenant: target.itwin.id,
        userId: caller.user.id,
        payload: { squash, wantsGuids, order } satisfies DerivePayload,
      });
    else if (remoteStore !== undefined)
      await beginTransfer(
        tx,
        { ...view, id, itwin_id: target.itwin.id, baseline_id: imodel.source.baseline_id },
        remoteStore,
        order,
      );
    return id;
  }
}
