import { IModelsClient } from '@itwin/imodels-client-authoring';
import type { AuthorizationCallback } from '@itwin/imodels-client-management';
import { AzureClientStorage, BlockBlobClientWrapperFactory } from '@itwin/object-storage-azure';
import { StrategyClientStorage } from '@itwin/object-storage-core';
import { GoogleClientStorage } from '@itwin/object-storage-google/lib/client/index.js';
import { ClientStorageWrapperFactory } from '@itwin/object-storage-google/lib/client/wrappers/index.js';

/** The official authoring client, and the authorization of one user for its calls. */
export interface Official {
  client: IModelsClient;
  authorization: AuthorizationCallback;
}

/** The published client packages, configured with the address of a server and otherwise unchanged. */
export function clientsOf(origin: string, token: string): Official {
  // The storage clients that the vendor's backends use. The type of each link selects one.
  const cloudStorage = new StrategyClientStorage([
    { instanceName: 'azure', instance: new AzureClientStorage(new BlockBlobClientWrapperFactory()) },
    { instanceName: 'google', instance: new GoogleClientStorage(new ClientStorageWrapperFactory()) },
  ]);
  const client = new IModelsClient({ api: { baseUrl: `${origin}/imodels` }, cloudStorage });
  return { client, authorization: async () => ({ scheme: 'Bearer', token }) };
}
