import { isITwinJsInstalled } from '../checkpoints/itwinjs/workerProcess.ts';

/** Whether iTwin.js and the packages of the interfaces of viewers are installed. */
export function isViewerInstalled(): boolean {
  try {
    for (const name of ['@itwin/presentation-backend', '@itwin/ecschema-rpcinterface-impl']) import.meta.resolve(name);
    return isITwinJsInstalled();
  } catch {
    return false;
  }
}
