import { Command } from 'commander';
import { EmbeddedIssuer } from '../access/embeddedIssuer.ts';
import { hasIssuer } from '../wiring/dataFolder.ts';
import { openDatabase } from '../db/database.ts';
import { rotateLinkKeys } from '../storage/linkKeys.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';
import { parseTime } from './token.ts';

/** `offshoot keys`: rotates the keys of an installation while its servers run. */
export function keysCommand(): Command {
  const rotate = withInstallation(new Command('rotate'))
    .description(
      'Replace the keys that sign links and tokens. Running servers switch to the new keys without a restart.',
    )
    .argument('[which]', '`links`, `issuer` (of `offshoot token`) or `all`', 'all')
    .option(
      '--overlap <time>',
      'how long what the old keys signed stays good, such as 0s, 12h or 7d; 0s ends all of it, within a minute and a half',
      '24h',
    )
    .action(rotateKeys);
  return new Command('keys').description('Manage the keys of the installation.').addCommand(rotate);
}

async function rotateKeys(which: string, options: InstallationOptions & { overlap: string }): Promise<void> {
  if (!['links', 'issuer', 'all'].includes(which))
    throw new ExitError(exitCodes.usage, `'${which}' is not a kind of key; write links, issuer or all`);
  const overlapMs = parseTime(options.overlap) * 1000;
  const config = configOf(options);
  if (which !== 'issuer') {
    const database = await openDatabase(config, 'beside a server');
    try {
      const from = await rotateLinkKeys(database.db, overlapMs);
      process.stdout.write(
        `links: the new key signs from ${new Date(from).toISOString()}, signatures of the old keys stay valid until ${new Date(from + overlapMs).toISOString()} at most\n`,
      );
    } finally {
      await database.close();
    }
  }
  if (which === 'links') return;
  if (!hasIssuer(config.dataDir)) {
    if (which === 'issuer') throw new ExitError(exitCodes.usage, `no token issuer found at ${config.dataDir}`);
    return;
  }
  await EmbeddedIssuer.rotate(config.dataDir, overlapMs);
  process.stdout.write(
    `issuer: tokens signed with the old keys stay valid until ${new Date(Date.now() + overlapMs).toISOString()} at most\n`,
  );
}
