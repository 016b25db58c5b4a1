import { Button, Surface, Text, ToggleSwitch } from '@itwin/itwinui-react';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import { Facts } from '../components/Facts.tsx';
import { numberText } from '../format.ts';
import type { Comparison, Difference } from './compare.ts';
import { Layers } from './Layers.tsx';
import { Outdated } from './NoGraphics.tsx';
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

export function SidePanel(props: PanelProps) {
  const { main, other, comparison, element, measured, hidden, onHidden } = props;
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
      <Layers tables={[main.table, other?.table]} hidden={hidden} onHidden={onHidden} kind="categories" />
      <Layers tables={[main.table, other?.table]} hidden={hidden} onHidden={onHidden} kind="models" />
      {[main, other].map(
        (point) =>
          point?.graphics?.summary?.outdated === true && (
            <Outdated key={`${point.iModelId} ${point.index}`} point={point} />
          ),
      )}
      {summary != null && (
        <Text as="p" variant="small" isMuted>
          {t('view.elements', { count: summary.elements, number: numberText(summary.elements) })},{' '}
          {t('view.triangles', { count: summary.triangles, number: numberText(summary.triangles) })}.{' '}
          {summary.omittedElements > 0 &&
            t('view.omitted', { count: summary.omittedElements, number: numberText(summary.omittedElements) })}{' '}
          {summary.omittedTextures > 0 &&
            t('view.omittedTextures', { count: summary.omittedTextures, number: numberText(summary.omittedTextures) })}
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
