import { execFile } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const cli = fileURLToPath(new URL('../../apps/server/src/cli.ts', import.meta.url));

/** Exit code and output of a command. */
export interface CommandResult {
  code: number;
  stdout: string;
  stderr: string;
}

/** Runs the command line. `OFFSHOOT_` variables that a developer has set for a server of their own are not inherited. */
export function offshoot(
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
  options: { uid?: number; gid?: number; cwd?: string } = {},
): Promise<CommandResult> {
  const inherited = Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith('OFFSHOOT_')));
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      [cli, ...args],
      // No login of the developer is used.
      { env: { ...inherited, XDG_CONFIG_HOME: '/nonexistent', ...env }, ...options },
      (_error, stdout, stderr) => resolve({ code: child.exitCode ?? -1, stdout, stderr }),
    );
  });
}
