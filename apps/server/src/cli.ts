#!/usr/bin/env node
import { createRequire } from 'node:module';
import { inspect } from 'node:util';
import { Command, CommanderError } from 'commander';
import { exitCodes, ExitError } from './commands/exit.ts';
import { fileReason } from './fileReasons.ts';
import { cleanOutput } from './terminal.ts';
import { version } from './version.ts';

cleanOutput(process.stdout, process.stderr);

// For programs that run this module directly: `bin/offshoot.cjs` has done it before.
createRequire(import.meta.url)('../bin/compileCache.cjs');

/** The commands, in the order of the help. A command loads its modules only if it runs: all of them take a second. */
const commands: Record<string, () => Promise<Command>> = {
  start: async () => (await import('./commands/start.ts')).startCommand(),
  work: async () => (await import('./commands/start.ts')).workCommand(),
  itwinjs: async () => (await import('./commands/itwinjs.ts')).iTwinJsCommand(),
  'view-backend': async () => (await import('./commands/viewBackend.ts')).viewBackendCommand(),
  token: async () => (await import('./commands/token.ts')).tokenCommand(),
  login: async () => (await import('./commands/login.ts')).loginCommand(),
  logout: async () => (await import('./commands/login.ts')).logoutCommand(),
  'check-token': async () => (await import('./commands/checkToken.ts')).checkTokenCommand(),
  clone: async () => (await import('./commands/clone.ts')).cloneCommand(),
  itwins: async () => (await import('./commands/itwins.ts')).iTwinsCommand(),
  imodels: async () => (await import('./commands/imodels.ts')).imodelsCommand(),
  changesets: async () => (await import('./commands/changesets.ts')).changesetsCommand(),
  versions: async () => (await import('./commands/versions.ts')).versionsCommand(),
  checkpoints: async () => (await import('./commands/checkpoints.ts')).checkpointsCommand(),
  shares: async () => (await import('./commands/shares.ts')).sharesCommand(),
  users: async () => (await import('./commands/users.ts')).usersCommand(),
  clients: async () => (await import('./commands/clients.ts')).clientsCommand(),
  roles: async () => (await import('./commands/roles.ts')).rolesCommand(),
  members: async () => (await import('./commands/members.ts')).membersCommand(),
  webhooks: async () => (await import('./commands/webhooks.ts')).webhooksCommand(),
  usage: async () => (await import('./commands/usage.ts')).usageCommand(),
  import: async () => (await import('./commands/import.ts')).importCommand(),
  mirror: async () => (await import('./commands/mirror.ts')).mirrorCommand(),
  verify: async () => (await import('./commands/verify.ts')).verifyCommand(),
  doctor: async () => (await import('./commands/doctor.ts')).doctorCommand(),
  audit: async () => (await import('./commands/audit.ts')).auditCommand(),
  backup: async () => (await import('./commands/backup.ts')).backupCommand(),
  compact: async () => (await import('./commands/compact.ts')).compactCommand(),
  keys: async () => (await import('./commands/keys.ts')).keysCommand(),
  'migrate-database': async () => (await import('./commands/migrateDatabase.ts')).migrateDatabaseCommand(),
  bench: async () => (await import('./commands/bench.ts')).benchCommand(),
  completion: async () => (await import('./commands/completion.ts')).completionCommand(allCommands),
};

const allCommands = (): Promise<Command[]> => Promise.all(Object.values(commands).map((load) => load()));

/** The commands that these arguments need: one, none for the version, or all for the help and for what is not a command. */
async function neededCommands([first = '']: readonly string[]): Promise<Command[]> {
  if (first === '--version' || first === '-V') return [];
  const load = Object.hasOwn(commands, first) ? commands[first] : undefined;
  return load === undefined ? allCommands() : [await load()];
}

function messageOf(error: Error): string {
  const reason = fileReason(error);
  return reason === undefined ? error.message : `cannot use ${(error as NodeJS.ErrnoException).path}: ${reason}`;
}

const program = new Command('offshoot')
  .description('A self-hosted server for iModels that implements the iModels API v2 and clones iModels instantly.')
  .version(version)
  .showHelpAfterError('(see offshoot --help)')
  .addHelpText(
    'after',
    `\nExit codes: 0 done, ${exitCodes.failed} failed, ${exitCodes.usage} wrong use, ${exitCodes.refused} refused by the server, ${exitCodes.unreachable} server not reached or too slow.`,
  )
  .exitOverride();
for (const command of await neededCommands(process.argv.slice(2))) {
  for (const each of [command, ...command.commands]) each.exitOverride().showHelpAfterError('(see --help)');
  program.addCommand(command);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.usage;
  } else {
    const known =
      error instanceof ExitError ? error : new ExitError(exitCodes.failed, messageOf(error as Error), error);
    process.stderr.write(`offshoot: ${known.message}\n`);
    if (process.env['OFFSHOOT_DEBUG'] !== undefined) process.stderr.write(`${inspect(known.cause ?? known)}\n`);
    process.exitCode = known.exitCode;
  }
}
