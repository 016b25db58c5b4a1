/**
 * Attacks on the iTwin.js processes of a server, by a user whose files keep them busy for as long as allowed: these files delay
 * nobody else. A stand-in replaces iTwin.js.
 */
import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { after, describe, test } from 'node:test';
import type { Isolation } from '../../apps/server/src/checkpoints/itwinjs/isolation.ts';
import type { WorkRequest } from '../../apps/server/src/checkpoints/itwinjs/worker.ts';
import { WorkerProcess } from '../../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { Workers, type WorkSlot } from '../../apps/server/src/checkpoints/itwinjs/workers.ts';
import type { IModelTable } from '../../apps/server/src/db/schema.ts';
import type { RunningJob } from '../../apps/server/src/operations/jobs.ts';
import { FinalError } from '../../apps/server/src/operations/reasons.ts';
import { makeIModel, official, type Official } from '../support/clients.ts';
import { people, type PersonName } from '../support/server.ts';
import { onEachDatabase } from '../support/suite.ts';
import { until } from '../support/until.ts';

/** Implements the protocol of the iTwin.js process; a file named `hostile.bim` keeps it busy for ever. */
const standIn = `
process.on('message', (request) => {
  if (request === 'end') process.exit(0);
  if (request.file.endsWith('hostile.bim')) for (;;);
  process.send({ result: { iModelIdOffset: 0, iTwinIdOffset: 0, missingGuids: 0, highestBriefcaseId: 0 } });
});
process.on('disconnect', () => process.exit(0));
`;

describe('The iTwin.js slots of a server', () => {
  const root = mkdtempSync(path.join(tmpdir(), 'offshoot-slots-'));
  after(() => rmSync(root, { recursive: true, force: true }));
  const script = path.join(root, 'standIn.mjs');
  writeFileSync(script, standIn);
  const isolation: Isolation = {
    level: 'process',
    grantAccess: async () => undefined,
    command: () => ({ file: process.execPath, args: [script], options: { cwd: root } }),
  };
  const limits = { memoryBytes: 2 ** 32, silenceMs: 120_000, workMs: 120_000 };
  const open = (slots: number, limit: Partial<typeof limits> = {}) =>
    new Workers(
      mkdtempSync(path.join(root, 'work-')),
      slots,
      (folder) => new WorkerProcess(folder, { ...limits, ...limit }, Promise.resolve(isolation)),
    );
  const working = (
    workers: Workers,
    name: string,
    signal = new AbortController().signal,
    see: (slot: WorkSlot) => void = () => undefined,
  ) =>
    workers.use(signal, async (slot) => {
      see(slot);
      const file = path.join(slot.folder, name);
      writeFileSync(file, '');
      const request: WorkRequest = { file, changesets: [], purpose: 'checkpoint', countMissingGuids: false };
      return slot.worker.work(request, { signal }, () => undefined);
    });

  test('work in parallel, so that a file that never ends delays no other', { timeout: 60_000 }, async () => {
    const workers = open(2);
    const end = new AbortController();
    const hostile = assert.rejects(working(workers, 'hostile.bim', end.signal), /called off/);
    try {
      await until('its process', () => (workers.pids.length > 0 ? true : undefined));
      for (let n = 0; n < 3; n++) await working(workers, 'model.bim');
    } finally {
      end.abort(new Error('called off'));
      await hostile;
      await workers.stop(1000);
    }
  });

  test('have separate folders, in which no process finds the files of another', { timeout: 60_000 }, async () => {
    const workers = open(2);
    const end = new AbortController();
    const folders: string[] = [];
    const seen = ({ folder }: WorkSlot): void => void folders.push(folder);
    const hostile = assert.rejects(working(workers, 'hostile.bim', end.signal, seen), /called off/);
    try {
      await working(workers, 'model.bim', undefined, seen);
      const [one = '', other = ''] = folders;
      assert.notEqual(one, other);
      assert.ok(existsSync(path.join(one, 'hostile.bim')) && !existsSync(path.join(other, 'hostile.bim')));
      assert.ok(path.relative(one, other).startsWith('..') && path.relative(other, one).startsWith('..'));
    } finally {
      end.abort(new Error('called off'));
      await hostile;
      await workers.stop(1000);
    }
  });

  test('are assigned in order when all are taken, and only while the caller waits', { timeout: 60_000 }, async () => {
    const workers = open(1);
    const end = new AbortController();
    const hostile = assert.rejects(working(workers, 'hostile.bim', end.signal), /called off/);
    const impatient = new AbortController();
    const gone = assert.rejects(working(workers, 'model.bim', impatient.signal), /not wanted any more/);
    const patient = working(workers, 'model.bim');
    impatient.abort(new Error('not wanted any more'));
    await gone;
    end.abort(new Error('called off'));
    await hostile;
    await patient;
    await workers.stop(1000);
  });

  test('are freed when a file exceeds its time limit', { timeout: 60_000 }, async () => {
    const workers = open(1, { workMs: 500 });
    await assert.rejects(
      working(workers, 'hostile.bim'),
      (error) => error instanceof FinalError && /took longer than 0.5 s/.test(error.message),
    );
    await workers.stop(1000);
  });
});

onEachDatabase('Files that keep iTwin.js busy', { checkpoints: { generate: 'here', delaySeconds: 0 } }, (context) => {
  /** Schedules the checkpoint of a changeset. @returns the iModel */
  async function order(who: Official, person: PersonName, iTwinId: string): Promise<string> {
    const { id, changesets } = await makeIModel(who, iTwinId, { changesets: 1 });
    const { status } = await (
      await context.server.as(person)
    ).post(`/imodels/${id}/namedversions`, { name: 'version', changesetId: changesets[0]?.id });
    assert.equal(status, 201);
    return id;
  }

  test(
    'of one user with as many iTwins as files delay neither another user nor another organization',
    { timeout: 120_000 },
    async () => {
      const { generator } = context.server.services;
      assert.ok(generator !== undefined);
      let held = 0;
      // Files of the attackers run until they are aborted; all others fail at once, which ends their turn.
      generator.withFile = async (
        imodel: IModelTable,
        _index: number,
        _want: unknown,
        job: Pick<RunningJob, 'signal'>,
      ): Promise<never> => {
        if (imodel.creator_id !== people.eve.id) throw new FinalError('It was its turn.');
        held++;
        return new Promise((_, reject) =>
          job.signal.addEventListener('abort', () => reject(job.signal.reason as Error), { once: true }),
        );
      };
      const eve = await official(context.server, 'eve');
      for (let n = 0; n < 8; n++) await order(eve, 'eve', await context.server.iTwin('eve'));
      await until('the attack', () => (held > 0 ? true : undefined));
      for (const who of ['foreignAdmin', 'olivia'] as const) {
        const client = await official(context.server, who);
        const api = await context.server.as(who);
        for (let n = 0; n < 3; n++) {
          const id = await order(client, who, await context.server.iTwin(who));
          await until(`the turn of ${who}`, async () => {
            const { checkpoint } = (await api.get(`/imodels/${id}/changesets/1/checkpoint`)).body as {
              checkpoint: { state: string };
            };
            return checkpoint.state === 'failed' ? true : undefined;
          });
        }
      }
      assert.equal(held, 1, 'one of three places for one user');
    },
  );
});
