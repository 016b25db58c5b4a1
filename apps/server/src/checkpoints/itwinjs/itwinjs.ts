import { IModelHost, SettingsPriority, type IModelDb, type IModelHostOptions } from '@itwin/core-backend';

/** The functions of the native part of iTwin.js that this project uses. iTwin.js publishes no types for them. */
export interface NativeDb {
  setITwinId(id: string): number;
  saveChanges(description?: string): void;
}

/**
 * Starts iTwin.js without its coordinate system workspaces. Otherwise it would request them from the internet when it
 * opens the first file, which takes 15 s on a machine without internet access.
 */
export async function startITwinJs(options: IModelHostOptions): Promise<void> {
  await IModelHost.startup(options);
  IModelHost.appWorkspace.settings.addDictionary(
    { name: 'offshoot', priority: SettingsPriority.application },
    { 'itwin/core/gcs/disableWorkspaces': true },
  );
}

/** The native database of an open iModel. iTwin.js stores it under a private symbol. */
export function nativeDbOf(db: IModelDb): NativeDb {
  const key = Symbol.for('nativeDb_core-backend_INTERNAL_ONLY_DO_NOT_USE');
  return (db as unknown as Record<symbol, NativeDb>)[key] as NativeDb;
}
