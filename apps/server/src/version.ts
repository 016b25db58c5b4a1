import { readFileSync } from 'node:fs';

/** The package of this server. */
export const ownPackage = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')) as {
  version: string;
  optionalDependencies: Record<string, string>;
};

/** Version of this server, from its package. */
export const { version } = ownPackage;
