import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
export const licencesFile = `${root}docs/licences.md`;

/** A production package of the server, including optional ones. */
export interface ProductionPackage {
  name: string;
  version: string;
  licence: string;
}

/** Every version of every package in the lock file, once. */
export function productionPackages(): ProductionPackage[] {
  const { packages } = JSON.parse(readFileSync(`${root}package-lock.json`, 'utf8')) as {
    packages: Record<string, { name?: string; version?: string; license?: string; dev?: boolean; link?: boolean }>;
  };
  const found = new Map<string, ProductionPackage>();
  for (const [place, { name: other, version = '', license = 'unknown', dev, link }] of Object.entries(packages)) {
    if (!place.includes('node_modules/') || dev === true || link === true) continue;
    const name = other ?? place.slice(place.lastIndexOf('node_modules/') + 'node_modules/'.length);
    found.set(`${name}@${version}`, { name, version, licence: license });
  }
  return [...found.values()].sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
}

const begin = '<!-- written by npm run licences -->\n';

/** The document with the list for this lock file. */
export function licencesDocument(): string {
  const packages = productionPackages();
  const licences = [...new Set(packages.map(({ licence }) => licence))].sort();
  const rows = licences.map((licence) => {
    const names = [...new Set(packages.filter((each) => each.licence === licence).map(({ name }) => name))];
    return `| ${licence} | ${names.length} | ${names.map((name) => `\`${name}\``).join(', ')} |\n`;
  });
  const [head] = readFileSync(licencesFile, 'utf8').split(begin);
  return `${head}${begin}\n| licence | packages | |\n| --- | --- | --- |\n${rows.join('')}`;
}
