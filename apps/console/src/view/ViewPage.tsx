import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useEffect, useMemo, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { headQuery, iModelQuery } from '../api/queries.ts';
import { FaultState } from '../components/FaultState.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { numberText } from '../format.ts';
import { colorsOf, compare } from './compare.ts';
import type { Look, Triple, Viewer } from './engine/Viewer.ts';
import { boundsOf, type ElementTable } from './graphics.ts';
import { lookIn, lookText, pointIn, sectionIn, type Point, type ViewSearch } from './search.ts';
import { SidePanel } from './SidePanel.tsx';
import { Toolbar, type Tool } from './Toolbar.tsx';
import { usePoint, type LoadedPoint } from './usePoint.ts';
import { Viewport, type Hidden, type Measured } from './Viewport.tsx';
import './view.css';

/** How long the address stays behind the camera, milliseconds. */
const addressMs = 400;
const none: readonly undefined[] = [];

/** An iModel in 3D at one point, beside another point if wanted. */
export function ViewPage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const { at } = useSearch({ from: '/imodels/$iModelId/view' });
  const head = useQuery(headQuery(iModelId));
  if (head.isError) return <FaultState fault={head.error} onRetry={() => void head.refetch()} />;
  if (head.isPending) return <Waiting />;
  const last = head.data?.index ?? 0;
  return <Workbench key={iModelId} point={{ iModelId, index: Math.min(at ?? last, last) }} />;
}

type Side = 'main' | 'other';

function Workbench({ point }: { point: Point }) {
  const { t } = useTranslation();
  const search = useSearch({ from: '/imodels/$iModelId/view' });
  const setSearch = useSetSearch();
  const other = useMemo(() => pointIn(search.with), [search.with]);
  const section = useMemo(() => sectionIn(search.section), [search.section]);
  const main = usePoint(point);
  const beside = usePoint(other ?? point, other !== undefined);
  const bounds = useMemo(() => boundsOf(main.graphics), [main.graphics]);
  const [tool, setTool] = useState<Tool>('select');
  const [edges, setEdges] = useState(true);
  const [panel, setPanel] = useState(true);
  const [colored, setColored] = useState(true);
  const { hidden, setHidden } = useHidden(main.table, other === undefined ? undefined : beside.table);
  const { measured, measure, clearMeasure } = useMeasure();
  const linked = useLinkedViewers((look) => setSearch({ look: lookText(look) }));
  const { comparison, colors } = useComparison(main, other === undefined ? undefined : beside, colored);
  const onPick = (side: Side) => (found: { id: string; point: Triple } | undefined) => {
    if (tool === 'measure') {
      if (found !== undefined) measure(side, found.point);
    } else setSearch({ element: found?.id });
  };
  const label = usePointLabel();
  const firstLook = useRef(lookIn(search.look));
  const viewport = (side: Side, of: LoadedPoint) => (
    <Viewport
      point={of}
      label={label(of)}
      colors={colors[side]}
      selected={search.element}
      hidden={hidden}
      section={section}
      edges={edges}
      walking={tool === 'walk'}
      measured={measured?.side === side ? measured : undefined}
      firstLook={firstLook.current}
      onReady={(viewer) => linked.register(side, viewer)}
      onLook={(look) => {
        firstLook.current = look;
        linked.follow(side, look);
      }}
      onPick={onPick(side)}
      onWalkEnd={() => setTool('select')}
    />
  );
  return (
    <div className="view">
      <Toolbar
        point={point}
        other={other}
        is2d={main.graphics?.summary?.is2d ?? false}
        bounds={bounds}
        tool={tool}
        section={section}
        edges={edges}
        panel={panel}
        onFit={(direction) => linked.fit(direction)}
        onTool={(next) => (setTool(next), clearMeasure())}
        onEdges={setEdges}
        onPanel={setPanel}
        setSearch={setSearch}
      />
      <p id="view-keys" className="view-hint">
        {t(hintOf(tool, main.graphics?.summary?.is2d ?? false))}
      </p>
      <div className={`view-body${panel ? ' with-panel' : ''}`}>
        <div className={`viewports${other === undefined ? '' : ' two'}`}>
          {other !== undefined && viewport('other', beside)}
          {viewport('main', main)}
        </div>
        {panel && (
          <SidePanel
            main={main}
            other={other === undefined ? undefined : beside}
            comparison={comparison}
            colored={colored}
            onColored={setColored}
            hidden={hidden}
            onHidden={setHidden}
            element={search.element}
            onElement={(element) => setSearch({ element })}
            onZoom={(box) => linked.zoomTo(box)}
            measured={measured}
          />
        )}
      </div>
    </div>
  );
}

function hintOf(tool: Tool, is2d: boolean) {
  if (tool === 'measure') return 'view.measureHint';
  if (tool === 'walk') return 'view.walkHint';
  return is2d ? 'view.keys2d' : 'view.keys';
}

/** What is switched off: at first the subcategories that the iModel hides. */
function useHidden(table: ElementTable | undefined, besides: ElementTable | undefined) {
  const [chosen, setHidden] = useState<Hidden>();
  const hidden = useMemo(
    (): Hidden =>
      chosen ?? {
        models: new Set(),
        categories: new Set(),
        subCategories: new Set(
          [table, besides].flatMap((each) =>
            (each?.subCategories ?? []).flatMap(({ id, hidden: isOff }) => (isOff ? [id] : [])),
          ),
        ),
      },
    [chosen, table, besides],
  );
  return { hidden, setHidden };
}

/** What differs between two points, and the colors that show it. */
function useComparison(main: LoadedPoint, beside: LoadedPoint | undefined, colored: boolean) {
  const [before, after] = [beside?.table, main.table];
  const comparison = useMemo(
    () => (before === undefined || after === undefined ? undefined : compare(before, after)),
    [before, after],
  );
  const colors = useMemo(
    () =>
      comparison === undefined || !colored
        ? { main: none, other: none }
        : { main: colorsOf(comparison.after), other: colorsOf(comparison.before) },
    [comparison, colored],
  );
  return { comparison, colors };
}

/** Changes a part of the address without a new entry in the history of the browser. */
function useSetSearch(): (change: ViewSearch & { at?: number | undefined }) => void {
  const navigate = useNavigate({ from: '/imodels/$iModelId/view' });
  return (change) =>
    void navigate({
      replace: true,
      resetScroll: false,
      search: (before) => ({ ...before, ...change }),
    });
}

/** The viewers of a page: what one shows, the others show from the same place. */
function useLinkedViewers(tell: (look: Look) => void) {
  const viewers = useRef(new Map<Side, Viewer>());
  const timer = useRef<ReturnType<typeof setTimeout>>(undefined);
  useEffect(() => () => clearTimeout(timer.current), []);
  return {
    register(side: Side, viewer: Viewer | undefined): void {
      if (viewer === undefined) viewers.current.delete(side);
      else viewers.current.set(side, viewer);
    },
    follow(side: Side, look: Look): void {
      for (const [each, viewer] of viewers.current) if (each !== side) viewer.setLook(look);
      clearTimeout(timer.current);
      timer.current = setTimeout(() => tell(look), addressMs);
    },
    fit(direction: Parameters<Viewer['fit']>[0]): void {
      (viewers.current.get('main') ?? viewers.current.get('other'))?.fit(direction);
    },
    zoomTo(box: readonly number[]): void {
      (viewers.current.get('main') ?? viewers.current.get('other'))?.fitElement(box);
    },
  };
}

function useMeasure() {
  const { t } = useTranslation();
  const [measured, setMeasured] = useState<Measured & { side: Side }>();
  return {
    measured,
    clearMeasure: () => setMeasured(undefined),
    measure: (side: Side, point: Triple): void => {
      setMeasured((before) => {
        const first = before?.side === side && before.points.length === 1 ? before.points[0] : undefined;
        if (first === undefined) return { side, points: [point], text: '' };
        const length = Math.hypot(...first.map((value, n) => value - (point[n] ?? 0)));
        return { side, points: [first, point], text: t('view.meters', { length: numberText(+length.toFixed(3)) }) };
      });
    },
  };
}

/** Names a point: the iModel, and its changeset. */
function usePointLabel(): (point: Point) => string {
  const { t } = useTranslation();
  const search = useSearch({ from: '/imodels/$iModelId/view' });
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const other = pointIn(search.with);
  const own = useQuery(iModelQuery(iModelId));
  const foreign = useQuery({ ...iModelQuery(other?.iModelId ?? iModelId), enabled: other !== undefined, retry: false });
  return ({ iModelId: id, index }) => {
    const name = (id === iModelId ? own.data : foreign.data)?.displayName ?? t('common.loading');
    return index === 0 ? t('view.ofBaseline', { name }) : t('view.of', { name, index: numberText(index) });
  };
}
