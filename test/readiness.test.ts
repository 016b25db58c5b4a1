import assert from 'node:assert/strict';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { describe, test } from 'node:test';
import pg from 'pg';
import { openDatabase } from '../apps/server/src/db/database.ts';
import { Readiness } from '../apps/server/src/wiring/readiness.ts';
import type { WireError } from './support/api.ts';
import { startPostgres } from './support/postgres.ts';
import { engines, Installation, setups, storeConfig, type TestServer } from './support/server.ts';
import { until } from './support/until.ts';

const skip = engines.includes('postgres') ? false : 'there is no PostgreSQL';

/** Requests readiness, which must answer within 2 s: the request is aborted then. */
async function readiness(server: TestServer): Promise<{ status: number; reasons: string[] }> {
  const response = await fetch(`${server.origin}/health/ready`, { signal: AbortSignal.timeout(2000) });
  return { status: response.status, reasons: ((await response.json()) as { reasons?: string[] }).reasons ?? [] };
}

/** Passes bytes to a service until it is frozen: then it still accepts connections and never answers. */
async function freezableProxy(
  address: string,
): Promise<{ address: string; freeze(): void; thaw(): void; close(): void }> {
  const to = new URL(address);
  const sockets = new Set<Socket>();
  let frozen = false;
  const proxy = createServer((client) => {
    const service = connect(Number(to.port), to.hostname);
    for (const socket of [client, service]) {
      sockets.add(socket);
      socket.on('error', () => undefined).on('close', () => sockets.delete(socket));
    }
    client.on('data', (bytes) => frozen || service.write(bytes)).on('close', () => service.destroy());
    service.on('data', (bytes) => frozen || client.write(bytes)).on('close', () => client.destroy());
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  return {
    address: `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`,
    freeze: () => (frozen = true),
    thaw() {
      frozen = false;
      // Bytes sent while frozen are lost: the connections cannot be used again.
      for (const socket of sockets) socket.destroy();
    },
    close() {
      for (const socket of sockets) socket.destroy();
      proxy.close();
    },
  };
}

test('readiness probes an unresponsive service only once, however often readiness is requested', async () => {
  let begun = 0;
  let end!: () => void;
  const hanging = new Promise<void>((resolve) => (end = resolve));
  const ready = new Readiness([{ reason: 'hangs', check: () => (begun++, hanging) }]);
  const [first, second] = await Promise.all([ready.missing(), ready.missing()]);
  assert.deepEqual(
    [first.map(({ reason }) => reason), second.map(({ reason }) => reason), begun],
    [['hangs'], ['hangs'], 1],
  );
  end();
  await until('it is ready again', async () => (await ready.missing()).length === 0 || undefined);
});

describe('With a frozen PostgreSQL', { skip }, () => {
  test('readiness answers within 2 s with the reason, and recovers with PostgreSQL', async () => {
    const postgres = await startPostgres();
    const installation = await Installation.create('postgres', postgres.url);
    const server = await installation.start({ databasePool: 4, databaseWaitSeconds: 2 });
    try {
      const api = await server.as('olivia');
      assert.equal((await api.get('/itwins')).status, 200);
      assert.equal((await readiness(server)).status, 200);
      postgres.freeze();
      try {
        // More often than there are connections.
        for (let n = 0; n < 6; n++)
          assert.deepEqual(await readiness(server), { status: 503, reasons: ['The database does not answer.'] });
        assert.equal((await fetch(`${server.origin}/health`)).status, 200);
      } finally {
        postgres.thaw();
      }
      await until('it is ready', async () => (await readiness(server)).status === 200 || undefined);
      assert.equal((await api.get('/itwins')).status, 200);
    } finally {
      await server.close();
      installation.remove();
      await postgres.stop();
    }
  });
});

for (const setup of setups.filter(({ store }) => store !== 'files')) {
  test(`with a frozen store of type ${setup.store}, readiness answers within 2 s with the reason, and recovers with the store`, async () => {
    const address = (
      setup.store === 's3' ? process.env['OFFSHOOT_TEST_S3'] : process.env['OFFSHOOT_TEST_AZURE']
    ) as string;
    const proxy = await freezableProxy(address);
    const config = storeConfig(setup.store);
    const store =
      setup.store === 's3'
        ? { ...config, endpoint: proxy.address }
        : {
            ...config,
            connectionString: (config as { connectionString: string }).connectionString.replaceAll(
              address,
              proxy.address,
            ),
          };
    const installation = await Installation.create(setup);
    const server = await installation.start({ store });
    try {
      assert.equal((await readiness(server)).status, 200);
      proxy.freeze();
      for (let n = 0; n < 2; n++)
        assert.deepEqual(await readiness(server), { status: 503, reasons: ['The store of files does not answer.'] });
      // Requests that need no file continue to work.
      assert.equal((await (await server.as('olivia')).get('/itwins')).status, 200);
      proxy.thaw();
      await until('it is ready', async () => (await readiness(server)).status === 200 || undefined);
    } finally {
      await server.close();
      proxy.close();
      installation.remove();
    }
  });
}

describe('With too many clients on PostgreSQL', { skip }, () => {
  /** A database whose owner, not a superuser, has this connection limit. */
  async function limitedDatabase(
    connections: number,
  ): Promise<{ installation: Installation; url: string; asSuperuser: pg.Client }> {
    const installation = await Installation.create('postgres');
    const asSuperuser = new pg.Client({ connectionString: installation.databaseUrl });
    await asSuperuser.connect();
    const url = new URL(installation.databaseUrl as string);
    const name = url.pathname.slice(1);
    await asSuperuser.query(`create role r_${name} login`);
    await asSuperuser.query(`alter database ${name} owner to r_${name}`);
    await asSuperuser.query(`alter schema public owner to r_${name}`);
    await asSuperuser.query(`alter role r_${name} connection limit ${connections}`);
    url.username = `r_${name}`;
    return { installation, url: url.href, asSuperuser };
  }

  test('requests wait for a connection', async () => {
    const { installation, url, asSuperuser } = await limitedDatabase(3);
    const server = await installation.start({ databaseUrl: url, databasePool: 16 });
    try {
      const api = await server.as('olivia');
      const answers = await Promise.all(Array.from({ length: 60 }, () => api.get('/itwins')));
      assert.deepEqual([...new Set(answers.map(({ status }) => status))], [200]);
    } finally {
      await server.close();
      await asSuperuser.end();
      installation.remove();
    }
  });

  test('requests answer 503 with Retry-After when no connection becomes free in time', async () => {
    const { installation, url, asSuperuser } = await limitedDatabase(5);
    const server = await installation.start({ databaseUrl: url, databasePool: 5, databaseWaitSeconds: 0.5 });
    const database = await openDatabase({ ...installation.config({ databasePool: 2 }), databaseUrl: url });
    try {
      const api = await server.as('olivia');
      assert.equal((await api.get('/itwins')).status, 200);
      await asSuperuser.query(`alter role ${new URL(url).username} connection limit 0`);
      await asSuperuser.query(`select pg_terminate_backend(pid) from pg_stat_activity where usename = $1`, [
        new URL(url).username,
      ]);
      const refused = await until('a request is refused', async () => {
        const answer = await api.get('/itwins');
        return answer.status === 200 ? undefined : answer;
      });
      assert.deepEqual(
        [refused.status, (refused.body as WireError).error.code, Number(refused.headers.get('retry-after')) > 0],
        [503, 'Unavailable', true],
      );
      await asSuperuser.query(`alter role ${new URL(url).username} connection limit 5`);
      await until('requests are answered again', async () => (await api.get('/itwins')).status === 200 || undefined);
    } finally {
      await database.close();
      await server.close();
      await asSuperuser.end();
      installation.remove();
    }
  });
});
