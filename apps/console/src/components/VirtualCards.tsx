import { defaultRangeExtractor, useWindowVirtualizer } from '@tanstack/react-virtual';
import { useLayoutEffect, useRef, useState, type FocusEvent, type ReactNode } from 'react';

/** Least width of a card and the space between cards, pixels; the same as in the styles of `.cards`. */
const leastWidth = 256;
const gap = 20;

interface VirtualCardsProps<T> {
  items: readonly T[];
  label: string;
  /** Whether `items` are all that there are. */
  isComplete: boolean;
  /** Height of most cards, pixels. */
  height: number;
  className?: string;
  card: (item: T) => ReactNode;
}

/** Cards in as many columns as fit. Only the rows in view exist, so that ten thousand cost what twenty cost. */
export function VirtualCards<T extends { id: string }>(props: VirtualCardsProps<T>) {
  const { items, label, isComplete, height, className = '', card } = props;
  const place = useRef<HTMLDivElement>(null);
  const { columns, top } = usePlace(place);
  const [focused, setFocused] = useState<number>();
  const count = columns === 0 ? 0 : Math.ceil(items.length / columns);
  const virtualizer = useWindowVirtualizer({
    count,
    estimateSize: () => height,
    gap,
    overscan: 2,
    scrollMargin: top,
    // The card that has the focus keeps it while the list is scrolled.
    rangeExtractor: (range) => {
      const rows = defaultRangeExtractor(range);
      if (focused === undefined || focused >= count || rows.includes(focused)) return rows;
      return [...rows, focused].sort((a, b) => a - b);
    },
  });
  useLayoutEffect(() => virtualizer.measure(), [virtualizer, columns]);
  const total = virtualizer.getTotalSize();
  useLayoutEffect(() => {
    if (place.current !== null) place.current.style.height = `${total}px`;
  }, [total]);
  const onFocus = ({ target }: FocusEvent) =>
    setFocused(Number(target.closest<HTMLElement>('[data-index]')?.dataset.index));
  const onBlur = ({ relatedTarget }: FocusEvent) => {
    if (place.current?.contains(relatedTarget) !== true) setFocused(undefined);
  };
  return (
    <div ref={place} className="virtual-cards" role="list" aria-label={label} onFocus={onFocus} onBlur={onBlur}>
      {virtualizer.getVirtualItems().map(({ index: row, start }) => (
        <div
          key={row}
          ref={virtualizer.measureElement}
          data-index={row}
          role="presentation"
          className={`cards ${className}`}
          style={{
            transform: `translateY(${start - top}px)`,
            gridTemplateColumns: `repeat(${columns}, minmax(0, 1fr))`,
          }}
        >
          {items.slice(row * columns, (row + 1) * columns).map((item, column) => (
            <div
              role="listitem"
              key={item.id}
              className="card-place"
              aria-posinset={row * columns + column + 1}
              aria-setsize={isComplete ? items.length : -1}
            >
              {card(item)}
            </div>
          ))}
        </div>
      ))}
    </div>
  );
}

/** How many columns fit, and the distance of the list from the begin of the page, pixels. */
function usePlace(place: React.RefObject<HTMLDivElement | null>): { columns: number; top: number } {
  const [found, setFound] = useState({ columns: 0, top: 0 });
  useLayoutEffect(() => {
    const element = place.current;
    if (element === null) return;
    const look = () => {
      const columns = Math.max(1, Math.floor((element.clientWidth + gap) / (leastWidth + gap)));
      const top = Math.round(element.getBoundingClientRect().top + window.scrollY);
      setFound((before) => (before.columns === columns && before.top === top ? before : { columns, top }));
    };
    look();
    const observer = new ResizeObserver(look);
    observer.observe(element);
    return () => observer.disconnect();
  }, [place]);
  return found;
}
