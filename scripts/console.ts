/**
 * `npm run console`: builds the console that a server shows at `/console`, with compressed variants of its files beside them.
 * `--if-needed` builds only when nothing is built, or when a source is newer; `--watch` builds again when a source changes;
 * `--output FOLDER` puts it elsewhere.
 */
import { globSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs, promisify } from 'node:util';
import { brotliCompress, constants, gzip } from 'node:zlib';
import { build } from 'vite';
import { root } from './guide/pages.ts';

const { values } = parseArgs({
  options: {
    'if-needed': { type: 'boolean', default: false },
    watch: { type: 'boolean', default: false },
    output: { type: 'string' },
  },
});
const sources = path.join(root, 'apps/console');
const output = path.resolve(values.output ?? path.join(root, 'apps/server/dist/console'));
/** Files smaller than this are not worth a compressed variant, bytes. */
const smallestCompressed = 1024;

function isCurrent(): boolean {
  const changed = (file: string): number => statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const built = changed(path.join(output, 'index.html'));
  const files = globSync(['src/**/*.{ts,tsx,css,json}', 'public/*', 'index.html', 'vite.config.ts', 'package.json'], {
    cwd: sources,
  });
  return files.every((file) => changed(path.join(sources, file)) <= built);
}

async function compress(file: string): Promise<void> {
  const bytes = readFileSync(file);
  if (bytes.length < smallestCompressed) return;
  const [small, smaller] = await Promise.all([
    promisify(gzip)(bytes, { level: 9 }),
    promisify(brotliCompress)(bytes, {
      params: { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: bytes.length },
    }),
  ]);
  writeFileSync(`${file}.gz`, small);
  writeFileSync(`${file}.br`, smaller);
}

if (!values['if-needed'] || !isCurrent()) {
  if (values['if-needed'])
    console.log('Building the console, which takes some seconds. It is built again only after a change.');
  rmSync(output, { recursive: true, force: true });
  await build({
    root: sources,
    logLevel: values.watch ? 'info' : 'warn',
    build: { outDir: output, ...(values.watch && { watch: {} }) },
  });
  if (!values.watch) {
    const files = globSync('**/*.{js,css,svg,md}', { cwd: output }).map((file) => path.join(output, file));
    await Promise.all(files.map(compress));
    console.log(`console in ${path.relative(process.cwd(), output)}`);
  }
}
