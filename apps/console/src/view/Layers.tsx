import { Button, Checkbox, Input, Text } from '@itwin/itwinui-react';
import { useId, useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { numberText } from '../format.ts';
import type { ElementTable } from './graphics.ts';
import type { Hidden } from './Viewport.tsx';

type Tables = readonly (ElementTable | undefined)[];

interface LayersProps {
  /** Of one point, or of two. */
  tables: Tables;
  hidden: Hidden;
  onHidden: (hidden: Hidden) => void;
  kind: 'models' | 'categories';
}

/** Something that is switched on and off. */
interface Entry {
  id: string;
  label: string;
  /** Elements. */
  count: number;
}

/** Entries of a list that are shown without a search. */
const mostEntries = 200;

/** Switches for models or categories, of both points together. */
export function Layers({ tables, hidden, onHidden, kind }: LayersProps) {
  const { t } = useTranslation();
  const heading = useId();
  const [search, setSearch] = useState('');
  const [first, second] = tables;
  const entries = useMemo(() => entriesOf(kind, [first, second]), [kind, first, second]);
  const subCategories = useMemo(
    () => (kind === 'categories' ? subCategoriesOf([first, second]) : new Map<string, Entry[]>()),
    [kind, first, second],
  );
  if (entries.length === 0) return null;
  const wanted = entries.filter(({ label }) => label.toLowerCase().includes(search.toLowerCase()));
  const off = hidden[kind];
  const set = (ids: ReadonlySet<string>) => onHidden({ ...hidden, [kind]: ids });
  return (
    <section aria-labelledby={heading}>
      <div className="view-heading">
        <Text as="h2" variant="leading" id={heading}>
          {t(`view.${kind}`)}
        </Text>
        <Button
          size="small"
          styleType="borderless"
          onClick={() => set(new Set(off.size === 0 ? entries.map(({ id }) => id) : []))}
        >
          {t(off.size === 0 ? 'view.hideAll' : 'view.showAll')}
        </Button>
      </div>
      {entries.length > 12 && (
        <Input
          size="small"
          type="search"
          aria-label={t('view.searchLayers')}
          placeholder={t('view.searchLayers')}
          value={search}
          onChange={({ currentTarget }) => setSearch(currentTarget.value)}
        />
      )}
      <ul className="view-layers">
        {wanted.slice(0, mostEntries).flatMap((entry) => {
          const below = subCategories.get(entry.id);
          return [
            <Switch key={entry.id} entry={entry} off={off} onOff={set} />,
            below !== undefined && (
              <SubCategories
                key={`${entry.id} below`}
                category={entry.label}
                entries={below}
                off={hidden.subCategories}
                onOff={(ids) => onHidden({ ...hidden, subCategories: ids })}
              />
            ),
          ];
        })}
      </ul>
      {wanted.length > mostEntries && (
        <Text as="p" variant="small" isMuted>
          {t('view.moreLayers', {
            count: wanted.length - mostEntries,
            number: numberText(wanted.length - mostEntries),
          })}
        </Text>
      )}
    </section>
  );
}

interface SwitchProps {
  off: ReadonlySet<string>;
  onOff: (ids: ReadonlySet<string>) => void;
}

function Switch({ entry: { id, label, count }, off, onOff }: SwitchProps & { entry: Entry }) {
  return (
    <li>
      <Checkbox
        label={label}
        checked={!off.has(id)}
        onChange={({ currentTarget }) => {
          const next = new Set(off);
          if (currentTarget.checked) next.delete(id);
          else next.add(id);
          onOff(next);
        }}
      />
      <Text as="span" variant="small" isMuted>
        {numberText(count)}
      </Text>
    </li>
  );
}

/** The subcategories of a category. They show only while their category does. */
function SubCategories({ category, entries, ...switches }: SwitchProps & { category: string; entries: Entry[] }) {
  const { t } = useTranslation();
  return (
    <li className="nested">
      <details>
        <summary>
          {t('view.subCategories', { count: entries.length, number: numberText(entries.length), name: category })}
        </summary>
        <ul className="view-layers">
          {entries.slice(0, mostEntries).map((entry) => (
            <Switch
              key={entry.id}
              // The default subcategory has the name of its category.
              entry={
                entry.label === category ? { ...entry, label: t('view.defaultSubCategory', { name: category }) } : entry
              }
              {...switches}
            />
          ))}
        </ul>
      </details>
    </li>
  );
}

function entriesOf(kind: 'models' | 'categories', tables: Tables): Entry[] {
  const entries = new Map<string, Entry>();
  for (const table of tables) {
    if (table === undefined) continue;
    const counts = new Map<number, number>();
    const column = kind === 'models' ? table.elements.model : table.elements.category;
    for (const n of column) counts.set(n, (counts.get(n) ?? 0) + 1);
    table[kind].forEach(({ id, label }, n) => {
      const count = counts.get(n) ?? 0;
      if (count > 0) entries.set(id, { id, label, count: Math.max(count, entries.get(id)?.count ?? 0) });
    });
  }
  return byLabel(entries.values());
}

/** The subcategories by the ids of their categories, where there is something to choose: several, or one that is off at first. */
function subCategoriesOf(tables: Tables): Map<string, Entry[]> {
  const found = new Map<string, Map<string, Entry>>();
  const switched = new Set<string>();
  for (const table of tables)
    for (const { id, label, category, hidden, elements } of table?.subCategories ?? []) {
      const of = table?.categories[category]?.id ?? '';
      const entries = found.get(of) ?? new Map<string, Entry>();
      found.set(of, entries.set(id, { id, label, count: Math.max(elements, entries.get(id)?.count ?? 0) }));
      if (hidden || entries.size > 1) switched.add(of);
    }
  return new Map([...found].flatMap(([id, entries]) => (switched.has(id) ? [[id, byLabel(entries.values())]] : [])));
}

function byLabel(entries: Iterable<Entry>): Entry[] {
  return [...entries].sort((a, b) => a.label.localeCompare(b.label));
}
