import { existsSync } from 'node:fs';
import path from 'node:path';
import { Command } from 'commander';
import { Directory, usersFileName } from '../access/directory.ts';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import { explainToken, type TokenExplanation } from '../access/explainToken.ts';
import type { UsersFile } from '../access/tokenUser.ts';
import { readAtMost } from '../http/readAtMost.ts';
import { hasIssuer } from '../wiring/dataFolder.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';

/** Longest accepted token, bytes: servers refuse requests with longer headers. */
const longestToken = 64 * 1024;

/** `offshoot check-token`: says why the server accepts or refuses a token. */
export function checkTokenCommand(): Command {
  return withInstallation(new Command('check-token'))
    .description(
      'Say whether the server accepts a token, and if not, why and what to do. Reads the configuration and asks the issuer for its keys; no server has to run.',
    )
    .argument(
      '<token>',
      'the access token; - reads it from standard input, which keeps it out of the history of the shell',
    )
    .option('--json', 'print one JSON object')
    .action(async (argument: string, options: InstallationOptions & { json?: boolean }) => {
      const token = (argument === '-' ? await standardInput() : argument).trim().replace(/^bearer\s+/i, '');
      const config = configOf(options);
      // Nothing is created here: a key that this command made would not be the server's.
      const embedded =
        config.embeddedIssuer && hasIssuer(config.dataDir) ? await EmbeddedIssuer.open(config.dataDir) : undefined;
      const explanation = await explainToken(token, config, usersFileOf(config.dataDir), embedded);
      process.stdout.write(options.json === true ? `${JSON.stringify(explanation)}\n` : textOf(explanation));
      if (explanation.verdict !== 'accepted')
        throw new ExitError(exitCodes.failed, `the token is ${explanation.verdict}`);
    });
}

/** The users file; without entries if no server has started there yet, because opening it would create it. */
function usersFileOf(dataDir: string): UsersFile {
  const file = path.join(dataDir, usersFileName);
  if (existsSync(file)) return Directory.open(dataDir, (message) => process.stderr.write(`offshoot: ${message}\n`));
  const none = () => undefined;
  return { file, findUserById: none, findUserByEmail: none, findApplication: none };
}

async function standardInput(): Promise<string> {
  const tooLong = () => new ExitError(exitCodes.usage, `a token has at most ${longestToken} bytes`);
  return (await readAtMost(process.stdin, longestToken, tooLong)).toString('utf8');
}

function textOf({ verdict, faults, claims, user }: TokenExplanation): string {
  const lines = [`The token is ${verdict}.`];
  for (const { reason, text, remedy } of faults) lines.push('', `${reason}: ${text}.`, `  ${remedy}`);
  if (claims !== undefined) {
    lines.push('', 'It says:');
    for (const [name, value] of Object.entries(claims)) lines.push(`  ${name.padEnd(14)}${value}`);
  }
  if (user !== undefined) {
    lines.push('', 'The server takes it as:');
    for (const [name, value] of Object.entries(user)) lines.push(`  ${name.padEnd(14)}${String(value)}`);
  }
  return `${lines.join('\n')}\n`;
}
