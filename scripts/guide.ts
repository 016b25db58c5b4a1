/**
 * `npm run guide`: makes the pages that a server shows at `/docs/guide` from the documents of the repository, as they are.
 * `npm run guide -- --serve` shows them at http://localhost:8080 and makes them again when a document changes;
 * `--output FOLDER` puts them elsewhere.
 */
import { cpSync, existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import Eleventy from '@11ty/eleventy';
import { linksOf } from './guide/markdown.ts';
import { copyOf, pageFiles, root, targetOf, textOf } from './guide/pages.ts';
import { searchIndex, searchScript } from './guide/searchIndex.ts';

const { values } = parseArgs({
  options: { serve: { type: 'boolean', default: false }, output: { type: 'string' } },
});
const output = path.resolve(values.output ?? path.join(root, 'apps/server/dist/guide'));

/** Files of the repository that pages link to, other than pages. */
function linkedFiles(): { file: string; place: string }[] {
  return pageFiles
    .flatMap((page) => linksOf(textOf(page)).flatMap((link) => targetOf(page, link) ?? []))
    .flatMap(({ file, kind }) =>
      kind === 'image'
        ? [{ file, place: file.replace(/^docs\//, '') }]
        : kind === 'copy'
          ? [{ file, place: copyOf(file) }]
          : [],
    );
}

rmSync(output, { recursive: true, force: true });
process.chdir(root);
const eleventy = new Eleventy('.', output, {
  quietMode: true,
  source: 'script',
  runMode: values.serve ? 'serve' : 'build',
  configPath: 'scripts/guide/eleventy.config.ts',
});
await eleventy.init();
for (const { file, place } of linkedFiles()) {
  const target = path.join(output, place);
  if (existsSync(target)) continue;
  mkdirSync(path.dirname(target), { recursive: true });
  cpSync(path.join(root, file), target);
}
mkdirSync(output, { recursive: true });
writeFileSync(path.join(output, 'search.json'), searchIndex());
writeFileSync(path.join(output, 'search.js'), await searchScript());
if (values.serve) {
  await eleventy.watch();
  await eleventy.serve(8080);
} else {
  await eleventy.write();
  console.log(`${pageFiles.length} pages in ${path.relative(process.cwd(), output)}`);
}
