import markdownIt from 'markdown-it';
import { hrefOf, targetOf } from './pages.ts';

/** What Eleventy passes to the renderer. */
interface Environment {
  page: { inputPath: string };
}

/** A heading of a page. */
export interface Heading {
  level: number;
  text: string;
  anchor: string;
}

/** As GitHub makes it from the text of a heading: lower case, no punctuation, hyphens for spaces. */
const anchorOf = (heading: string): string =>
  heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');

type Token = ReturnType<ReturnType<typeof markdownIt>['parse']>[number];

function attributeOf(token: Token, name: string): string | undefined {
  const value = token.attrGet(name);
  return value === null ? undefined : String(value);
}

/** The text of a heading without its markup. */
const plainText = (inline: Token): string =>
  (inline.children ?? [])
    .filter(({ type }) => type === 'text' || type === 'code_inline')
    .map(({ content }) => content)
    .join('');

/** Headings with the anchors that GitHub gives them: a repeated one gets a number. */
function headingsIn(tokens: readonly Token[]): { token: Token; heading: Heading }[] {
  const seen = new Map<string, number>();
  return tokens.flatMap((token, position) => {
    const inline = tokens[position + 1];
    if (token.type !== 'heading_open' || inline === undefined) return [];
    const text = plainText(inline);
    const anchor = anchorOf(text);
    const earlier = seen.get(anchor) ?? 0;
    seen.set(anchor, earlier + 1);
    return [
      {
        token,
        heading: { level: Number(token.tag.slice(1)), text, anchor: earlier === 0 ? anchor : `${anchor}-${earlier}` },
      },
    ];
  });
}

const plain = markdownIt({ html: true });

export const headingsOf = (text: string): Heading[] => headingsIn(plain.parse(text, {})).map(({ heading }) => heading);

/** The text of a page, split at its headings, without markup. */
export function sectionsOf(text: string): { heading: string; anchor: string; body: string }[] {
  const tokens = plain.parse(text, {});
  const headings = new Map(headingsIn(tokens).map(({ token, heading }) => [token, heading]));
  const sections: { heading: string; anchor: string; body: string }[] = [];
  tokens.forEach((token, position) => {
    const heading = headings.get(token);
    if (heading !== undefined) sections.push({ heading: heading.text, anchor: heading.anchor, body: '' });
    const section = sections.at(-1);
    if (section === undefined || tokens[position - 1]?.type === 'heading_open') return;
    const words = token.type === 'inline' ? plainText(token) : token.type === 'fence' ? token.content : '';
    if (words !== '') section.body = `${section.body}${section.body === '' ? '' : ' '}${words}`;
  });
  return sections;
}

/** Targets of the links and images of a page, as they are written. */
export function linksOf(text: string): string[] {
  return plain
    .parse(text, {})
    .flatMap(({ children }) => children ?? [])
    .flatMap((token) => attributeOf(token, token.type === 'image' ? 'src' : 'href') ?? []);
}

/** A section of the index: its heading, and the documents that its list links to. */
export interface IndexSection {
  title: string;
  links: string[];
}

/** The sections of the index of documents. */
export function indexOf(text: string): IndexSection[] {
  const sections: IndexSection[] = [];
  const tokens = plain.parse(text, {});
  tokens.forEach((token, position) => {
    if (token.type === 'heading_open' && token.tag === 'h2')
      sections.push({ title: plainText(tokens[position + 1] as Token), links: [] });
    // The first link of an entry names the document, others are part of its description.
    const entry = token.type === 'list_item_open' ? tokens[position + 2] : undefined;
    const link = entry?.children?.find(({ type }) => type === 'link_open')?.attrGet('href');
    if (typeof link === 'string') sections.at(-1)?.links.push(link);
  });
  return sections;
}

const pageOf = (environment: unknown): string => (environment as Environment).page.inputPath.replace(/^\.\//, '');

/**
 * Renders the files as they are. What differs from GitHub: links lead to pages of the guide, and the result has no inline style,
 * because the policy of the pages forbids it.
 */
export function renderer(): ReturnType<typeof markdownIt> {
  const markdown = markdownIt({ html: true, linkify: true });
  markdown.linkify.set({ fuzzyLink: false, fuzzyEmail: false });
  markdown.core.ruler.push('guide', ({ tokens, env }) => {
    for (const { token, heading } of headingsIn(tokens)) token.attrSet('id', heading.anchor);
    for (const token of tokens) {
      const style = attributeOf(token, 'style');
      if (style !== undefined) {
        token.attrs = (token.attrs ?? []).filter(([name]) => name !== 'style');
        token.attrJoin('class', style.replace('text-align:', 'align-'));
      }
      if (token.children !== null) leadToPages(token.children, pageOf(env));
    }
  });
  markdown.renderer.rules['table_open'] = () =>
    '<div class="table" tabindex="0" role="region" aria-label="Table"><table>\n';
  markdown.renderer.rules['table_close'] = () => '</table></div>\n';
  return markdown;
}

function leadToPages(tokens: Token[], page: string): void {
  const open: Token[] = [];
  for (const token of tokens) {
    if (token.type === 'link_open') open.push(token);
    const name = token.type === 'image' ? 'src' : token.type === 'link_open' ? 'href' : undefined;
    const link = name === undefined ? undefined : attributeOf(token, name);
    const target = link === undefined ? undefined : targetOf(page, link);
    if (name !== undefined && target !== undefined) {
      const href = hrefOf(page, target);
      // What the guide does not have remains as text.
      if (href === undefined) token.tag = 'span';
      token.attrs = (token.attrs ?? []).filter(([attribute]) => attribute !== name);
      if (href !== undefined) token.attrSet(name, href);
    }
    if (token.type === 'link_close') token.tag = open.pop()?.tag ?? token.tag;
  }
}
