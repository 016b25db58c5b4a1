import { IModelHost, SettingsPriority, V2CheckpointManager, type IModelHostOptions } from '@itwin/core-backend';
import { BackendIModelsAccess } from '@itwin/imodels-access-backend';

/** How an iTwin.js backend reaches an Offshoot server; everything else is iTwin.js's own. */
export interface OffshootOptions extends Omit<IModelHostOptions, 'hubAccess'> {
  /** Address of the server, such as `http://localhost:4700`, with its path if it is served below one. */
  server: string;
  /** Gives the token of whoever works: `Bearer …`. Not needed where `authorizationClient` is given. */
  getAccessToken?: () => Promise<string>;
  /**
   * Lets iTwin.js look for its coordinate system workspaces on the internet when the first iModel is opened. Off by default:
   * without a network that takes 15 s.
   */
  coordinateSystemWorkspaces?: boolean;
}

/** What core-backend knows of a checkpoint's container; the part that is of use here. */
interface CheckpointContainer {
  accountName: string;
  sasToken: string;
}
/** core-backend makes the address of a container of an account name alone, by this function. */
interface ContainerAddresses {
  toCloudContainerProps(from: CheckpointContainer): object;
}

/** Account name that Offshoot gives for checkpoints that it serves itself. */
const ownAccount = 'storage';

/**
 * Starts `IModelHost` on an Offshoot server: briefcases, changesets, locks and versions through its API, checkpoints from
 * its containers. Everything above that is unmodified iTwin.js, on plain HTTP too.
 *
 * iTwin.js (5.x) makes the address of a checkpoint's container from the name of an Azure account and drops the address that
 * the API gives. So the one function that does this is replaced; containers in an Azure account keep their address.
 * @throws whatever `IModelHost.startup` throws
 */
export async function startOnOffshoot(options: OffshootOptions): Promise<void> {
  const { server, getAccessToken, coordinateSystemWorkspaces, ...host } = options;
  let address = server;
  while (address.endsWith('/')) address = address.slice(0, -1);
  serveCheckpointsFrom(`${address}/${ownAccount}`);
  await IModelHost.startup({
    ...host,
    hubAccess: new BackendIModelsAccess({ api: { baseUrl: `${address}/imodels` } }),
    ...(getAccessToken !== undefined && { authorizationClient: { getAccessToken } }),
  });
  if (coordinateSystemWorkspaces !== true)
    IModelHost.appWorkspace.settings.addDictionary(
      { name: 'offshoot', priority: SettingsPriority.application },
      { 'itwin/core/gcs/disableWorkspaces': true },
    );
}

function serveCheckpointsFrom(baseUri: string): void {
  const addresses = V2CheckpointManager as unknown as ContainerAddresses;
  const standard = addresses.toCloudContainerProps.bind(V2CheckpointManager);
  addresses.toCloudContainerProps = (from) =>
    from.accountName === ownAccount ? { ...standard(from), baseUri } : standard(from);
}
