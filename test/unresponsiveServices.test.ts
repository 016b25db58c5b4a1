import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import { buffer } from 'node:stream/consumers';
import { after, before, describe, test } from 'node:test';
import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import type { ConfigInput } from '../apps/server/src/config.ts';
import { Pool } from '../apps/server/src/db/postgres/pool.ts';
import { outageOf } from '../apps/server/src/outages.ts';
import type { Schema } from '../apps/server/src/db/schema.ts';
import { StoreTimeoutError, type BlobStore } from '../apps/server/src/storage/blobStore.ts';
import { openStores } from '../apps/server/src/storage/stores.ts';
import { openDatabase, type Database } from '../apps/server/src/db/database.ts';
import { Api } from './support/api.ts';
import { ServerProcess } from './support/serverProcess.ts';
import { all, makeIModel, official } from './support/clients.ts';
import { startProxy, type FreezableProxy } from './support/proxy.ts';
import { Installation, setups, storeConfig } from './support/server.ts';
import { until } from './support/until.ts';

/** All timeouts of hanging calls are far below this, so a call without a timeout fails the test. */
const timeout = 120_000;

/** The store of a setup, behind a proxy. */
async function storeBehindProxy(
  store: 's3' | 'azure',
): Promise<{ proxy: FreezableProxy; settings: NonNullable<ConfigInput['store']> }> {
  const settings = storeConfig(store, false);
  const address = /127\.0\.0\.1:(\d+)/.exec(settings.endpoint ?? settings.connectionString ?? '')?.[1];
  const proxy = await startProxy(Number(address));
  const through = (text: string) => text.replace(`127.0.0.1:${address}`, `127.0.0.1:${proxy.port}`);
  return {
    proxy,
    settings: {
      name: 'frozen',
      ...settings,
      ...(settings.endpoint !== undefined && { endpoint: through(settings.endpoint) }),
      ...(settings.connectionString !== undefined && { connectionString: through(settings.connectionString) }),
    },
  };
}

for (const { store: kind } of setups.filter(({ store }) => store !== 'files')) {
  if (kind === 'files') continue;
  describe(`A store on ${kind} that stops answering`, { timeout }, () => {
    let installation: Installation;
    let database: Database;
    let proxy: FreezableProxy;
    let store: BlobStore;
    before(async () => {
      installation = await Installation.create('sqlite');
      database = await openDatabase(installation.config());
      const behind = await storeBehindProxy(kind);
      proxy = behind.proxy;
      store = (await openStores(installation.config({ store: behind.settings, storeTimeoutSeconds: 2 }), database.db))
        .home;
    });
    after(async () => {
      proxy.thaw();
      await proxy.stop();
      await database.close();
      installation.remove();
    });

    test('fails every call within its timeout, and works again when it recovers', async () => {
      const [key, bytes] = [randomUUID(), randomBytes(300_000)];
      await store.put(key, Readable.from([bytes]), bytes.length);
      proxy.freeze();
      const calls: Record<string, () => Promise<unknown>> = {
        put: () => store.put(randomUUID(), Readable.from([bytes]), bytes.length),
        stageBlock: () => store.stageBlock(randomUUID(), 'QQ==', Readable.from([bytes]), bytes.length),
        commitBlocks: () => store.commitBlocks(randomUUID(), randomUUID(), ['QQ=='], 1),
        read: () => store.read(key),
        check: () => store.check(),
        claim: () => store.claim(randomUUID()),
        delete: () => store.delete(key),
        list: () => all(store.list()),
        copyFrom: async () => store.copyFrom?.(store, key, randomUUID(), bytes.length),
      };
      await Promise.all(Object.entries(calls).map(([name, call]) => assert.rejects(call, StoreTimeoutError, name)));
      proxy.thaw();
      assert.deepEqual(await buffer(await store.read(key)), bytes);
    });

    test('ends a download that it began', async () => {
      const [key, bytes] = [randomUUID(), randomBytes(20_000_000)];
      await store.put(key, Readable.from([bytes]), bytes.length);
      const stream = await store.read(key);
      let read = 0;
      await assert.rejects(async () => {
        for await (const chunk of stream) {
          read += (chunk as Buffer).length;
          proxy.freeze();
        }
      }, StoreTimeoutError);
      proxy.thaw();
      assert.ok(read < bytes.length);
    });

    test('ends a call at once when its signal is aborted', async () => {
      proxy.freeze();
      const abort = new AbortController();
      const reason = new Error('nobody waits for it any more');
      const call = store.list({ signal: abort.signal })[Symbol.asyncIterator]().next();
      abort.abort(reason);
      await assert.rejects(call, reason);
      proxy.thaw();
    });
  });

  describe(`Copies into a store on ${kind} that stops answering`, { timeout }, () => {
    test('block nobody else, and continue when it recovers', async () => {
      const { proxy, settings } = await storeBehindProxy(kind);
      const installation = await Installation.create('sqlite');
      const server = await installation.start({
        dataCenters: { North: { type: 'files', folder: 'north' }, West: settings },
        storeTimeoutSeconds: 2,
        transfers: { slots: 1, firstRetrySeconds: 0, attemptsWithoutProgress: 1000 },
      });
      try {
        const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 2 });
        const api = await server.as('olivia');
        const order = async (dataCenter: string): Promise<string> => {
          const { headers } = await api.post(`/imodels/${source.id}/clone`, {
            iTwinId: await server.iTwin('olivia', undefined, dataCenter),
            name: randomUUID(),
          });
          return (headers.get('location') ?? '').slice(-36);
        };
        const successful = (id: string) =>
          until(`the copy ${id}`, async () => {
            const { createOperation } = (await api.get(`/imodels/${id}/operations/create`)).body as {
              createOperation: { state: string };
            };
            return createOperation.state === 'successful' ? true : undefined;
          });
        proxy.freeze();
        const held = await order('West');
        await until(
          'the first attempt',
          async () =>
            (await server.services.database.db
              .selectFrom('job')
              .select('id')
              .where('subject_id', '=', held)
              .where('state', '=', 'running')
              .executeTakeFirst()) ?? undefined,
        );
        await successful(await order('North'));
        proxy.thaw();
        await successful(held);
      } finally {
        proxy.thaw();
        await server.close();
        await proxy.stop();
        installation.remove();
      }
    });

    test('do not keep a server from exiting after SIGTERM', async () => {
      const { proxy, settings } = await storeBehindProxy(kind);
      const installation = await Installation.create('sqlite');
      const input: ConfigInput = { dataCenters: { West: settings }, shutdownSeconds: 1 };
      const first = await installation.start(input);
      const source = await makeIModel(await official(first), await first.iTwin(), { changesets: 2 });
      const far = await first.iTwin('olivia', undefined, 'West');
      const token = await first.token('olivia');
      await first.close();
      const child = new ServerProcess(installation.config(input));
      try {
        await child.start();
        proxy.freeze();
        const api = new Api(child.origin, token);
        await api.post(`/imodels/${source.id}/clone`, { iTwinId: far, name: randomUUID() });
        // A request that waits for the store does not delay the exit either.
        void api.get('/health/ready').catch(() => undefined);
        await child.end('SIGTERM');
        const database = await openDatabase(installation.config());
        const jobs = await database.db.selectFrom('job').select(['state', 'attempt']).execute();
        await database.close();
        assert.deepEqual(
          jobs.map(({ state }) => state),
          ['ready'],
          'the job was handed back',
        );
      } finally {
        await child.end();
        proxy.thaw();
        await proxy.stop();
        installation.remove();
      }
    });
  });
}

describe(
  'A PostgreSQL that stops answering',
  { timeout, skip: setups.some(({ engine }) => engine === 'postgres') ? false : 'there is no PostgreSQL' },
  () => {
    let installation: Installation;
    let proxy: FreezableProxy;
    let url: string;
    before(async () => {
      installation = await Installation.create('postgres');
      const direct = new URL(installation.databaseUrl as string);
      proxy = await startProxy(Number(direct.port));
      url = Object.assign(direct, { hostname: '127.0.0.1', port: String(proxy.port) }).href;
    });
    after(async () => {
      proxy.thaw();
      await proxy.stop();
      installation.remove();
    });

    test('fails the statement within its timeout, and the next one uses a new connection', async () => {
      const pool = new pg.Pool({ connectionString: url, max: 1, query_timeout: 500 });
      pool.on('error', () => undefined);
      pool.on('connect', (client) => client.on('error', () => undefined));
      const db = new Kysely<Schema>({ dialect: new PostgresDialect({ pool: new Pool(pool, true, 500) }) });
      const ask = () => db.selectNoFrom((eb) => eb.lit(1).as('one')).execute();
      await ask();
      proxy.freeze();
      await assert.rejects(ask(), (error) => outageOf(error) === 'unavailable');
      proxy.thaw();
      assert.deepEqual(await ask(), [{ one: 1 }]);
      await db.destroy();
    });

    test('does not keep a server from exiting after SIGTERM', async () => {
      const child = new ServerProcess({ ...installation.config({ shutdownSeconds: 1 }), databaseUrl: url });
      await child.start();
      proxy.freeze();
      void fetch(`${child.origin}/health/ready`).catch(() => undefined);
      await child.end('SIGTERM');
      proxy.thaw();
    });
  },
);
