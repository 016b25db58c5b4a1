import { Command } from 'commander';
import { ConfigError } from '../config.ts';
import { examine, type Finding } from '../maintenance/doctor.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf, withInstallation, type InstallationOptions } from './installation.ts';

const signs: Record<Finding['state'], string> = { ok: 'ok', warning: 'warning', fault: 'FAULT' };

/** `offshoot doctor`: finds the faults of an installation and their remedies. */
export function doctorCommand(): Command {
  return withInstallation(new Command('doctor'))
    .description(
      'Check configuration, database, store, iTwin.js and address, and explain how to fix each problem. Read-only; the server may be running.',
    )
    .option('--json', 'print one JSON object')
    .action(async (options: InstallationOptions & { json?: boolean }) => {
      const findings = await find(options);
      const faults = findings.filter(({ state }) => state === 'fault').length;
      if (options.json === true) process.stdout.write(`${JSON.stringify({ findings })}\n`);
      else for (const each of findings) print(each);
      if (faults > 0) throw new ExitError(exitCodes.failed, faults === 1 ? 'one fault' : `${faults} faults`);
    });
}

/** With an invalid configuration nothing else can be checked: a server would not start either. */
async function find(options: InstallationOptions): Promise<Finding[]> {
  let config;
  try {
    config = configOf(options);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    return error.faults.map((text) => ({ check: 'configuration', state: 'fault', text }));
  }
  return [{ check: 'configuration', state: 'ok', text: 'It is valid.' }, ...(await examine(config))];
}

function print({ check, state, text, remedy }: Finding): void {
  process.stdout.write(
    `${signs[state].padEnd(8)} ${check.padEnd(13)} ${text}\n${remedy === undefined ? '' : `${' '.repeat(23)}${remedy}\n`}`,
  );
}
