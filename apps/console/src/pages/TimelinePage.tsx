import { Button, Input, Label, Text } from '@itwin/itwinui-react';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useLayoutEffect, useMemo, useRef, useState, type SubmitEvent, type KeyboardEvent } from 'react';
import { useTranslation } from 'react-i18next';
import { headQuery, refresh, versionsQuery } from '../api/queries.ts';
import { FaultState } from '../components/FaultState.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { numberText } from '../format.ts';
import { ChangesetDetails } from './timeline/ChangesetDetails.tsx';
import { TimelineRow } from './timeline/TimelineRow.tsx';
import { useChangesets } from './timeline/useChangesets.ts';

/** Height of a row, pixels. With 100,000 rows the list is 7 million pixels high; browsers allow 16 million and more. */
const rowHeight = 72;

/** The changesets of an iModel, the newest first, with the baseline at the end. */
export function TimelinePage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const head = useQuery(headQuery(iModelId));
  if (head.isError) return <FaultState fault={head.error} onRetry={() => void head.refetch()} />;
  if (head.isPending) return <Waiting />;
  return <Timeline key={iModelId} iModelId={iModelId} last={head.data?.index ?? 0} />;
}

function Timeline({ iModelId, last }: { iModelId: string; last: number }) {
  const { t } = useTranslation();
  const { at } = useSearch({ from: '/imodels/$iModelId' });
  const navigate = useNavigate({ from: '/imodels/$iModelId/timeline' });
  const selected = at === undefined || at > last ? undefined : at;
  const select = (index: number | undefined) =>
    void navigate({ replace: true, search: (before) => ({ ...before, at: index }) });
  const list = useTimelineList(iModelId, { last, selected, select });
  useGrowth(iModelId, last);
  const versions = useQuery(versionsQuery(iModelId));
  const versionAt = useMemo(
    () => new Map((versions.data ?? []).map((version) => [version.changesetIndex, version])),
    [versions.data],
  );
  return (
    <div className={`timeline${selected === undefined ? '' : ' with-details'}`}>
      <div className="timeline-main">
        <div className="toolbar">
          <Text as="p" isMuted>
            {t('timeline.count', { count: last, index: numberText(last) })}
          </Text>
          <span className="spacer" />
          <GoTo last={last} onGo={list.goTo} />
        </div>
        <div
          ref={list.scroller}
          className="timeline-scroller"
          role="grid"
          aria-label={t('timeline.title')}
          aria-rowcount={last + 1}
          onKeyDown={list.onKeyDown}
        >
          <div className="timeline-rows" role="rowgroup" ref={list.rows}>
            {list.items.map(({ index: row, start }) => {
              const index = last - row;
              return (
                <TimelineRow
                  key={index}
                  iModelId={iModelId}
                  index={index}
                  row={row}
                  start={start}
                  changeset={list.changesets.get(index)}
                  version={versionAt.get(index)}
                  isActive={row === list.active}
                  isSelected={index === selected}
                  onSelect={() => list.activate(row)}
                />
              );
            })}
          </div>
        </div>
      </div>
      {selected !== undefined && (
        <ChangesetDetails
          iModelId={iModelId}
          index={selected}
          version={versionAt.get(selected)}
          onClose={() => select(undefined)}
        />
      )}
    </div>
  );
}

/** Reads again what new changesets alter: the newest rows, the named versions, and the iModel with its picture. */
function useGrowth(iModelId: string, last: number): void {
  const client = useQueryClient();
  const known = useRef(last);
  useEffect(() => {
    if (known.current === last) return;
    known.current = last;
    void refresh(client, ['iModel', iModelId, 'changesets', 'from'], ['iModel', iModelId, 'versions']);
    void client.invalidateQueries({ queryKey: ['iModel', iModelId], exact: true });
  }, [client, iModelId, last]);
}

interface ListState {
  last: number;
  selected: number | undefined;
  select: (index: number | undefined) => void;
}

/** The rows in view, which of them has the focus, and how keys move it. */
function useTimelineList(iModelId: string, { last, selected, select }: ListState) {
  const scroller = useRef<HTMLDivElement>(null);
  const rows = useRef<HTMLDivElement>(null);
  const [active, setActive] = useState(selected === undefined ? 0 : last - selected);
  const virtualizer = useVirtualizer({
    count: last + 1,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 8,
  });
  const items = virtualizer.getVirtualItems();
  const total = virtualizer.getTotalSize();
  useLayoutEffect(() => {
    if (rows.current !== null) rows.current.style.height = `${total}px`;
  }, [total]);
  const known = useRef(last);
  useLayoutEffect(() => {
    const grown = last - known.current;
    known.current = last;
    if (grown === 0) return;
    // New rows come in at the top: what somebody looks at stays where it is.
    setActive((row) => (row === 0 ? 0 : row + grown));
    if (scroller.current !== null && scroller.current.scrollTop > 0) scroller.current.scrollTop += grown * rowHeight;
  }, [last]);
  const first = useRef(true);
  useEffect(() => {
    if (first.current && selected !== undefined) virtualizer.scrollToIndex(last - selected, { align: 'center' });
    first.current = false;
  }, [virtualizer, last, selected]);
  const top = items[0]?.index ?? 0;
  const bottom = items.at(-1)?.index ?? 0;
  const changesets = useChangesets(iModelId, last - bottom, last - top);
  const focus = (row: number) => {
    const wanted = Math.min(last, Math.max(0, row));
    setActive(wanted);
    virtualizer.scrollToIndex(wanted);
    // The row exists once it has been scrolled into view.
    requestAnimationFrame(() =>
      requestAnimationFrame(() =>
        scroller.current?.querySelector<HTMLElement>(`[data-row="${wanted}"]`)?.focus({ preventScroll: true }),
      ),
    );
  };
  const activate = (row: number) => {
    setActive(row);
    select(last - row === selected ? undefined : last - row);
  };
  const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? rowHeight) / rowHeight) - 1);
  const moves: Record<string, number> = {
    ArrowDown: active + 1,
    ArrowUp: active - 1,
    PageDown: active + page,
    PageUp: active - page,
    Home: 0,
    End: last,
  };
  const onKeyDown = (event: KeyboardEvent<HTMLDivElement>) => {
    const onRow = (event.target as HTMLElement).dataset.row !== undefined;
    const move = moves[event.key];
    if (move !== undefined) {
      event.preventDefault();
      focus(move);
    } else if (onRow && (event.key === 'Enter' || event.key === ' ')) {
      event.preventDefault();
      activate(active);
    } else if (event.key === 'Escape' && selected !== undefined) select(undefined);
  };
  const goTo = (index: number) => {
    focus(last - index);
    select(index);
  };
  return { scroller, rows, items, changesets, active, activate, onKeyDown, goTo };
}

/** Leads to a changeset by its index. */
function GoTo({ last, onGo }: { last: number; onGo: (index: number) => void }) {
  const { t } = useTranslation();
  const [text, setText] = useState('');
  const index = Number(text);
  const valid = text.trim() !== '' && Number.isSafeInteger(index) && index >= 0 && index <= last;
  const go = (event: SubmitEvent) => {
    event.preventDefault();
    if (valid) onGo(index);
  };
  if (last < 20) return null;
  return (
    <form className="go-to" onSubmit={go}>
      <Label htmlFor="go-to" displayStyle="inline">
        {t('timeline.goTo')}
      </Label>
      <Input
        id="go-to"
        size="small"
        inputMode="numeric"
        autoComplete="off"
        value={text}
        status={text === '' || valid ? undefined : 'negative'}
        onChange={({ currentTarget }) => setText(currentTarget.value)}
      />
      <Button type="submit" size="small" disabled={!valid}>
        {t('timeline.go')}
      </Button>
    </form>
  );
}
