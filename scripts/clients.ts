import { IModelsClient } from '@itwin/imodels-client-authoring';
import type { AuthorizationCallback } from '@itwin/imodels-client-management';
import { AzureClientStorage, BlockBlobClientWrapperFactory } from '@itwin/object-storage-azure';

/** The official authoring client as one person, with what its calls want each time. */
export interface Official {
  client: IModelsClient;
  authorization: AuthorizationCallback;
}

/** The published client packages, pointed at a server and nothing else changed. */
export function clientsOf(origin: string, token: string): Official {
  const client = new IModelsClient({ api: { baseUrl: `${origin}/imodels` }, cloudStorage: new AzureClientStorage(new BlockBlobClientWrapperFactory()) });
  return { client, authorization: async () => ({ scheme: 'Bearer', token }) };
}
