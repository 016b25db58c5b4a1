import { IModelHost, SettingsPriority, type IModelDb, type IModelHostOptions } from '@itwin/core-backend';

/** What this project uses of the native part of iTwin.js, which publishes no types for it. */
export interface NativeDb {
  setITwinId(id: string): number;
  saveChanges(description?: string): void;
}

/**
 * Starts iTwin.js without its coordinate system workspaces: it would look for them on the internet at the first open,
 * which takes 15 s where there is none.
 */
export async function startITwinJs(options: IModelHostOptions): Promise<void> {
  await IModelHost.startup(options);
  IModelHost.appWorkspace.settings.addDictionary(
    { name: 'offshoot', priority: SettingsPriority.application },
    { 'itwin/core/gcs/disableWorkspaces': true },
  );
}

/** The native database behind an open iModel. iTwin.js keeps it under a symbol of its own. */
export function nativeDbOf(db: IModelDb): NativeDb {
  const key = Symbol.for('nativeDb_core-backend_INTERNAL_ONLY_DO_NOT_USE');
  return (db as unknown as Record<symbol, NativeDb>)[key] as NativeDb;
}
