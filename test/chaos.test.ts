import assert from 'node:assert/strict';
import { fork, type ChildProcess } from 'node:child_process';
import { randomBytes, randomUUID } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import path from 'node:path';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import pg from 'pg';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import { openDatabase } from '../apps/server/src/db/database.ts';
import { openStores } from '../apps/server/src/storage/stores.ts';
import { verify } from '../apps/server/src/verify/verify.ts';
import { Api, type Answer } from './support/api.ts';
import { changesetIdOf } from './support/clients.ts';
import { freePort } from './support/freePort.ts';
import { Installation, people, setups } from './support/server.ts';

const cli = fileURLToPath(new URL('../apps/server/src/cli.ts', import.meta.url));
const clients = 12;
const runMs = 25_000;
/** One of the servers is killed this often, and every connection to PostgreSQL is cut in between. */
const killEveryMs = 3000;
const giveUpMs = 30_000;
const [setup] = setups.filter(({ engine }) => engine === 'postgres');

/** What a client knows: only what was acknowledged to it. */
interface Reference {
  iModelId: string;
  briefcaseId: number;
  changesets: string[];
  clones: Map<string, string[]>;
  deleted: string[];
}

describe('Two servers on one PostgreSQL', { skip: setup === undefined ? 'there is no PostgreSQL' : false }, () => {
  test('keep every promise while they and their connections are killed under load', { timeout: 150_000 }, async () => {
    const installation = await Installation.create(setup as NonNullable<typeof setup>);
    const ports = [await freePort(), await freePort()];
    const config = (n: number) => installation.config({ port: ports[n] as number, databasePool: 12, shutdownSeconds: 1, collector: { intervalSeconds: 1, graceSeconds: 0 } });
    const servers: ChildProcess[] = [];
    const start = async (n: number): Promise<void> => {
      const file = path.join(installation.dataDir, `server-${n}.json`);
      writeFileSync(file, JSON.stringify(config(n)));
      const child = fork(cli, ['start', '--config', file], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] });
      servers[n] = child;
      await new Promise<void>((resolve, reject) => {
        child.once('message', () => resolve());
        child.once('exit', () => reject(new Error('the server ended while it started')));
      });
    };
    const kill = async (n: number): Promise<void> => {
      const ended = new Promise((resolve) => servers[n]?.once('exit', resolve));
      servers[n]?.kill('SIGKILL');
      await ended;
    };
    try {
      await start(0);
      await start(1);
      const issuer = await EmbeddedIssuer.open(installation.dataDir);
      const token = await issuer.mint(people.olivia, { applicationId: 'suite', scope: 'itwin-platform', lifeSeconds: 3600 });
      const apis = ports.map((port) => new Api(`http://127.0.0.1:${port}`, token));

      /** Asks until there is a definite answer, of whichever server. */
      const ask = async (method: string, url: string, body?: unknown): Promise<Answer> => {
        for (const until = Date.now() + giveUpMs; ; ) {
          const api = apis[Math.floor(Math.random() * apis.length)] as Api;
          const answer = await api.send(method, url, body).catch(() => undefined);
          if (answer !== undefined && answer.status < 500) return answer;
          if (Date.now() > until) throw new Error(`${method} ${url} got no answer: ${answer?.status}`);
          await pause(50);
        }
      };
      const created = await ask('POST', '/itwins', { displayName: 'Chaos', class: 'Endeavor', subClass: 'Project' });
      const iTwinId = (created.body as { iTwin: { id: string } }).iTwin.id;
      const byName = async (name: string): Promise<string> => {
        const { body } = await ask('GET', `/imodels?iTwinId=${iTwinId}&name=${name}`);
        const [found] = (body as { iModels: { id: string }[] }).iModels;
        assert.ok(found !== undefined, `${name} was said to exist`);
        return found.id;
      };
      /** Creates by a name of its own: an answer that was lost is found by that. */
      const make = async (url: string, body: object): Promise<string> => {
        const name = randomUUID();
        const answer = await ask('POST', url, { iTwinId, name, ...body });
        assert.ok([201, 202, 409].includes(answer.status), `${url}: ${answer.status} ${JSON.stringify(answer.body)}`);
        return byName(name);
      };

      const push = async (reference: Reference): Promise<void> => {
        const bytes = randomBytes(300);
        const parentId = reference.changesets.at(-1) ?? '';
        const id = changesetIdOf(parentId, bytes);
        const base = `/imodels/${reference.iModelId}/changesets`;
        for (;;) {
          const begun = await ask('POST', base, { id, parentId, briefcaseId: reference.briefcaseId, fileSize: bytes.length });
          // Complete already: only the answer was lost.
          if (begun.status === 409 && (begun.body as { error: { code: string } }).error.code === 'ChangesetExists') break;
          assert.equal(begun.status, 201, JSON.stringify(begun.body));
          const { _links } = (begun.body as { changeset: { _links: { upload: { href: string } } } }).changeset;
          const uploaded = await fetch(_links.upload.href, { method: 'PUT', body: bytes, headers: { 'x-ms-blob-type': 'BlockBlob' } }).then(({ status }) => status, () => 0);
          if (uploaded !== 201) continue;
          const completed = await ask('PATCH', `${base}/${id}`, { state: 'fileUploaded', briefcaseId: reference.briefcaseId });
          if (completed.status === 200) break;
          assert.equal(completed.status, 404, JSON.stringify(completed.body));
        }
        reference.changesets.push(id);
      };
      const seen = async (iModelId: string): Promise<string[]> => {
        const { body } = await ask('GET', `/imodels/${iModelId}/changesets?$top=1000`);
        return (body as { changesets: { id: string }[] }).changesets.map(({ id }) => id);
      };

      const until = Date.now() + runMs;
      const references: Reference[] = [];
      const client = async (): Promise<void> => {
        const iModelId = await make('/imodels', {});
        const { body } = await ask('POST', `/imodels/${iModelId}/briefcases`, {});
        const reference: Reference = { iModelId, briefcaseId: (body as { briefcase: { briefcaseId: number } }).briefcase.briefcaseId, changesets: [], clones: new Map(), deleted: [] };
        references.push(reference);
        while (Date.now() < until) {
          const dice = Math.random();
          const [some] = reference.clones.keys();
          if (dice < 0.45) await push(reference);
          else if (dice < 0.75) {
            const index = Math.floor(Math.random() * (reference.changesets.length + 1));
            reference.clones.set(await make(`/imodels/${iModelId}/clone`, { changesetIndex: index }), reference.changesets.slice(0, index));
          } else if (dice < 0.85 && some !== undefined) {
            const deleted = await ask('DELETE', `/imodels/${some}`);
            assert.ok(deleted.status === 204 || deleted.status === 404);
            reference.clones.delete(some);
            reference.deleted.push(some);
          } else assert.deepEqual(await seen(iModelId), reference.changesets);
        }
      };
      let over = false;
      const killer = (async () => {
        for (let round = 0; !over; round++) {
          await pause(killEveryMs);
          if (over) return;
          if (round % 3 === 2) await cutConnections(installation.databaseUrl ?? '');
          else {
            await kill(round % 2);
            await start(round % 2);
          }
        }
      })();
      await Promise.all(Array.from({ length: clients }, client));
      over = true;
      await killer;

      let pushes = 0;
      let clones = 0;
      for (const reference of references) {
        assert.deepEqual(await seen(reference.iModelId), reference.changesets);
        for (const [id, expected] of reference.clones) assert.deepEqual(await seen(id), expected, `clone ${id}`);
        for (const id of reference.deleted) assert.equal((await ask('GET', `/imodels/${id}`)).status, 404);
        pushes += reference.changesets.length;
        clones += reference.clones.size + reference.deleted.length;
      }
      assert.ok(pushes > 10 && clones > 10, `${pushes} pushes, ${clones} clones`);
      await Promise.all([kill(0), kill(1)]);

      const database = await openDatabase(config(0));
      assert.deepEqual(await database.db.selectFrom('operation').select('id').where('state', '!=', 'successful').execute(), []);
      const found = await verify(database.db, await openStores(config(0), database.db), true);
      assert.deepEqual(found.faults, []);
      await database.close();
    } finally {
      for (const child of servers) child.kill('SIGKILL');
      installation.remove();
    }
  });
});

/** Ends every connection of the installation, as a restart of PostgreSQL does. */
async function cutConnections(databaseUrl: string): Promise<void> {
  const client = new pg.Client({ connectionString: databaseUrl });
  client.on('error', () => undefined);
  await client.connect();
  await client.query('select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()');
  await client.end();
}
