import { execFile } from 'node:child_process';
import { cpSync, existsSync, globSync, lstatSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { sampleBaseline } from '../../scripts/sample.ts';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** Longest time for npm to build and pack all packages, and to install them, milliseconds: it takes a minute on two busy cores. */
export const npmMs = 280_000;

/** What the tests read of a `package.json`. */
export interface Manifest {
  name: string;
  version: string;
  private?: boolean;
  engines: { node: string };
  bin?: Record<string, string>;
  files?: string[];
  scripts?: Record<string, string>;
  publishConfig?: { access?: string; provenance?: boolean };
  dependencies?: Record<string, string>;
  optionalDependencies?: Record<string, string>;
}

/** A workspace that is published. */
export interface Publishable {
  folder: string;
  manifest: Manifest;
}

/** A tarball as `npm pack --json` describes it. */
export interface Packed {
  name: string;
  filename: string;
  files: { path: string; mode: number }[];
}

/** Packages of the workspace. The viewer is none, and has a lock file of its own: building it installs 450 MB first. */
export const publishable: Publishable[] = globSync('{apps,packages}/*/package.json', { cwd: root })
  .filter((file) => !existsSync(path.join(root, path.dirname(file), 'package-lock.json')))
  .sort()
  .map((file) => ({
    folder: path.join(root, path.dirname(file)),
    manifest: JSON.parse(readFileSync(path.join(root, file), 'utf8')) as Manifest,
  }))
  .filter(({ manifest }) => manifest.private !== true);

/**
 * The environment of somebody who uses the packages: the Node of this test first in the path, and nothing of the npm that may have
 * started it or of a server of the developer.
 */
export function userEnvironment(): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) =>
      !/^(OFFSHOOT_|npm_(package|lifecycle)_|npm_config_(local_prefix|prefix|omit|workspace)|INIT_CWD$)/i.test(name),
  );
  return {
    ...Object.fromEntries(inherited),
    PATH: `${path.dirname(process.execPath)}${path.delimiter}${process.env['PATH'] ?? ''}`,
  };
}

/** Runs npm or npx in a folder. @returns what it printed to stdout */
export async function npm(program: 'npm' | 'npx', args: readonly string[], cwd: string): Promise<string> {
  const { stdout } = await promisify(execFile)(program, args, {
    cwd,
    env: userEnvironment(),
    timeout: npmMs,
    maxBuffer: 2 ** 26,
  });
  return stdout;
}

/** Whether npm failed because the machine reaches no registry. */
export function isOffline(error: unknown): boolean {
  return /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ENETUNREACH|ENOTCACHED/.test((error as { stderr?: string }).stderr ?? '');
}

/** Builds and packs everything that is published, as `npm publish` would. */
export async function packAll(into: string): Promise<Packed[]> {
  const packed: Packed[] = [];
  for (const { folder } of publishable) {
    const printed = await npm('npm', ['pack', '--json', '--silent', '--pack-destination', into], folder);
    // Scripts print before it; npm answers a list or an object by name, depending on its version.
    const found = JSON.parse(printed.slice(printed.search(/^[[{]$/m))) as Packed[] | Record<string, Packed>;
    packed.push(...Object.values(found));
  }
  return packed;
}

/** MiB that a folder takes on disk, as `du -sm` counts them; links count nothing. */
export function sizeMiB(folder: string): number {
  const bytes = globSync('**/*', { cwd: folder })
    .map((file) => lstatSync(path.join(folder, file)))
    .reduce((sum, stats) => sum + stats.blocks * 512, 0);
  return bytes / 2 ** 20;
}

/** Writes the sample as somebody has it who exported an iModel: one `.bim`, `changesets.json` and the files that it names. */
export function writeSample(folder: string): void {
  mkdirSync(folder, { recursive: true });
  cpSync(path.join(root, 'test/fixtures/sample'), folder, { recursive: true });
  rmSync(path.join(folder, 'baseline.bim.br'));
  writeFileSync(path.join(folder, 'baseline.bim'), sampleBaseline());
}
