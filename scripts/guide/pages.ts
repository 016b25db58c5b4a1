import { existsSync, globSync, readFileSync, statSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

export const root = fileURLToPath(new URL('../..', import.meta.url));

/** The index of all documents, from which the navigation is made. */
export const index = 'docs/README.md';

const patterns = [
  'docs/**/*.md',
  'README.md',
  'SECURITY.md',
  'CONTRIBUTING.md',
  'packages/*/README.md',
  'examples/**/README.md',
];

/** Files of these folders are neither pages nor copied. */
const foreign = (file: string): boolean => /(^|\/)(node_modules|dist)(\/|$)/.test(file);

const toPosix = (file: string): string => file.split(path.sep).join('/');

const markdownFiles = (glob: string | string[]): string[] =>
  globSync(glob, { cwd: root, exclude: foreign }).map(toPosix).sort();

/** The Markdown files that become pages, relative to the repository. */
export const pageFiles: readonly string[] = markdownFiles(patterns);

const isPage = (file: string): boolean => pageFiles.includes(file);

/** The Markdown files that do not become pages; those in folders with a dot are not listed. */
export const otherFiles = (): string[] => markdownFiles('**/*.md').filter((file) => !isPage(file));

/** Where a page is in the guide: files of `docs` at the top, a README as its folder. */
export function addressOf(file: string): string {
  if (file === index) return 'index.html';
  if (file === 'README.md') return 'readme.html';
  if (file === 'SECURITY.md') return 'security-policy.html';
  if (file === 'CONTRIBUTING.md') return 'contributing.html';
  const place = file.replace(/^docs\//, '');
  const folder = /^(.+)\/README\.md$/.exec(place)?.[1];
  if (folder === undefined) return place.replace(/\.md$/, '.html');
  return place.startsWith('adr/') || folder === 'examples' ? `${folder}/index.html` : `${folder}.html`;
}

/** Where the guide keeps a file of the repository that a page links to: as text, whatever it is. */
export const copyOf = (file: string): string => `files/${file}.txt`;

/** What a relative link of a page leads to. */
export interface Target {
  /** Relative to the repository. */
  file: string;
  anchor: string | undefined;
  kind: 'page' | 'image' | 'copy' | 'missing';
}

const isImage = (file: string): boolean => /\.(svg|png)$/.test(file);

/** @returns what a link of a page leads to; undefined if it leads out of the repository, to an address of the web */
export function targetOf(page: string, link: string): Target | undefined {
  if (/^[a-z][a-z+.-]*:/i.test(link)) return undefined;
  const [place = '', anchor] = link.split('#');
  const file =
    place === '' ? page : path.posix.normalize(path.posix.join(path.posix.dirname(page), decodeURIComponent(place)));
  const absolute = path.join(root, file);
  if (file.startsWith('..') || !existsSync(absolute)) return { file, anchor, kind: 'missing' };
  if (statSync(absolute).isDirectory()) {
    const readme = path.posix.join(file, 'README.md');
    return isPage(readme) ? { file: readme, anchor, kind: 'page' } : { file, anchor: undefined, kind: 'missing' };
  }
  const kind = isPage(file) ? 'page' : isImage(file) ? 'image' : 'copy';
  return { file, anchor, kind };
}

/** The address in the guide of what a link leads to, relative to the page; undefined if the guide does not have it. */
export function hrefOf(page: string, { file, anchor, kind }: Target): string | undefined {
  if (kind === 'missing') return undefined;
  const address = { page: addressOf, image: (image: string) => image.replace(/^docs\//, ''), copy: copyOf }[kind](file);
  const relative = path.posix.relative(path.posix.dirname(addressOf(page)), address);
  return `${relative}${anchor === undefined ? '' : `#${anchor}`}`;
}

export const textOf = (file: string): string => readFileSync(path.join(root, file), 'utf8');
