import { ProgressLinear, Text } from '@itwin/itwinui-react';
import { useEffect, useEffectEvent, useRef, useState, type KeyboardEvent, type PointerEvent } from 'react';
import { useTranslation } from 'react-i18next';
import { numberText } from '../format.ts';
import type { Look, Section, Triple, Viewer } from './engine/Viewer.ts';
import { boundsOf, chunkBytes, type ElementTable, type Graphics } from './graphics.ts';
import { NoGraphics } from './NoGraphics.tsx';
import type { LoadedPoint } from './usePoint.ts';

export interface Hidden {
  models: ReadonlySet<string>;
  categories: ReadonlySet<string>;
  subCategories: ReadonlySet<string>;
}

export interface Measured {
  points: readonly Triple[];
  /** What is written beside the line. */
  text: string;
}

interface ViewportProps {
  point: LoadedPoint;
  label: string;
  colors: readonly ([number, number, number, number] | undefined)[];
  selected: string | undefined;
  hidden: Hidden;
  section: Section | undefined;
  edges: boolean;
  walking: boolean;
  measured: Measured | undefined;
  firstLook: Look | undefined;
  onReady: (viewer: Viewer | undefined) => void;
  onLook: (look: Look) => void;
  onPick: (found: { id: string; point: Triple } | undefined) => void;
  onWalkEnd: () => void;
}

/** Pixels that the pointer may move between pressing and releasing in a click. */
const clickPixels = 4;

/** One drawing, or the reason why there is none. */
export function Viewport(props: ViewportProps) {
  const { point, label } = props;
  const { graphics, table } = point;
  const drawn = graphics?.state === 'successful' && graphics.chunks.length > 0 && table !== undefined;
  return (
    <section className="viewport" aria-label={label}>
      {drawn ? (
        <Drawing key={`${point.iModelId} ${point.index}`} {...props} graphics={graphics} table={table} />
      ) : (
        <NoGraphics point={point} />
      )}
      <Text as="span" variant="small" className="viewport-label">
        {label}
      </Text>
    </section>
  );
}

function Drawing(props: ViewportProps & { graphics: Graphics; table: ElementTable }) {
  const { label, graphics, measured } = props;
  const { t } = useTranslation();
  const canvas = useRef<HTMLCanvasElement>(null);
  const note = useRef<HTMLSpanElement>(null);
  const { viewer, loaded, fault } = useViewer(canvas, note, props);
  const pressed = useRef<{ x: number; y: number }>(undefined);
  const onPointerUp = ({ clientX: x, clientY: y, button }: PointerEvent<HTMLCanvasElement>) => {
    const from = pressed.current;
    pressed.current = undefined;
    if (from === undefined || button !== 0 || Math.hypot(x - from.x, y - from.y) > clickPixels) return;
    const { left, top } = (canvas.current as HTMLCanvasElement).getBoundingClientRect();
    const found = viewer?.pick(x - left, y - top);
    const id = found === undefined ? undefined : props.table.elements.id[found.feature];
    props.onPick(found === undefined || id === undefined ? undefined : { id, point: found.point });
  };
  const all = graphics.chunks.length;
  return (
    <>
      <canvas
        ref={canvas}
        className={`viewport-canvas${props.graphics.summary?.is2d === true ? ' paper' : ''}`}
        tabIndex={0}
        role="application"
        aria-label={t('view.canvas', { label })}
        aria-describedby="view-keys"
        data-state={fault !== undefined ? 'failed' : loaded === all ? 'complete' : loaded > 0 ? 'partial' : 'empty'}
        onPointerDown={({ clientX: x, clientY: y }) => (pressed.current = { x, y })}
        onPointerUp={onPointerUp}
        onKeyDown={(event) => viewer !== undefined && onKey(event, viewer, props)}
        onKeyUp={({ code, shiftKey }) => viewer?.walkKey(code, false, shiftKey)}
      />
      <span ref={note} className="viewport-note" hidden={measured === undefined || measured.points.length < 2}>
        {measured?.text}
      </span>
      {fault === undefined && loaded < all && (
        <div className="viewport-progress">
          <ProgressLinear
            aria-label={t('view.loading')}
            value={(100 * loaded) / all}
            labels={[t('view.parts', { count: all, done: numberText(loaded), all: numberText(all) })]}
          />
        </div>
      )}
      {fault !== undefined && (
        <div className="viewport-fault" role="alert">
          <Text as="p">{t(fault)}</Text>
        </div>
      )}
    </>
  );
}

function onKey(event: KeyboardEvent, viewer: Viewer, { walking, onWalkEnd }: ViewportProps): void {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const shift = event.shiftKey;
  if (walking) {
    if (event.key === 'Escape') onWalkEnd();
    else if (!viewer.walkKey(event.code, true, shift)) return;
    return event.preventDefault();
  }
  const step = 0.03;
  const move = (right: number, up: number) => () =>
    shift ? viewer.shift(right * 0.08, up * 0.08) : viewer.turn(-right * step, up * step);
  const actions: Record<string, () => void> = {
    ArrowLeft: move(-1, 0),
    ArrowRight: move(1, 0),
    ArrowUp: move(0, 1),
    ArrowDown: move(0, -1),
    '+': () => viewer.zoom(1.2),
    '=': () => viewer.zoom(1.2),
    '-': () => viewer.zoom(1 / 1.2),
    f: () => viewer.fit(),
    '1': () => viewer.fit('top'),
    '2': () => viewer.fit('front'),
    '3': () => viewer.fit('right'),
    '4': () => viewer.fit('back'),
    '5': () => viewer.fit('left'),
    '6': () => viewer.fit('bottom'),
    '0': () => viewer.fit('iso'),
  };
  const action = actions[event.key];
  if (action === undefined) return;
  event.preventDefault();
  action();
}

function nearest(chunks: readonly Graphics['chunks'][0][], viewer: Viewer): number {
  const distances = chunks.map(({ bounds }) => viewer.farness(bounds));
  return Math.max(0, distances.indexOf(Math.min(...distances)));
}

type Fault = 'view.noWebgl' | 'view.lost' | 'view.notLoaded';

/** Makes the viewer, loads the chunks into it one after the other, and keeps it as the page says. */
function useViewer(
  canvas: React.RefObject<HTMLCanvasElement | null>,
  note: React.RefObject<HTMLSpanElement | null>,
  props: ViewportProps & { graphics: Graphics; table: ElementTable },
) {
  const { graphics, table, colors, selected, hidden, section, edges, walking, measured, point } = props;
  const [viewer, setViewer] = useState<Viewer>();
  const [loaded, setLoaded] = useState(0);
  const [fault, setFault] = useState<Fault>();
  const onLook = useEffectEvent((look: Look) => props.onLook(look));
  const onReady = useEffectEvent((ready: Viewer | undefined) => props.onReady(ready));
  const placeNote = useEffectEvent((of: Viewer) => {
    const [from, to] = measured?.points ?? [];
    if (from === undefined || to === undefined || note.current === null) return;
    const middle = from.map((value, n) => (value + (to[n] ?? value)) / 2) as Triple;
    const place = of.onCanvas(middle);
    note.current.style.transform = place === undefined ? 'scale(0)' : `translate(${place.x}px, ${place.y}px)`;
  });
  const firstLook = useEffectEvent(() => props.firstLook);
  // The links in newer answers lead to the same chunks.
  const chunks = useRef(graphics.chunks);
  useEffect(() => {
    const ending = new AbortController();
    let made: Viewer | undefined;
    const element = canvas.current as HTMLCanvasElement;
    const onLost = (event: Event) => (event.preventDefault(), setFault('view.lost'));
    element.addEventListener('webglcontextlost', onLost);
    const observer = new ResizeObserver(() => made?.resize(element.clientWidth, element.clientHeight));
    const start = async () => {
      // The first chunk is on its way while the code for drawing loads.
      let next = chunkBytes(chunks.current[0] as Graphics['chunks'][0], ending.signal);
      next.catch(() => undefined);
      const { Viewer } = await import('./engine/Viewer.ts');
      if (ending.signal.aborted) return;
      const summary = graphics.summary;
      try {
        made = new Viewer({
          canvas: element,
          is2d: summary?.is2d ?? false,
          bounds: boundsOf(graphics) ?? { low: [0, 0, 0], high: [1, 1, 1] },
          elements: table.elements.id.length,
          still: matchMedia('(prefers-reduced-motion: reduce)').matches,
          onLook,
          onFrame: () => made !== undefined && placeNote(made),
        });
      } catch {
        setFault('view.noWebgl');
        return;
      }
      const viewer = made;
      viewer.resize(element.clientWidth, element.clientHeight);
      observer.observe(element);
      const look = firstLook();
      if (look === undefined) viewer.fit(summary?.is2d === true ? 'top' : 'iso', true);
      else viewer.setLook(look);
      setViewer(viewer);
      onReady(viewer);
      // The first chunk has the largest elements; of the others, those in view and near come first.
      const left = chunks.current.slice(1);
      for (let n = 1; ; n++) {
        const bytes = await next;
        const following = left.splice(nearest(left, viewer), 1)[0];
        if (following !== undefined) {
          next = chunkBytes(following, ending.signal);
          next.catch(() => undefined);
        }
        if (!(await viewer.add(bytes))) return;
        if (following === undefined) viewer.complete();
        setLoaded(n);
        if (following === undefined) return;
      }
    };
    start().catch(() => {
      if (!ending.signal.aborted) setFault('view.notLoaded');
    });
    return () => {
      ending.abort();
      observer.disconnect();
      element.removeEventListener('webglcontextlost', onLost);
      onReady(undefined);
      made?.dispose();
    };
    // A drawing never changes; the component is made anew for another point.
  }, []);
  useBackground(viewer, canvas);
  useLayers(viewer, hidden, table);
  const feature = selected === undefined ? undefined : point.indexes.get(selected);
  useEffect(() => viewer?.setColors(colors, feature), [viewer, colors, feature]);
  useEffect(() => viewer?.setSection(section), [viewer, section]);
  // A plan is lines already.
  const is2d = graphics.summary?.is2d === true;
  useEffect(() => viewer?.setEdges(edges && !is2d), [viewer, edges, is2d]);
  useEffect(() => viewer?.setMeasure(measured?.points ?? []), [viewer, measured]);
  useEffect(() => {
    viewer?.setWalking(walking);
    // The keys walk at once, also when walking was chosen with the keyboard.
    if (walking && viewer !== undefined) canvas.current?.focus();
  }, [viewer, walking, canvas]);
  return { viewer, loaded, fault };
}

/** Shows what is switched on. */
function useLayers(viewer: Viewer | undefined, hidden: Hidden, table: ElementTable): void {
  useEffect(() => {
    const indexes = (all: readonly { id: string }[], off: ReadonlySet<string>) =>
      new Set(all.flatMap(({ id }, n) => (off.has(id) ? [n] : [])));
    viewer?.setHidden(
      indexes(table.models, hidden.models),
      indexes(table.categories, hidden.categories),
      indexes(table.subCategories ?? [], hidden.subCategories),
    );
  }, [viewer, hidden, table]);
}

/** The background follows the theme. */
function useBackground(viewer: Viewer | undefined, canvas: React.RefObject<HTMLCanvasElement | null>): void {
  useEffect(() => {
    if (viewer === undefined) return undefined;
    const apply = () => viewer.setBackground(getComputedStyle(canvas.current as HTMLCanvasElement).backgroundColor);
    apply();
    const media = matchMedia('(prefers-color-scheme: dark)');
    // After the style of the page has changed.
    const later = () => requestAnimationFrame(() => requestAnimationFrame(apply));
    media.addEventListener('change', later);
    return () => media.removeEventListener('change', later);
  }, [viewer, canvas]);
}
