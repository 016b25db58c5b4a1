#!/usr/bin/env node
import { inspect } from 'node:util';
import { Command, CommanderError } from 'commander';
import { auditCommand } from './commands/audit.ts';
import { backupCommand } from './commands/backup.ts';
import { benchCommand } from './commands/bench.ts';
import { cloneCommand } from './commands/clone.ts';
import { compactCommand } from './commands/compact.ts';
import { exitCodes, ExitError } from './commands/exit.ts';
import { doctorCommand } from './commands/doctor.ts';
import { imodelsCommand } from './commands/imodels.ts';
import { importCommand } from './commands/import.ts';
import { keysCommand } from './commands/keys.ts';
import { migrateDatabaseCommand } from './commands/migrateDatabase.ts';
import { iTwinJsCommand } from './commands/itwinjs.ts';
import { mirrorCommand } from './commands/mirror.ts';
import { startCommand, workCommand } from './commands/start.ts';
import { tokenCommand } from './commands/token.ts';
import { verifyCommand } from './commands/verify.ts';
import { cleanOutput } from './terminal.ts';
import { version } from './version.ts';

cleanOutput(process.stdout, process.stderr);

// Keys, users and models are nobody else's, whatever the umask of the shell.
process.umask(0o077);

const program = new Command('offshoot')
  .description('A self-hosted server for iModels that implements the iModels API v2 and clones iModels instantly.')
  .version(version)
  .showHelpAfterError('(see offshoot --help)')
  .addHelpText(
    'after',
    `\nExit codes: 0 done, ${exitCodes.failed} failed, ${exitCodes.usage} wrong use, ${exitCodes.refused} refused by the server, ${exitCodes.unreachable} server not reached or too slow.`,
  )
  .exitOverride();
for (const command of [
  startCommand(),
  workCommand(),
  iTwinJsCommand(),
  tokenCommand(),
  cloneCommand(),
  imodelsCommand(),
  importCommand(),
  mirrorCommand(),
  verifyCommand(),
  doctorCommand(),
  auditCommand(),
  backupCommand(),
  compactCommand(),
  keysCommand(),
  migrateDatabaseCommand(),
  benchCommand(),
]) {
  command.exitOverride();
  for (const inner of command.commands) inner.exitOverride();
  program.addCommand(command);
}

try {
  await program.parseAsync();
} catch (error) {
  if (error instanceof CommanderError) {
    process.exitCode = error.exitCode === 0 ? 0 : exitCodes.usage;
  } else {
    const known = error instanceof ExitError ? error : new ExitError(exitCodes.failed, (error as Error).message, error);
    process.stderr.write(`offshoot: ${known.message}\n`);
    if (process.env['OFFSHOOT_DEBUG'] !== undefined) process.stderr.write(`${inspect(known.cause ?? known)}\n`);
    process.exitCode = known.exitCode;
  }
}
