import { cpSync, rmSync } from 'node:fs';
import path from 'node:path';
import { isInstalled, note, runProgram, timed } from '../common.ts';
import type { OtherWay } from './peers.ts';

export const gitSharedClone = 'git clone --shared';

/** Without the settings of the user and the machine. */
const env = {
  ...process.env,
  GIT_CONFIG_GLOBAL: '/dev/null',
  GIT_CONFIG_NOSYSTEM: '1',
  GIT_AUTHOR_NAME: 'bench',
  GIT_AUTHOR_EMAIL: 'bench@example.com',
  GIT_COMMITTER_NAME: 'bench',
  GIT_COMMITTER_EMAIL: 'bench@example.com',
};

/** `git clone` of a repository with the same files in one commit. Empty without git. */
export async function prepareGit(folder: string, files: string, quick: boolean): Promise<OtherWay[]> {
  if (!(await isInstalled('git', '--version'))) {
    note('git is not installed: clones are measured without it');
    return [];
  }
  const [repository, target] = [path.join(folder, 'repository'), path.join(folder, 'git-clone')];
  cpSync(files, repository, { recursive: true });
  for (const args of [
    ['init', '--quiet'],
    ['add', '.'],
    ['commit', '--quiet', '--message', 'files'],
  ])
    await runProgram('git', args, { cwd: repository, env });
  const way = (...options: string[]): OtherWay => ({
    name: `git clone ${options.join(' ')}`,
    run: async () => {
      const took = await timed(() => runProgram('git', ['clone', '--quiet', ...options, repository, target], { env }));
      rmSync(target, { recursive: true });
      return took;
    },
  });
  return quick ? [way('--shared')] : [way('--shared'), way('--shared', '--no-checkout'), way('--local')];
}
