import { sql, type Kysely, type Migration } from 'kysely';
import type { Engine } from '../engine.ts';
import { columnTypes } from './columnTypes.ts';

/** Replaces reasons that earlier versions copied from internal errors, with paths and stack traces. */
const generalReason = 'The server met an unexpected error.';

/** Frees the names of failed creations, and removes internal details of the server from the reasons of earlier failures. */
export function failedCreationsMigration(engine: Engine): Migration {
  const { int } = columnTypes(engine);
  return {
    async up(db: Kysely<unknown>): Promise<void> {
      await sql.raw(`alter table imodel add column failed_at ${int}`).execute(db);
      await sql`
        update imodel set failed_at = (select coalesce(o.finished_at, o.created_at) from operation o where o.imodel_id = imodel.id)
        where state = 'notInitialized'
          and exists (select 1 from operation o where o.imodel_id = imodel.id and o.state in ('failed', 'mainIModelIsMissingFederationGuids'))`.execute(
        db,
      );
      await sql`drop index imodel_name`.execute(db);
      await sql`create unique index imodel_name on imodel (itwin_id, name) where deleted_at is null and failed_at is null`.execute(
        db,
      );
      for (const [table, column] of [
        ['operation', 'failure_reason'],
        ['checkpoint', 'failure_reason'],
        ['job', 'last_error'],
      ] as const) {
        const reason = sql.ref(column);
        await sql`update ${sql.table(table)} set ${reason} = ${generalReason} where ${reason} like ${'%/%'} or ${reason} like ${'%:\\%'} escape '|' or ${reason} like ${'%\n%'}`.execute(
          db,
        );
      }
    },
  };
}
