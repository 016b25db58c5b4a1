import assert from 'node:assert/strict';
import { existsSync, globSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { loadConfig } from '../apps/server/src/config.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const read = (file: string): string => readFileSync(path.join(root, file), 'utf8');

const documents = globSync(
  [
    'README.md',
    'SECURITY.md',
    'CONTRIBUTING.md',
    'AGENTS.md',
    'packages/*/README.md',
    'examples/**/README.md',
    'apps/*/README.md',
    'docs/**/*.md',
  ],
  { cwd: root },
).map((file) => ({ file, text: read(file) }));

/** What a path in a document may be relative to. */
const bases = ['.', 'apps/server/src', 'docs'];

const fence = /^```.*?^```$/gms;

/** The content of backticks: whole fenced blocks, and the inline code between them. */
function codeOf(text: string): string[] {
  const inline = [...text.replace(fence, '').matchAll(/`([^`]+)`/g)].map(([, code = '']) => code);
  return [...(text.match(fence) ?? []), ...inline];
}

/** As GitHub makes it: lower case, no punctuation, hyphens for spaces. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

/** @returns each finding once, with the document that it is in */
const findings = (find: (document: { file: string; text: string }) => string[]): string[] => [
  ...new Set(documents.flatMap((document) => find(document).map((found) => `${document.file}: ${found}`))),
];

test('every file that a document names exists', () => {
  const isPath = /^[\w@][\w.@-]*(\/[\w.@-]+)+\.(ts|md|ya?ml|json)$/;
  const missing = findings(({ text }) =>
    codeOf(text)
      .flatMap((code) => code.split(/[\s"'(),]+/))
      .filter((word) => isPath.test(word) && !word.startsWith('node_modules/'))
      .filter((word) => !bases.some((base) => existsSync(path.join(root, base, word)))),
  );
  assert.deepEqual(missing, []);
});

test('every relative link of a document leads to an existing file and heading', () => {
  const broken = findings(({ file, text }) =>
    [...text.replace(fence, '').matchAll(/\]\(([^)\s]+)\)/g)]
      .map(([, link = '']) => link)
      .filter((link) => !/^[a-z]+:/.test(link))
      .filter((link) => {
        const [place = '', anchor] = link.split('#');
        const target = place === '' ? file : path.join(path.dirname(file), decodeURIComponent(place));
        if (!existsSync(path.join(root, target))) return true;
        if (anchor === undefined) return false;
        const headings = [
          ...read(target)
            .replace(fence, '')
            .matchAll(/^#+ (.+)$/gm),
        ];
        return !headings.some(([, heading = '']) => anchorOf(heading) === anchor);
      }),
  );
  assert.deepEqual(broken, []);
});

test('every environment variable that a document names is read by the code', () => {
  const sources = globSync(
    ['{apps,packages,bench,scripts,test}/**/*.ts', 'compose.yaml', 'deploy/**/*.yaml', 'stryker.config.mjs'],
    {
      cwd: root,
      exclude: (file) => file.includes('node_modules') || file.includes('dist'),
    },
  );
  const variable = /\b(?:OFFSHOOT|AWS|AZURE)_[A-Z0-9_]+\b/g;
  const known = new Set(sources.flatMap((file) => read(file).match(variable) ?? []));
  const unknown = findings(({ text }) => (text.match(variable) ?? []).filter((name) => !known.has(name)));
  assert.deepEqual(unknown, []);
});

test('every npm script and every offshoot command that a document names exists', () => {
  const { scripts } = JSON.parse(read('package.json')) as { scripts: Record<string, string> };
  const commands = new Set(
    globSync('apps/server/src/commands/*.ts', { cwd: root }).flatMap((file) =>
      [...read(file).matchAll(/new Command\('([\w-]+)/g)].map(([, name = '']) => name),
    ),
  );
  const unknown = findings(({ text }) =>
    codeOf(text).flatMap((code) => [
      ...[...code.matchAll(/\bnpm (?:run (?:-\S+ )*([\w:-]+)|(test|start)\b)/g)]
        .map(([, script, short]) => script ?? short ?? '')
        .filter((name) => !(name in scripts))
        .map((name) => `npm run ${name}`),
      ...[...code.matchAll(/^(?:npx )?offshoot ([a-z-]+)/gm)]
        .map(([, name = '']) => name)
        .filter((name) => !commands.has(name))
        .map((name) => `offshoot ${name}`),
    ]),
  );
  assert.deepEqual(unknown, []);
});

test('the README lists every setting with its default', () => {
  const defaults = JSON.parse(JSON.stringify(loadConfig({}, { env: {} }))) as Record<string, unknown>;
  const listed = new Map<string, string>();
  const row = /^\| (`\w+`(?:, `\w+`)*) \|[^|]*\| ([^|]*) \|/gm;
  for (const [, names = '', values = ''] of read('README.md').matchAll(row)) {
    const settings = codeOf(names);
    const shown = settings.length > 1 ? values.split(', ') : [values];
    settings.forEach((setting, index) => listed.set(setting, (shown[index] ?? '').replaceAll('`', '')));
  }
  const missing = Object.keys(defaults).filter((setting) => !listed.has(setting));
  assert.deepEqual(missing, []);
  for (const [setting, shown] of listed) {
    // Others are described in words, or have no default.
    if (!/^(?:\{|\["|\d|true$|false$)/.test(shown) || !(setting in defaults)) continue;
    const value = JSON.parse(shown) as unknown;
    // The further properties of a store depend on its type, which the README explains beside the default.
    if (setting === 'store') assert.partialDeepStrictEqual(defaults[setting], value);
    else assert.deepEqual(value, defaults[setting], setting);
  }
});

test('docs/architecture.md lists the layers that the linter enforces, in their order', () => {
  const [, list = ''] = /^const layers = \[\n(.*?)^\];/ms.exec(read('eslint.config.js')) ?? [];
  const enforced = [...list.matchAll(/\[([^\]]*)\]/g)].map(([, layer = '']) =>
    [...layer.matchAll(/'([^']+)'/g)].map(([, entry]) => entry).sort(),
  );
  const described = [...read('docs/architecture.md').matchAll(/^\| \d+\. [^|]+\|([^|]+)\|/gm)].map(([, cell = '']) =>
    codeOf(cell)
      .map((entry) => entry.replace(/\/$/, ''))
      .sort(),
  );
  assert.ok(enforced.length > 5);
  assert.deepEqual(described, enforced);
});
