import { randomUUID } from 'node:crypto';
import path from 'node:path';
import { storeId, type Config } from '../config.ts';
import type { Db } from '../db/database.ts';
import { optionalPart } from '../optionalParts.ts';
import type { BlobStore } from './blobStore.ts';
import { DiskSpace } from './diskSpace.ts';
import { FileStore } from './fileStore.ts';
import { GuardedStore } from './guardedStore.ts';
import { ObjectStore } from './objectStore.ts';
import { TracedStore } from './tracedStore.ts';

/** The files of this installation are in a store that is not configured. */
export class OtherStoreError extends Error {
  constructor(found: string, configured: readonly string[]) {
    super(
      `Files of this installation are in the store '${found}', but the configuration names ${configured.map((id) => `'${id}'`).join(', ')}. Configure the store that contains them.`,
    );
    this.name = 'OtherStoreError';
  }
}

/** A configured store belongs to another installation. */
export class ForeignStoreError extends Error {
  constructor(id: string) {
    super(
      `The store '${id}' belongs to another installation, whose files this one would treat as orphans. Configure another folder, bucket, container or prefix. If the other installation no longer exists, remove 'owner' from the store.`,
    );
    this.name = 'ForeignStoreError';
  }
}

/** A store cannot be used. */
export class StoreUnavailableError extends Error {
  constructor(kind: string, cause: unknown) {
    super(`The ${kind} store cannot be used: ${cause instanceof Error ? cause.message : 'no reason was given'}`, {
      cause,
    });
    this.name = 'StoreUnavailableError';
  }
}

type StoreConfig = Config['store'];

/**
 * The stores of an installation, one for each data center. All files of an iTwin are in the store of its data center.
 */
export class Stores {
  readonly home: BlobStore;
  readonly #byId: ReadonlyMap<string, BlobStore>;
  readonly #byDataCenter: ReadonlyMap<string, BlobStore>;

  /** @param byDataCenter stores of further data centers; a data center without an entry uses the home store */
  constructor(home: BlobStore, byDataCenter: ReadonlyMap<string, BlobStore> = new Map()) {
    this.home = home;
    this.#byDataCenter = byDataCenter;
    this.#byId = new Map([home, ...byDataCenter.values()].map((store) => [store.id, store]));
  }

  /** Whether clients access any of the stores directly. */
  get anyDirect(): boolean {
    return this.all.some(({ direct }) => direct !== undefined);
  }

  /** Whether clients upload to any of the stores directly. */
  get anyDirectUploads(): boolean {
    return this.all.some(({ direct }) => direct?.uploads !== undefined);
  }

  get all(): readonly BlobStore[] {
    return [...this.#byId.values()];
  }

  /** The store with an id, as recorded with each blob. */
  get(id: string): BlobStore {
    const store = this.#byId.get(id);
    if (store === undefined) throw new Error(`the store '${id}' is not configured`);
    return store;
  }

  ofDataCenter(name: string): BlobStore {
    return this.#byDataCenter.get(name) ?? this.home;
  }
}

type StoreSettings = Pick<
  Config,
  'dataDir' | 'diskSpace' | 'dataCenter' | 'store' | 'dataCenters' | 'storeTimeoutSeconds'
> & { tracesUrl?: string | undefined };

/**
 * Opens the configured stores. The client libraries of S3 and Azure are loaded only if they are used.
 * @param ending aborts every call when the server shuts down
 * @throws StoreUnavailableError, OtherStoreError, ForeignStoreError
 */
export async function openStores(config: StoreSettings, db: Db, ending?: AbortSignal): Promise<Stores> {
  const opened = new Map<string, BlobStore>();
  const byDataCenter = new Map<string, BlobStore>();
  for (const [dataCenter, settings] of [
    [config.dataCenter, config.store] as const,
    ...Object.entries(config.dataCenters),
  ]) {
    const id = storeId(settings);
    const store = opened.get(id) ?? (await openTraced(id, config, settings, ending));
    opened.set(id, store);
    byDataCenter.set(dataCenter, store);
  }
  const known = [...opened.keys()];
  const other = await db.selectFrom('blob').select('store').where('store', 'not in', known).limit(1).executeTakeFirst();
  if (other !== undefined) throw new OtherStoreError(other.store, known);
  const installation = await installationOf(db);
  for (const [id, store] of opened)
    if ((await claim(store, installation)) !== installation) throw new ForeignStoreError(id);
  return new Stores(byDataCenter.get(config.dataCenter) as BlobStore, byDataCenter);
}

/**
 * Reaches the configured services before the first start of a server: nothing is created, and none is claimed. Folders are
 * left out, because the start creates them.
 * @returns their ids
 * @throws StoreUnavailableError
 */
export async function reachStores(config: StoreSettings): Promise<string[]> {
  const services = new Map(
    [config.store, ...Object.values(config.dataCenters)]
      .filter(({ type }) => type !== 'files')
      .map((settings) => [storeId(settings), settings]),
  );
  for (const [id, settings] of services) {
    const store = await openTraced(id, config, settings, undefined);
    try {
      await store.check();
    } catch (error) {
      throw new StoreUnavailableError(id, error);
    }
  }
  return [...services.keys()];
}

/** Id of this installation, created once and stored in its database. */
async function installationOf(db: Db): Promise<string> {
  const read = () => db.selectFrom('secret').select('value').where('name', '=', 'installation').executeTakeFirst();
  const found = await read();
  if (found !== undefined) return found.value;
  await db
    .insertInto('secret')
    .values({ name: 'installation', value: randomUUID() })
    .onConflict((conflict) => conflict.doNothing())
    .execute();
  return ((await read()) as { value: string }).value;
}

async function claim(store: BlobStore, installation: string): Promise<string> {
  try {
    return await store.claim(installation);
  } catch (error) {
    throw new StoreUnavailableError(store.id, error);
  }
}

async function openTraced(
  id: string,
  {
    dataDir,
    diskSpace,
    tracesUrl,
    storeTimeoutSeconds,
  }: Pick<Config, 'dataDir' | 'diskSpace' | 'storeTimeoutSeconds'> & { tracesUrl?: string | undefined },
  settings: StoreConfig,
  ending: AbortSignal | undefined,
): Promise<BlobStore> {
  try {
    const timeoutMs = storeTimeoutSeconds * 1000;
    const store = new GuardedStore(await open(id, { dataDir, diskSpace }, settings, AbortSignal.timeout(timeoutMs)), {
      timeoutMs,
      ending,
    });
    return tracesUrl === undefined ? store : new TracedStore(store);
  } catch (error) {
    throw new StoreUnavailableError(settings.type, error);
  }
}

async function open(
  id: string,
  { dataDir, diskSpace }: Pick<Config, 'dataDir' | 'diskSpace'>,
  store: StoreConfig,
  signal: AbortSignal,
): Promise<BlobStore> {
  const { folder = 'blobs', bucket = '', container = '', connectionString = '' } = store;
  switch (store.type) {
    case 'files':
      return FileStore.open(id, path.resolve(dataDir, folder), new DiskSpace(path.resolve(dataDir, folder), diskSpace));
    case 's3': {
      const { S3Service } = await optionalPart('s3', () => import('./s3.ts'));
      // A self-hosted S3 server often can be reached only by this server, so direct access is off by default.
      return new ObjectStore(id, await S3Service.open({ ...store, bucket }, { signal }), {
        clients: store.direct ?? store.endpoint === undefined,
        pages: store.directForPages,
      });
    }
    case 'azure': {
      const { AzureService } = await optionalPart('azure', () => import('./azure.ts'));
      const service = await AzureService.open({ ...store, container, connectionString }, { signal });
      if (store.direct === true && service.links === undefined)
        throw new Error('direct links need the key of the account in the connection string');
      return new ObjectStore(id, service, { clients: store.direct ?? true, pages: store.directForPages });
    }
  }
}
