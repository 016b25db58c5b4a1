import { Button, Checkbox, Input, Surface, Text, ToggleSwitch } from '@itwin/itwinui-react';
import { useId, useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { Facts } from '../components/Facts.tsx';
import { numberText } from '../format.ts';
import type { Comparison, Difference } from './compare.ts';
import type { ElementTable } from './graphics.ts';
import type { LoadedPoint } from './usePoint.ts';
import type { Hidden, Measured } from './Viewport.tsx';

interface PanelProps {
  main: LoadedPoint;
  other: LoadedPoint | undefined;
  comparison: Comparison | undefined;
  colored: boolean;
  onColored: (on: boolean) => void;
  hidden: Hidden;
  onHidden: (hidden: Hidden) => void;
  element: string | undefined;
  onElement: (id: string | undefined) => void;
  onZoom: (box: readonly number[]) => void;
  measured: Measured | undefined;
}

/** Entries of a list that are shown without a search. */
const mostEntries = 200;

export function SidePanel(props: PanelProps) {
  const { main, other, comparison, element, measured } = props;
  const { t } = useTranslation();
  const summary = main.graphics?.summary;
  return (
    <Surface as="aside" elevation={1} className="view-panel" aria-label={t('view.panel')}>
      {comparison !== undefined && <Differences {...props} comparison={comparison} />}
      <Selection {...props} />
      <p role="status" className="view-status">
        {element !== undefined && t('view.selected', { name: nameOf([main, other], element) })}
        {measured !== undefined && measured.text !== '' && t('view.distance', { text: measured.text })}
      </p>
      <Layers {...props} kind="categories" />
      <Layers {...props} kind="models" />
      {summary != null && (
        <Text as="p" variant="small" isMuted>
          {t('view.summary', { elements: numberText(summary.elements), triangles: numberText(summary.triangles) })}{' '}
          {summary.omittedElements > 0 &&
            t('view.omitted', { count: summary.omittedElements, number: numberText(summary.omittedElements) })}
        </Text>
      )}
    </Surface>
  );
}

/** The label of an element, or its class. */
function nameOf(points: readonly (LoadedPoint | undefined)[], id: string): string {
  for (const point of points) {
    const n = point?.indexes.get(id);
    if (point?.table === undefined || n === undefined) continue;
    const { elements, classes } = point.table;
    return elements.label[n] ?? classes[elements.class[n] ?? 0]?.split(':')[1] ?? id;
  }
  return id;
}

function Selection({ main, other, comparison, element, onElement, onZoom }: PanelProps) {
  const { t } = useTranslation();
  const place = [main, other].find((point) => element !== undefined && point?.indexes.has(element));
  if (element === undefined || place?.table === undefined)
    return (
      <section>
        <Text as="h2" variant="leading">
          {t('view.selection')}
        </Text>
        <Text as="p" isMuted>
          {t(element === undefined ? 'view.nothingSelected' : 'view.notHere')}
        </Text>
      </section>
    );
  const { elements, classes, models, categories } = place.table;
  const n = place.indexes.get(element) as number;
  const box = elements.box[n];
  const size = box == null ? undefined : [0, 1, 2].map((at) => (box[at + 3] ?? 0) - (box[at] ?? 0));
  const difference = (place === main ? comparison?.after : comparison?.before)?.[n];
  return (
    <section>
      <Text as="h2" variant="leading">
        {nameOf([place], element)}
      </Text>
      <Facts
        facts={[
          [t('view.class'), classes[elements.class[n] ?? 0] ?? ''],
          [t('view.category'), categories[elements.category[n] ?? 0]?.label ?? ''],
          [t('view.model'), models[elements.model[n] ?? 0]?.label ?? ''],
          ...(size === undefined
            ? []
            : [
                [
                  t('view.size'),
                  t('view.meters', { length: size.map((each) => numberText(+each.toFixed(2))).join(' × ') }),
                ] as const,
              ]),
          ...(difference === undefined ? [] : [[t('view.difference'), t(`view.differences.${difference}`)] as const]),
          [t('fields.id'), <code key="id">{element}</code>],
        ]}
      />
      <div className="actions">
        {box != null && (
          <Button size="small" onClick={() => onZoom(box)}>
            {t('view.zoomTo')}
          </Button>
        )}
        <Button size="small" styleType="borderless" onClick={() => onElement(undefined)}>
          {t('view.deselect')}
        </Button>
      </div>
    </section>
  );
}

const shownDifferences = ['added', 'removed', 'changed', 'same', 'unknown'] as const satisfies readonly Difference[];

function Differences({
  comparison,
  colored,
  onColored,
  main,
  other,
  element,
  onElement,
}: PanelProps & { comparison: Comparison }) {
  const { t } = useTranslation();
  const { counts } = comparison;
  /** The elements that differ, in the order of the tables. */
  const different = useMemo(() => {
    const found: string[] = [];
    comparison.before.forEach((each, n) => {
      if (each === 'removed') found.push(other?.table?.elements.id[n] ?? '');
    });
    comparison.after.forEach((each, n) => {
      if (each === 'added' || each === 'changed') found.push(main.table?.elements.id[n] ?? '');
    });
    return found;
  }, [comparison, main.table, other?.table]);
  const next = () => onElement(different[(different.indexOf(element ?? '') + 1) % different.length]);
  return (
    <section>
      <Text as="h2" variant="leading">
        {t('view.whatDiffers')}
      </Text>
      <ul className="view-legend">
        {shownDifferences
          .filter((each) => each !== 'unknown' || counts.unknown > 0)
          .map((each) => (
            <li key={each} className={each}>
              <span className="swatch" aria-hidden />
              {t(`view.counts.${each}`, { count: counts[each], number: numberText(counts[each]) })}
            </li>
          ))}
      </ul>
      <ToggleSwitch
        label={t('view.inColor')}
        checked={colored}
        onChange={({ currentTarget }) => onColored(currentTarget.checked)}
      />
      {different.length > 0 && (
        <div className="actions">
          <Button size="small" onClick={next}>
            {t('view.nextDifference')}
          </Button>
        </div>
      )}
      <Text as="p" variant="small" isMuted>
        {t('view.exactness')}
      </Text>
    </section>
  );
}

/** Switches for models or categories, of both points together. */
function Layers({ main, other, hidden, onHidden, kind }: PanelProps & { kind: 'models' | 'categories' }) {
  const { t } = useTranslation();
  const heading = useId();
  const [search, setSearch] = useState('');
  const entries = useMemo(() => entriesOf(kind, [main.table, other?.table]), [kind, main.table, other?.table]);
  if (entries.length === 0) return null;
  const wanted = entries.filter(({ label }) => label.toLowerCase().includes(search.toLowerCase()));
  const off = hidden[kind];
  const set = (ids: Iterable<string>) => onHidden({ ...hidden, [kind]: new Set(ids) });
  return (
    <section aria-labelledby={heading}>
      <div className="view-heading">
        <Text as="h2" variant="leading" id={heading}>
          {t(`view.${kind}`)}
        </Text>
        <Button
          size="small"
          styleType="borderless"
          onClick={() => set(off.size === 0 ? entries.map(({ id }) => id) : [])}
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
        {wanted.slice(0, mostEntries).map(({ id, label, count }) => (
          <li key={id}>
            <Checkbox
              label={label}
              checked={!off.has(id)}
              onChange={({ currentTarget }) => {
                const next = new Set(off);
                if (currentTarget.checked) next.delete(id);
                else next.add(id);
                set(next);
              }}
            />
            <Text as="span" variant="small" isMuted>
              {numberText(count)}
            </Text>
          </li>
        ))}
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

function entriesOf(kind: 'models' | 'categories', tables: readonly (ElementTable | undefined)[]) {
  const entries = new Map<string, { id: string; label: string; count: number }>();
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
  return [...entries.values()].sort((a, b) => a.label.localeCompare(b.label));
}
