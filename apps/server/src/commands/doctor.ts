import { Command } from 'commander';
import { ConfigError } from '../config.ts';
import { examine, type Finding } from '../maintenance/doctor.ts';
import { unknownVariables } from '../maintenance/variableNames.ts';
import { exitCodes, ExitError } from './exit.ts';
import { configOf } from './installation.ts';
import { withInstallation, type InstallationOptions } from './installationOptions.ts';

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
    return [
      ...error.faults.map((text): Finding => ({
        check: 'configuration',
        state: 'fault',
        text,
        remedy: remedyOf(text),
      })),
      ...misspelled(),
    ];
  }
  return [{ check: 'configuration', state: 'ok', text: 'It is valid.' }, ...misspelled(), ...(await examine(config))];
}

/** A variable that nothing reads has no effect, and nothing else says so. */
function misspelled(): Finding[] {
  return unknownVariables(process.env).map(({ name, nearest }) => ({
    check: 'environment',
    state: 'warning',
    text: `${name} has no effect: there is no such variable.`,
    remedy:
      nearest === undefined
        ? 'Remove it, and set what it is meant for in offshoot.json; docs/configuration.md lists every setting.'
        : `Did you mean ${nearest}? Rename or remove it.`,
  }));
}

/** How to correct a fault of the configuration, by where the wrong value is. */
function remedyOf(fault: string): string {
  const variable = /^(OFFSHOOT_[A-Z_]+) /.exec(fault)?.[1];
  if (variable !== undefined) return `Change or remove the variable ${variable} in the environment of the server.`;
  if (fault.startsWith('cannot read '))
    return 'Name a file that exists and is readable with --config or OFFSHOOT_CONFIG.';
  if (/ is not valid JSON: | must hold one JSON object$/.test(fault))
    return 'Correct the file: it is one JSON object without comments, such as {"port": 4700}.';
  return 'Change it in the configuration file (offshoot.json) or in its variable; docs/configuration.md lists every setting with its limits.';
}

function print({ check, state, text, remedy }: Finding): void {
  process.stdout.write(
    `${signs[state].padEnd(8)} ${check.padEnd(13)} ${text}\n${remedy === undefined ? '' : `${' '.repeat(23)}${remedy}\n`}`,
  );
}
