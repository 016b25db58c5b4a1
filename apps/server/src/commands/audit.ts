import { Command } from 'commander';
import { readAudit, type AuditEntry } from '../access/audit.ts';
import { openDatabase, type Db } from '../db/database.ts';
import { emailKey } from '../domain.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { isId } from './names.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';

interface AuditOptions extends InstallationOptions {
  itwin?: string;
  imodel?: string;
  actor?: string;
  action?: string;
  since?: string;
  until?: string;
  json?: boolean;
}

/** Most candidates in a message. */
const mostShown = 10;

const dayMs = 24 * 3600 * 1000;

/** `offshoot audit`: who changed what, and when. */
export function auditCommand(): Command {
  return withInstallation(new Command('audit'))
    .description('Print the audit log, oldest entry first. Read-only; the server may be running.')
    .option('--itwin <name or id>', 'only entries of this iTwin, deleted or not')
    .option(
      '--imodel <name or id>',
      'only entries of this iModel; --itwin narrows its name down. A deleted iModel is found by id',
    )
    .option('--actor <id or e-mail>', 'only entries of this user')
    .option('--action <name>', 'an action such as iModel.delete, or a prefix that ends with a dot: iModel.')
    .option('--since <time>', 'start time: 2026-01-31, 2026-01-31T12:00:00Z, or 30d for the last 30 days')
    .option('--until <time>', 'end time (exclusive), in the same formats')
    .option('--json', 'print one JSON object per line')
    .action(print);
}

async function print(options: AuditOptions): Promise<void> {
  const [since, until] = [timeOf(options.since, '--since'), timeOf(options.until, '--until')];
  const database = await openDatabase(configOf(options), 'beside a server');
  try {
    const actorId = options.actor === undefined ? undefined : await actorOf(database.db, options.actor);
    const iTwinId = options.itwin === undefined ? undefined : await iTwinOf(database.db, options.itwin);
    const filter = {
      iTwinId,
      iModelId: options.imodel === undefined ? undefined : await iModelOf(database.db, options.imodel, iTwinId),
      actorId,
      action: options.action,
      since,
      until,
    };
    for await (const entry of readAudit(database.db, filter)) {
      const line = options.json === true ? JSON.stringify(asJson(entry)) : asLine(entry);
      // Backpressure: waits for a slower reader of the pipe.
      if (!process.stdout.write(`${line}\n`))
        await new Promise<void>((resolve) => process.stdout.once('drain', resolve));
    }
  } finally {
    await database.close();
  }
}

/** @throws ExitError */
function timeOf(text: string | undefined, option: string): number | undefined {
  if (text === undefined) return undefined;
  const days = /^(\d{1,5})d$/.exec(text)?.[1];
  const time =
    days === undefined
      ? /^\d{4}-\d{2}-\d{2}(T\S+)?$/.test(text)
        ? Date.parse(text)
        : NaN
      : Date.now() - Number(days) * dayMs;
  if (Number.isNaN(time))
    throw new ExitError(exitCodes.usage, `${option} must be a date, a date with time, or a number of days such as 30d`);
  return time;
}

/** The id of a user. A text that is not a known e-mail address is taken as an id. */
async function actorOf(db: Db, text: string): Promise<string> {
  const found = await db
    .selectFrom('user_account')
    .select('id')
    .where('verified_email', '=', emailKey(text))
    .orderBy('created_at')
    .limit(1)
    .executeTakeFirst();
  return found?.id ?? text;
}

/** @throws ExitError refused if no iTwin has the name, usage if several have it */
async function iTwinOf(db: Db, text: string): Promise<string> {
  if (isId(text)) return text.toLowerCase();
  const found = await db
    .selectFrom('itwin')
    .select(['id', 'deleted_at'])
    .where('display_name', '=', text)
    .orderBy('created_at')
    .limit(mostShown)
    .execute();
  return onlyOne(
    'iTwin',
    text,
    found.map(({ id, deleted_at }) => `${id}${deleted_at === null ? '' : '  deleted'}`),
  );
}

/** @throws ExitError refused if no iModel has the name, usage if several have it */
async function iModelOf(db: Db, text: string, iTwinId: string | undefined): Promise<string> {
  if (isId(text)) return text.toLowerCase();
  let query = db
    .selectFrom('imodel')
    .innerJoin('itwin', 'itwin.id', 'imodel.itwin_id')
    .select(['imodel.id', 'itwin.display_name'])
    .where('imodel.name', '=', text);
  if (iTwinId !== undefined) query = query.where('imodel.itwin_id', '=', iTwinId);
  const found = await query.orderBy('imodel.created_at').limit(mostShown).execute();
  return onlyOne(
    'iModel',
    text,
    found.map(({ id, display_name }) => `${id}  in iTwin '${display_name}'`),
  );
}

/** The id at the start of the only line. */
function onlyOne(kind: string, text: string, lines: readonly string[]): string {
  const [first, ...others] = lines;
  if (first === undefined)
    throw new ExitError(
      exitCodes.refused,
      `no ${kind} is named '${text}'. The log keeps the entries of ${kind}s that were renamed or deleted: give the id.`,
    );
  if (others.length > 0)
    throw new ExitError(
      exitCodes.usage,
      `several ${kind}s are named '${text}'. Give the id of one:\n  ${lines.join('\n  ')}`,
    );
  return first.slice(0, first.includes(' ') ? first.indexOf(' ') : undefined);
}

function asJson({ id, at, actor_id, actor_email, application_id, action, itwin_id, imodel_id, detail }: AuditEntry) {
  return {
    id,
    at: new Date(at).toISOString(),
    action,
    actor: { id: actor_id, email: actor_email },
    applicationId: application_id,
    iTwinId: itwin_id,
    iModelId: imodel_id,
    detail: JSON.parse(detail) as unknown,
  };
}

function asLine({
  at,
  actor_id,
  actor_email,
  application_id,
  action,
  itwin_id,
  imodel_id,
  detail,
}: AuditEntry): string {
  const parts = [
    new Date(at).toISOString(),
    action.padEnd(22),
    actor_email ?? actor_id,
    application_id,
    `iTwin ${itwin_id}`,
    ...(imodel_id === null ? [] : [`iModel ${imodel_id}`]),
    ...(detail === '{}' ? [] : [detail]),
  ];
  return parts.join('  ');
}
