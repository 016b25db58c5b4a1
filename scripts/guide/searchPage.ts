/** Search in the pages of the guide. Bundled by `npm run guide`, and run in the browser of the reader. */
import MiniSearch from 'minisearch';
import { indexOptions, type Section } from './searchOptions.ts';

interface PageElement {
  hidden: boolean;
  value: string;
  href: string;
  className: string;
  textContent: string;
  dataset: Record<string, string | undefined>;
  addEventListener(event: string, listener: () => void): void;
  append(...children: PageElement[]): void;
  replaceChildren(...children: PageElement[]): void;
}

/** What this script uses of the document; it is compiled without the types of browsers. */
declare const document: {
  createElement(name: string): PageElement;
  querySelector(selector: string): PageElement | null;
};

const most = 12;
const [box, input, results] = ['.search', '#search', '#found'].map((selector) => document.querySelector(selector));
const top = box?.dataset['top'] ?? '.';
let loaded: Promise<MiniSearch<Section>> | undefined;

/** Loaded once, when somebody searches. */
async function load(): Promise<MiniSearch<Section>> {
  const answer = await fetch(`${top}/search.json`);
  if (!answer.ok) throw new Error('the index cannot be loaded');
  return MiniSearch.loadJSON<Section>(await answer.text(), indexOptions);
}

function element(name: string, text: string, className = ''): PageElement {
  const made = document.createElement(name);
  made.textContent = text;
  made.className = className;
  return made;
}

async function show(): Promise<void> {
  const text = input?.value.trim() ?? '';
  loaded ??= load();
  const search = await loaded.catch((error: unknown) => {
    loaded = undefined;
    throw error;
  });
  // A slow index must not answer an earlier text.
  if (text !== input?.value.trim()) return;
  const found = text === '' ? [] : search.search(text, { prefix: true, fuzzy: 0.1, boost: { heading: 3, page: 2 } });
  const items = found.slice(0, most).map((each) => {
    const { id, page, heading, text: start } = each as unknown as Section;
    const link = element('a', heading === page ? page : `${page}: ${heading}`);
    link.href = `${top}/${id}`;
    const item = element('li', '');
    item.append(link, element('p', start));
    return item;
  });
  results?.replaceChildren(...(text !== '' && items.length === 0 ? [element('li', 'Nothing was found.')] : items));
}

if (box !== null && box !== undefined && input !== null && input !== undefined) {
  box.hidden = false;
  input.addEventListener('input', () => {
    show().catch(() => results?.replaceChildren(element('li', 'The index of the guide cannot be loaded.')));
  });
}
