import { IModelHost, SettingsPriority, V2CheckpointManager, type IModelHostOptions } from '@itwin/core-backend';
import { BackendIModelsAccess } from '@itwin/imodels-access-backend';

/** Options of `startOnOffshoot`: those of `IModelHost.startup` except `hubAccess`, and the connection to the server. */
export interface OffshootOptions extends Omit<IModelHostOptions, 'hubAccess'> {
  /** Address of the server, such as `http://localhost:4700`, with its path if it is served below one. */
  server: string;
  /** Returns the access token of the user: `Bearer …`. Not needed if `authorizationClient` is given. */
  getAccessToken?: () => Promise<string>;
  /**
   * Lets iTwin.js look up its coordinate system workspaces on the internet when the first iModel is opened. Default: false,
   * because without a network the look-up takes 15 s.
   */
  coordinateSystemWorkspaces?: boolean;
}

/** The properties of a checkpoint's container that are used here, as core-backend declares them. */
interface CheckpointContainer {
  accountName: string;
  sasToken: string;
}
/** The function with which core-backend builds the address of a container from an account name alone. */
interface ContainerAddresses {
  toCloudContainerProps(from: CheckpointContainer): object;
}

/** Account name that Offshoot returns for checkpoints that it serves itself. */
const ownAccount = 'storage';

/**
 * Starts `IModelHost` on an Offshoot server: briefcases, changesets, locks and versions through its API, checkpoints from
 * its containers. Everything above that is unmodified iTwin.js, on plain HTTP too.
 *
 * iTwin.js 5.x builds the address of a checkpoint's container from the name of an Azure account and ignores the address that
 * the API returns. This function therefore replaces the one function that does so; containers in an Azure account keep
 * their address.
 * @throws the errors of `IModelHost.startup`
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
