import path from 'node:path';
import type { Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import type { BlobStore } from './blobStore.ts';
import { FileStore } from './fileStore.ts';
import { ObjectStore } from './objectStore.ts';

/** The files of this installation lie in another store than the configured one. */
export class OtherStoreError extends Error {
  constructor(found: string, configured: string) {
    super(`The files of this installation lie in the store '${found}', the configuration names '${configured}'. Configure the store that holds them.`);
    this.name = 'OtherStoreError';
  }
}

/** A store cannot be used. */
export class StoreUnavailableError extends Error {
  constructor(kind: string, cause: unknown) {
    super(`The ${kind} store cannot be used: ${cause instanceof Error ? cause.message : 'no reason was given'}`, { cause });
    this.name = 'StoreUnavailableError';
  }
}

/**
 * Opens the store that the configuration names. The libraries of services are loaded only where they are used.
 * @throws StoreUnavailableError, OtherStoreError
 */
export async function openStore(config: Pick<Config, 'dataDir' | 'store'>, db: Db): Promise<BlobStore> {
  const store = await open(config).catch((error: unknown) => {
    throw new StoreUnavailableError(config.store.type, error);
  });
  const other = await db.selectFrom('blob').select('store').where('store', '!=', store.id).limit(1).executeTakeFirst();
  if (other !== undefined) throw new OtherStoreError(other.store, store.id);
  return store;
}

async function open({ dataDir, store }: Pick<Config, 'dataDir' | 'store'>): Promise<BlobStore> {
  const { bucket = '', container = '', connectionString = '' } = store;
  switch (store.type) {
    case 'files':
      return FileStore.open('files', path.join(dataDir, 'blobs'));
    case 's3': {
      const { S3Service } = await import('./s3.ts');
      return new ObjectStore(`s3:${bucket}`, await S3Service.open({ ...store, bucket }));
    }
    case 'azure': {
      const { AzureService } = await import('./azure.ts');
      return new ObjectStore(`azure:${container}`, await AzureService.open({ ...store, container, connectionString }));
    }
  }
}
