import type { IModelDb, SnapshotDb } from '@itwin/core-backend';
import type { ChangesetFileProps } from '@itwin/core-common';

/** What scripts and tests use of the native part of iTwin.js, which publishes no types for it. */
export interface NativeDb {
  setITwinId(id: string): number;
  setIModelId(id: string): number;
  resetBriefcaseId(id: number): void;
  startCreateChangeset(): ChangesetFileProps;
  completeCreateChangeset(arg: { index: number }): void;
  saveLocalValue(name: string, value: string | undefined): void;
  saveChanges(description?: string): void;
  deleteAllTxns(): void;
}

/** The native database behind an open iModel. iTwin.js keeps it under a symbol of its own. */
export function nativeDbOf(db: IModelDb | SnapshotDb): NativeDb {
  const key = Symbol.for('nativeDb_core-backend_INTERNAL_ONLY_DO_NOT_USE');
  return (db as unknown as Record<symbol, NativeDb>)[key] as NativeDb;
}
