import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { prepareSource } from '../../apps/server/src/bench/clone.ts';
import { startPostgres } from '../../test/support/postgres.ts';
import { alternate, compare, median, timed, withFolder, type Budget, type Figure } from '../common.ts';
import { Api, makeInstallation } from '../installation.ts';
import type { Load } from '../load/load.ts';
import { measureCloneRate } from './cloneRate.ts';
import { cloneRequest } from './cloneRequest.ts';
import type { Scale } from './peers.ts';
import { changesets } from './sources.ts';

const clonesPerRound = 20;

/** Clones on PostgreSQL with one server, and beside `INSERT … SELECT` of the rows. */
export async function measurePostgres(scale: Scale, budget: Budget, load: Load): Promise<Figure[]> {
  const postgres = await startPostgres({ durable: true });
  try {
    return await withFolder(async (dataDir) => {
      const installation = await makeInstallation(dataDir, postgres.url, (services, caller, iTwinId) =>
        prepareSource(services, caller, iTwinId, { changesets, depth: 1 }),
      );
      const server = await installation.start();
      try {
        const api = new Api(server.origin, installation.token);
        const source = { iModelId: installation.content, iTwinId: installation.iTwinId };
        const rates = await measureCloneRate({ load, budget, api }, source, {
          engine: 'PostgreSQL',
          rounds: Math.min(scale.rounds, 3),
          seconds: scale.seconds,
          reserve: 0.7,
        });
        const { ours, rows } = await compareRows(load, budget, api, source, postgres.url);
        const what = `clone of ${changesets.toLocaleString('en-US')} changesets on PostgreSQL, 1 connection`;
        return [...rates, compare(what, 'ms', ours, 'INSERT … SELECT of the rows', rows)];
      } finally {
        await server.stop();
      }
    });
  } finally {
    await postgres.stop();
  }
}

async function compareRows(
  load: Load,
  budget: Budget,
  api: Api,
  { iModelId, iTwinId }: { iModelId: string; iTwinId: string },
  url: string,
): Promise<{ ours: number[]; rows: number[] }> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    const found = await client.query<{ segment_id: string; columns: string }>(
      `select h.segment_id, (
         select string_agg(format('%I', column_name), ', ') from information_schema.columns
         where table_schema = current_schema() and table_name = 'changeset' and column_name <> 'segment_id'
       ) as columns
       from imodel m join history h on h.id = m.history_id where m.id = $1`,
      [iModelId],
    );
    const { segment_id, columns } = found.rows[0] as { segment_id: string; columns: string };
    const insert = async (): Promise<void> => {
      const segment = randomUUID();
      await client.query('begin');
      await client.query('insert into segment (id, owner_imodel_id) values ($1, null)', [segment]);
      await client.query(
        `insert into changeset (segment_id, ${columns}) select $1, ${columns} from changeset where segment_id = $2`,
        [segment, segment_id],
      );
      await client.query('commit');
    };
    const [ours, rows]: [number[], number[]] = [[], []];
    await alternate(budget, 5, budget.secondsLeft * 0.9, async () => {
      const requests = [cloneRequest(api, iModelId, iTwinId)];
      ours.push(median((await load.requests({ requests, connections: 1, count: clonesPerRound })).times));
      rows.push(await timed(insert));
    });
    return { ours, rows };
  } finally {
    await client.end();
  }
}
