import { IModelsClient } from '@itwin/imodels-client-authoring';
import type { AuthorizationCallback } from '@itwin/imodels-client-management';
import { AzureClientStorage, BlockBlobClientWrapperFactory } from '@itwin/object-storage-azure';
import { StrategyClientStorage } from '@itwin/object-storage-core';
import { GoogleClientStorage } from '@itwin/object-storage-google/lib/client/index.js';
import { ClientStorageWrapperFactory } from '@itwin/object-storage-google/lib/client/wrappers/index.js';

/** The official authoring client as one person, with what its calls want each time. */
export interface Official {
  client: IModelsClient;
  authorization: AuthorizationCallback;
}

/** The published client packages, pointed at a server and nothing else changed. */
export function clientsOf(origin: string, token: string): Official {
  // The two that the vendor's backends use: the type of each link picks one.
  const cloudStorage = new StrategyClientStorage([
    { instanceName: 'azure', instance: new AzureClientStorage(new BlockBlobClientWrapperFactory()) },
    { instanceName: 'google', instance: new GoogleClientStorage(new ClientStorageWrapperFactory()) },
  ]);
  const client = new IModelsClient({ api: { baseUrl: `${origin}/imodels` }, cloudStorage });
  return { client, authorization: async () => ({ scheme: 'Bearer', token }) };
}
