import { Command } from 'commander';
import path from 'node:path';
import type { DirectoryUser } from '../access/directory.ts';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import { plainUserOf } from '../access/plainUsersFile.ts';
import { hasIssuer } from '../wiring/dataFolder.ts';
import { exitCodes, ExitError } from './exit.ts';

const units: Record<string, number> = { s: 1, m: 60, h: 3600, d: 86_400 };

/** `offshoot token`: prints a bearer token of the embedded issuer and nothing else. */
export function tokenCommand(): Command {
  return new Command('token')
    .description('Print a bearer token for a user in users.json, the users file in the data folder.')
    .option('--user <email or id>', 'user; by default the first user in the file')
    .option(
      '--application <id>',
      'application that sends the requests; its tier decides the rate limits',
      'offshoot-cli',
    )
    .option('--expires-in <time>', 'lifetime, such as 30m, 12h or 7d', '24h')
    .option('--scope <scope>', 'scopes, separated by spaces', 'itwin-platform')
    .option('--data <folder>', 'data folder of the server', process.env['OFFSHOOT_DATA'] ?? 'offshoot-data')
    .action(async (options: { user?: string; application: string; expiresIn: string; scope: string; data: string }) => {
      const lifeSeconds = parseTime(options.expiresIn);
      process.stdout.write(`${await mintToken({ ...options, lifeSeconds })}\n`);
    });
}

/**
 * Mints a token with the key of a data folder.
 * @throws ExitError usage if no server has ever started on it, or the user is unknown
 */
export async function mintToken(options: {
  data: string;
  user?: string;
  application?: string;
  scope?: string;
  lifeSeconds: number;
}): Promise<string> {
  // No server would accept a token signed with a key created here.
  if (!hasIssuer(options.data))
    throw new ExitError(
      exitCodes.usage,
      `there is no installation with an issuer of tokens at ${path.resolve(options.data)}: name the server's data folder with --data, or start the server first`,
    );
  const user = plainUserOf(options.data, options.user) ?? (await userOf(options.data, options.user));
  const issuer = await EmbeddedIssuer.open(options.data);
  return issuer.mint(user, {
    applicationId: options.application ?? 'offshoot-cli',
    scope: options.scope ?? 'itwin-platform',
    lifeSeconds: options.lifeSeconds,
  });
}

/** @throws ExitError usage if the user is unknown; Error if the users file cannot be used */
async function userOf(dataDir: string, idOrEmail: string | undefined): Promise<DirectoryUser> {
  const { Directory } = await import('../access/directory.ts');
  const directory = Directory.open(dataDir, (message) => process.stderr.write(`offshoot: ${message}\n`));
  const user = idOrEmail === undefined ? directory.data.users[0] : directory.findUser(idOrEmail);
  if (user === undefined) throw new ExitError(exitCodes.usage, `no user '${idOrEmail ?? ''}' in ${directory.file}`);
  return user;
}

/** Parses a duration such as `12h` into seconds. @throws ExitError usage */
export function parseTime(text: string): number {
  const match = /^(\d{1,6})([smhd])$/.exec(text);
  if (match === null) throw new ExitError(exitCodes.usage, `'${text}' is not a duration; write it like 30m, 12h or 7d`);
  return Number(match[1]) * (units[match[2] as string] as number);
}
