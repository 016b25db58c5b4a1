import assert from 'node:assert/strict';
import { randomBytes, randomUUID } from 'node:crypto';
import { describe, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { EmbeddedIssuer } from '../apps/server/src/access/embeddedIssuer.ts';
import { openDatabase } from '../apps/server/src/db/database.ts';
import { openStores } from '../apps/server/src/storage/stores.ts';
import { verify } from '../apps/server/src/maintenance/verify.ts';
import { Api, type Answer } from './support/api.ts';
import { ServerProcess } from './support/serverProcess.ts';
import { changesetIdOf } from './support/clients.ts';
import { freePort } from './support/freePort.ts';
import { startPostgres } from './support/postgres.ts';
import { Installation, people, setups, type Setup } from './support/server.ts';
import { until } from './support/until.ts';

/** For a longer run with more clients: `OFFSHOOT_CHAOS_CLIENTS=50 OFFSHOOT_CHAOS_SECONDS=180 npm test -- test/chaos.test.ts`. */
const clients = Number(process.env['OFFSHOOT_CHAOS_CLIENTS'] ?? 12);
const runMs = Number(process.env['OFFSHOOT_CHAOS_SECONDS'] ?? 30) * 1000;
/** Interval of the kills: a server, a worker and PostgreSQL itself, in rotation. */
const killEveryMs = 2500;
const giveUpMs = 60_000;
const west = 'West Europe';
/** Not on s3rver: when its client dies it leaves an incomplete object, which it then cannot list. */
const [setup] = setups.filter(({ engine, store }) => engine === 'postgres' && store === 'azure');

/** The state that a client knows: only what was acknowledged to it. */
interface Reference {
  iModelId: string;
  briefcaseId: number;
  changesets: string[];
  clones: Map<string, string[]>;
  deleted: string[];
}

describe(
  'Two servers and two workers on one PostgreSQL',
  { skip: setup === undefined ? 'there is no PostgreSQL' : false },
  () => {
    test(
      'lose nothing that was acknowledged while they and PostgreSQL itself are killed under load',
      { timeout: runMs + 200_000 },
      async (t) => {
        const postgres = await startPostgres();
        const installation = await Installation.create(setup as Setup, postgres.url);
        const dataCenters = { [west]: { type: 'files' as const, folder: 'west' } };
        const ports = [await freePort(), await freePort()];
        const config = (port: number, here: boolean) =>
          installation.config({
            port,
            databasePool: 12,
            shutdownSeconds: 1,
            jobs: { here, leaseSeconds: 2 },
            transfers: { slots: 8 },
            dataCenters,
            collector: { intervalSeconds: 1, graceSeconds: 0 },
          });
        const servers = ports.map((port) => new ServerProcess(config(port, false)));
        const workers = [0, 1].map(() => new ServerProcess(config(0, true), 'work'));
        let over = false;
        let killing: Promise<void> | undefined;
        try {
          await Promise.all([...servers, ...workers].map((each) => each.start()));
          const issuer = await EmbeddedIssuer.open(installation.dataDir);
          const token = await issuer.mint(people.olivia, {
            applicationId: 'suite',
            scope: 'itwin-platform',
            lifeSeconds: 3600,
          });
          const apis = ports.map((port) => new Api(`http://127.0.0.1:${port}`, token));

          /** Retries until any server gives a definite answer. */
          const ask = async (method: string, url: string, body?: unknown): Promise<Answer> => {
            for (const until = Date.now() + giveUpMs; ;) {
              const api = apis[Math.floor(Math.random() * apis.length)] as Api;
              const answer = await api.send(method, url, body).catch(() => undefined);
              if (answer !== undefined && answer.status < 500) return answer;
              if (Date.now() > until) throw new Error(`${method} ${url} got no answer: ${answer?.status}`);
              await pause(50);
            }
          };
          const makeITwin = async (dataCenterLocation?: string): Promise<string> => {
            const created = await ask('POST', '/itwins', {
              displayName: randomUUID(),
              class: 'Endeavor',
              subClass: 'Project',
              dataCenterLocation: dataCenterLocation ?? null,
            });
            return (created.body as { iTwin: { id: string } }).iTwin.id;
          };
          const home = await makeITwin();
          // Several, because copies from one source run one at a time.
          const farITwins = await Promise.all(Array.from({ length: 8 }, () => makeITwin(west)));
          const byName = async (iTwinId: string, name: string): Promise<string> => {
            const { body } = await ask('GET', `/imodels?iTwinId=${iTwinId}&name=${name}`);
            const [found] = (body as { iModels: { id: string }[] }).iModels;
            assert.ok(found !== undefined, `${name} was said to exist`);
            return found.id;
          };
          /** Creates under a unique name, by which a resource is found whose answer was lost. */
          const make = async (url: string, body: object, iTwinId = home): Promise<string> => {
            const name = randomUUID();
            const answer = await ask('POST', url, { iTwinId, name, ...body });
            assert.ok(
              [201, 202, 409].includes(answer.status),
              `${url}: ${answer.status} ${JSON.stringify(answer.body)}`,
            );
            return byName(iTwinId, name);
          };

          const push = async (reference: Reference): Promise<void> => {
            const bytes = randomBytes(300);
            const parentId = reference.changesets.at(-1) ?? '';
            const id = changesetIdOf(parentId, bytes);
            const base = `/imodels/${reference.iModelId}/changesets`;
            for (const until = Date.now() + giveUpMs; ;) {
              const begun = await ask('POST', base, {
                id,
                parentId,
                briefcaseId: reference.briefcaseId,
                fileSize: bytes.length,
              });
              // Complete already: only the answer was lost.
              if (begun.status === 409 && (begun.body as { error: { code: string } }).error.code === 'ChangesetExists')
                break;
              assert.equal(begun.status, 201, JSON.stringify(begun.body));
              const { _links } = (begun.body as { changeset: { _links: { upload: { href: string } } } }).changeset;
              const uploaded = await fetch(_links.upload.href, {
                method: 'PUT',
                body: bytes,
                headers: { 'x-ms-blob-type': 'BlockBlob' },
                signal: AbortSignal.timeout(giveUpMs),
              }).then(
                ({ status }) => status,
                () => 0,
              );
              if (uploaded !== 201) {
                if (Date.now() > until) throw new Error(`the upload of ${id} is not taken: ${uploaded}`);
                continue;
              }
              const completed = await ask('PATCH', `${base}/${id}`, {
                state: 'fileUploaded',
                briefcaseId: reference.briefcaseId,
              });
              if (completed.status === 200) break;
              assert.equal(completed.status, 404, JSON.stringify(completed.body));
              if (Date.now() > until) throw new Error(`the completion of ${id} is not taken`);
            }
            reference.changesets.push(id);
          };
          const seen = async (iModelId: string): Promise<string[]> => {
            const { body } = await ask('GET', `/imodels/${iModelId}/changesets?$top=1000`);
            return (body as { changesets: { id: string }[] }).changesets.map(({ id }) => id);
          };

          const endAt = Date.now() + runMs;
          const references: Reference[] = [];
          const client = async (): Promise<void> => {
            const iModelId = await make('/imodels', {});
            const { body } = await ask('POST', `/imodels/${iModelId}/briefcases`, {});
            const reference: Reference = {
              iModelId,
              briefcaseId: (body as { briefcase: { briefcaseId: number } }).briefcase.briefcaseId,
              changesets: [],
              clones: new Map(),
              deleted: [],
            };
            references.push(reference);
            while (Date.now() < endAt && !over) {
              const dice = Math.random();
              const [some] = reference.clones.keys();
              if (dice < 0.45) await push(reference);
              else if (dice < 0.75) {
                const index = Math.floor(Math.random() * (reference.changesets.length + 1));
                const target = Math.random() < 0.3 ? farITwins[Math.floor(Math.random() * farITwins.length)] : home;
                reference.clones.set(
                  await make(`/imodels/${iModelId}/clone`, { changesetIndex: index }, target),
                  reference.changesets.slice(0, index),
                );
              } else if (dice < 0.85 && some !== undefined) {
                const deleted = await ask('DELETE', `/imodels/${some}`);
                assert.ok(deleted.status === 204 || deleted.status === 404);
                reference.clones.delete(some);
                reference.deleted.push(some);
              } else assert.deepEqual(await seen(iModelId), reference.changesets);
            }
          };
          let crashes = 0;
          const kill = async (): Promise<void> => {
            for (let round = 0; !over; round++) {
              await pause(killEveryMs);
              if (over) return;
              const turn = Math.floor(round / 3) % 2;
              if (round % 3 === 2) await postgres.crash();
              else {
                const victim = (round % 3 === 0 ? servers : workers)[turn] as ServerProcess;
                await victim.end();
                await victim.start();
              }
              crashes++;
            }
          };
          killing = kill();
          // Its failure ends the load and is reported below.
          killing.catch(() => (over = true));
          await Promise.all(Array.from({ length: clients }, client));
          over = true;
          await killing;

          const operationOf = async (id: string): Promise<string> =>
            ((await ask('GET', `/imodels/${id}/operations/create`)).body as { createOperation: { state: string } })
              .createOperation.state;
          let pushes = 0;
          let clones = 0;
          for (const reference of references) {
            assert.deepEqual(await seen(reference.iModelId), reference.changesets);
            for (const [id, expected] of reference.clones) {
              assert.equal(
                await until(
                  `the end of clone ${id}`,
                  async () => ((await operationOf(id)) === 'scheduled' ? undefined : operationOf(id)),
                  60_000,
                ),
                'successful',
              );
              assert.deepEqual(await seen(id), expected, `clone ${id}`);
            }
            for (const id of reference.deleted) assert.equal((await ask('GET', `/imodels/${id}`)).status, 404);
            pushes += reference.changesets.length;
            clones += reference.clones.size + reference.deleted.length;
          }
          assert.ok(pushes > 10 && clones > 10, `${pushes} pushes, ${clones} clones`);
          t.diagnostic(`${clients} clients, ${pushes} pushes, ${clones} clones, ${crashes} kills`);
          await Promise.all([...servers, ...workers].map((each) => each.end('SIGTERM')));

          const database = await openDatabase(config(0, false));
          // Creations of deleted clones that are not collected yet may have failed before.
          const stuck = database.db
            .selectFrom('operation as o')
            .innerJoin('imodel as m', 'm.id', 'o.imodel_id')
            .select('o.id')
            .where('o.state', '!=', 'successful')
            .where('m.deleted_at', 'is', null);
          assert.deepEqual(await stuck.execute(), []);
          const found = await verify(database.db, await openStores(config(0, false), database.db), true);
          assert.deepEqual(found.faults, []);
          await database.close();
        } finally {
          // A process that is stopped here is not restarted.
          over = true;
          await killing?.catch(() => undefined);
          await Promise.all([...servers, ...workers].map((each) => each.end()));
          installation.remove();
          await postgres.stop();
        }
      },
    );
  },
);
