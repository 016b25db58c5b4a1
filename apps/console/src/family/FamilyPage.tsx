import { Alert, Text } from '@itwin/itwinui-react';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams } from '@tanstack/react-router';
import { useVirtualizer } from '@tanstack/react-virtual';
import { useEffect, useMemo, useRef, useState, type KeyboardEvent } from 'react';
import { useTranslation } from 'react-i18next';
import { FaultState } from '../components/FaultState.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { numberText } from '../format.ts';
import { FamilyRow } from './FamilyRow.tsx';
import { lineageQuery, rowsOf, type Lineage, type Row } from './lineage.ts';
import './family.css';

/** Height of a row, pixels. */
const rowHeight = 60;

/** The iModel, its ancestors, and what was derived from any of them. */
export function FamilyPage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const lineage = useQuery(lineageQuery(iModelId));
  if (lineage.isError) return <FaultState fault={lineage.error} onRetry={() => void lineage.refetch()} />;
  if (lineage.isPending) return <Waiting />;
  return <Family key={iModelId} iModelId={iModelId} lineage={lineage.data} />;
}

function Family({ iModelId, lineage }: { iModelId: string; lineage: Lineage }) {
  const { t } = useTranslation();
  const count = lineage.iModels.length;
  const tree = useTree(iModelId, lineage);
  return (
    <div className="family">
      <Text as="p" isMuted>
        {count === 1 ? t('family.alone') : t('family.count', { count, number: numberText(count) })}
      </Text>
      {lineage.truncated && (
        <Alert.Wrapper type="informational">
          <Alert.Icon />
          <Alert.Message>{t('family.truncated', { count, number: numberText(count) })}</Alert.Message>
        </Alert.Wrapper>
      )}
      <div
        ref={tree.scroller}
        className="family-scroller"
        role="tree"
        tabIndex={0}
        aria-label={t('family.title')}
        aria-activedescendant={tree.activeId}
        onKeyDown={tree.onKeyDown}
      >
        <div ref={tree.body} className="family-rows" role="presentation">
          {tree.items.map(({ index, start }) => {
            const row = tree.rows[index];
            return row === undefined ? null : (
              <FamilyRow
                key={row.member.id}
                id={rowId(row.member.id)}
                row={row}
                start={start}
                own={row.member.id === iModelId}
                active={index === tree.active}
                parent={tree.byId.get(row.member.parentId ?? '')}
                onActivate={() => tree.setActive(index)}
                onToggle={() => tree.toggle(row)}
              />
            );
          })}
        </div>
      </div>
    </div>
  );
}

const rowId = (id: string): string => `family-${id}`;

/** Which rows are in view and which one is active, and what keys do. */
function useTree(iModelId: string, lineage: Lineage) {
  const navigate = useNavigate();
  const scroller = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const [collapsed, setCollapsed] = useState<ReadonlySet<string>>(new Set());
  const rows = useMemo(() => rowsOf(lineage.iModels, collapsed), [lineage, collapsed]);
  const byId = useMemo(() => new Map(lineage.iModels.map((member) => [member.id, member])), [lineage]);
  const [active, setActive] = useState(() =>
    Math.max(
      0,
      rows.findIndex(({ member }) => member.id === iModelId),
    ),
  );
  const virtualizer = useVirtualizer({
    count: rows.length,
    getScrollElement: () => scroller.current,
    estimateSize: () => rowHeight,
    overscan: 10,
    initialOffset: () => Math.max(0, (active - 3) * rowHeight),
  });
  const total = virtualizer.getTotalSize();
  useEffect(() => {
    if (body.current !== null) body.current.style.height = `${total}px`;
  }, [total]);
  const move = (to: number) => {
    const wanted = Math.min(rows.length - 1, Math.max(0, to));
    setActive(wanted);
    virtualizer.scrollToIndex(wanted);
  };
  const toggle = ({ member, hasChildren }: Row) => {
    if (!hasChildren) return;
    const next = new Set(collapsed);
    if (!next.delete(member.id)) next.add(member.id);
    setCollapsed(next);
  };
  const open = ({ member }: Row) => {
    if (member.visible && !member.deleted)
      void navigate({ to: '/imodels/$iModelId/family', params: { iModelId: member.id } });
  };
  const onKeyDown = (event: KeyboardEvent<HTMLDivElement>) => {
    const row = rows[active];
    if (row === undefined || event.altKey || event.ctrlKey || event.metaKey) return;
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? rowHeight) / rowHeight) - 1);
    const actions: Record<string, () => void> = {
      ArrowDown: () => move(active + 1),
      ArrowUp: () => move(active - 1),
      PageDown: () => move(active + page),
      PageUp: () => move(active - page),
      Home: () => move(0),
      End: () => move(rows.length - 1),
      ArrowRight: () => (row.hasChildren && row.collapsed ? toggle(row) : row.hasChildren && move(active + 1)),
      ArrowLeft: () =>
        row.hasChildren && !row.collapsed
          ? toggle(row)
          : row.depth > 0 && move(rows.findIndex(({ member }) => member.id === row.member.parentId)),
      Enter: () => open(row),
      ' ': () => toggle(row),
    };
    const action = actions[event.key];
    // Links and buttons within the tree keep their own keys.
    if (action === undefined || event.target !== event.currentTarget) return;
    event.preventDefault();
    action();
  };
  const current = rows[active];
  return {
    scroller,
    body,
    rows,
    byId,
    active,
    activeId: current === undefined ? undefined : rowId(current.member.id),
    items: virtualizer.getVirtualItems(),
    setActive,
    toggle,
    onKeyDown,
  };
}
