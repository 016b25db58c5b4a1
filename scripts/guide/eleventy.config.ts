/** The configuration of Eleventy: which files become pages, where, and what the layout is given. */
import path from 'node:path';
import { headingsOf, indexOf, renderer } from './markdown.ts';
import { addressOf, hrefOf, index, otherFiles, targetOf, textOf } from './pages.ts';

/** What is used of Eleventy, which has no types. */
interface Configuration {
  setLibrary(name: 'md', library: unknown): void;
  setTemplateFormats(formats: string[]): void;
  setUseGitIgnore(use: boolean): void;
  ignores: Set<string>;
  addGlobalData(name: string, value: unknown): void;
  addPassthroughCopy(files: Record<string, string>): void;
  addWatchTarget(pattern: string): void;
}

interface Data {
  page: { inputPath: string };
}

const fileOf = ({ page }: Data): string => page.inputPath.replace(/^\.\//, '');
const titleOf = (file: string): string => headingsOf(textOf(file))[0]?.text ?? file;

/** The navigation: the index of documents, with titles, relative to a page. */
function navigation(page: string): object[] {
  return indexOf(textOf(index)).map(({ title, links }) => ({
    title,
    pages: links.flatMap((link) => {
      const target = targetOf(index, link);
      if (target?.kind !== 'page') return [];
      const folder = path.posix.dirname(target.file);
      const isBelow = target.file.endsWith('/README.md') && target.file !== index && page.startsWith(`${folder}/`);
      return [
        {
          title: titleOf(target.file),
          href: hrefOf(page, { ...target, anchor: undefined }),
          current: target.file === page || isBelow,
        },
      ];
    }),
  }));
}

export default function configure(configuration: Configuration): object {
  configuration.setLibrary('md', renderer());
  configuration.setTemplateFormats(['md']);
  configuration.setUseGitIgnore(false);
  for (const file of ['.*/**', ...otherFiles()]) configuration.ignores.add(file);
  configuration.addGlobalData('layout', 'layout.njk');
  configuration.addGlobalData('eleventyComputed', {
    permalink: (data: Data) => addressOf(fileOf(data)),
    title: (data: Data) => titleOf(fileOf(data)),
    headings: (data: Data) => headingsOf(textOf(fileOf(data))).filter(({ level }) => level === 2),
    navigation: (data: Data) => navigation(fileOf(data)),
    top: (data: Data) => path.posix.relative(path.posix.dirname(addressOf(fileOf(data))), '') || '.',
  });
  configuration.addPassthroughCopy({ 'docs/site/style.css': 'style.css' });
  configuration.addWatchTarget('./docs/site/');
  // Braces in documents are text, not templates.
  return { markdownTemplateEngine: false, dir: { includes: 'docs/site', data: 'docs/site/data' } };
}
