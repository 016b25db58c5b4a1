import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import MiniSearch from 'minisearch';
import { sectionsOf } from './markdown.ts';
import { addressOf, pageFiles, textOf } from './pages.ts';
import { indexOptions, type Section } from './searchOptions.ts';

/** Most letters of a section that are shown with it. */
const shownLetters = 160;

/** The index of all pages, by section, as the page of the reader loads it. */
export function searchIndex(): string {
  const search = new MiniSearch<Section & { body: string }>(indexOptions);
  for (const file of pageFiles) {
    const sections = sectionsOf(textOf(file));
    const page = sections[0]?.heading ?? file;
    for (const { heading, anchor, body } of sections)
      search.add({
        id: `${addressOf(file)}#${anchor}`,
        page,
        heading,
        text: body.slice(0, shownLetters),
        body,
      });
  }
  return JSON.stringify(search);
}

/** The script of the pages, with the library that searches the index. */
export async function searchScript(): Promise<string> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL('./searchPage.ts', import.meta.url))],
    bundle: true,
    minify: true,
    write: false,
    format: 'iife',
    platform: 'browser',
    logLevel: 'silent',
  });
  return outputFiles[0]?.text ?? '';
}
