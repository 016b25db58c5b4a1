import { Badge, Text } from '@itwin/itwinui-react';
import { SvgChevronDown, SvgChevronRight, SvgImodel, SvgVisibilityHide } from '@itwin/itwinui-icons-react';
import { useQuery } from '@tanstack/react-query';
import { Link } from '@tanstack/react-router';
import { memo } from 'react';
import { useTranslation } from 'react-i18next';
import { versionsQuery } from '../api/queries.ts';
import type { NamedVersion } from '../api/types.ts';
import { dateText, numberText } from '../format.ts';
import type { FamilyMember, Row } from './lineage.ts';

/** Width of one level, pixels; levels beyond `deepest` are not indented further. */
const indent = 28;
const deepest = 16;

interface RowProps {
  id: string;
  row: Row;
  start: number;
  /** It is the iModel whose page this is. */
  own: boolean;
  active: boolean;
  parent: FamilyMember | undefined;
  onActivate: () => void;
  onToggle: () => void;
}

export const FamilyRow = memo(function FamilyRow(props: RowProps) {
  const { id, row, start, own, active, parent, onActivate, onToggle } = props;
  const { t } = useTranslation();
  const { member, depth, position, siblings, hasChildren, collapsed } = row;
  const level = Math.min(depth, deepest);
  return (
    <div
      id={id}
      className={`family-row${active ? ' active' : ''}${own ? ' own' : ''}`}
      style={{ transform: `translateY(${start}px)` }}
      role="treeitem"
      aria-level={depth + 1}
      aria-posinset={position}
      aria-setsize={siblings}
      aria-selected={own}
      {...(hasChildren && { 'aria-expanded': !collapsed })}
      onClick={onActivate}
    >
      <Lines row={row} level={level} />
      {/* For the mouse; with keys, the arrows open and close the row. */}
      <span
        className={`family-toggle${hasChildren ? ' has-children' : ''}`}
        aria-hidden
        title={hasChildren ? t(collapsed ? 'family.expand' : 'family.collapse') : undefined}
        onClick={onToggle}
      >
        {hasChildren && (collapsed ? <SvgChevronRight /> : <SvgChevronDown />)}
      </span>
      <span className={`family-icon ${member.visible ? (member.relation ?? 'source') : 'hidden'}`} aria-hidden>
        {member.visible ? <SvgImodel /> : <SvgVisibilityHide />}
      </span>
      <span className="family-text">
        <span className="family-name">
          <Name member={member} />
          {own && <Badge backgroundColor="primary">{t('family.own')}</Badge>}
          {member.deleted && <Badge backgroundColor="negative">{t('family.deleted')}</Badge>}
        </span>
        <Text as="span" variant="small" isMuted className="family-note">
          <Note member={member} parent={parent} />
        </Text>
      </span>
      {member.headIndex !== null && (
        <Text as="span" variant="small" isMuted className="family-head">
          {t('family.head', { count: member.headIndex, index: numberText(member.headIndex) })}
        </Text>
      )}
    </div>
  );
});

/** The lines that lead from the parent to the row, and past it to what follows. */
function Lines({ row, level }: { row: Row; level: number }) {
  if (level === 0) return null;
  const shown = row.goesOn.slice(-level);
  return (
    <svg className="family-lines" width={level * indent} height={60} aria-hidden>
      {shown.map((on, n) => {
        const x = n * indent + indent / 2;
        if (n < level - 1) return on && <path key={n} d={`M${x} 0V60`} />;
        return <path key={n} d={`M${x} 0V18Q${x} 30 ${x + 10} 30H${level * indent}${on ? `M${x} 0V60` : ''}`} />;
      })}
    </svg>
  );
}

function Name({ member }: { member: FamilyMember }) {
  const { t } = useTranslation();
  if (!member.visible) return <span className="muted">{t('family.hidden')}</span>;
  if (member.deleted) return <span className="muted">{t('family.deletedName')}</span>;
  return (
    <Link className="iui-anchor" to="/imodels/$iModelId" params={{ iModelId: member.id }} tabIndex={-1}>
      {member.displayName}
    </Link>
  );
}

/** How and where the iModel left its parent, and when. */
function Note({ member, parent }: { member: FamilyMember; parent: FamilyMember | undefined }) {
  const { t } = useTranslation();
  const { relation, changesetIndex: index, createdDateTime } = member;
  const readable = parent !== undefined && parent.visible && !parent.deleted && index !== null;
  const versions = useQuery({
    ...versionsQuery(parent?.id ?? ''),
    enabled: readable,
    staleTime: 300_000,
    retry: false,
  });
  if (!member.visible) return t('family.hiddenText');
  const when = createdDateTime === null ? undefined : dateText(createdDateTime);
  if (relation === null || relation === 'source') return when === undefined ? '' : t('family.created', { when });
  const version = index === null ? undefined : nearest(versions.data ?? [], index);
  const where =
    index === null
      ? t('family.unknownPoint')
      : index === 0
        ? t('family.atBaseline')
        : t('family.at', { index: numberText(index) });
  const named =
    version === undefined
      ? ''
      : version.changesetIndex === index
        ? ` “${version.displayName}”`
        : ` ${t('family.after', { name: version.displayName })}`;
  return `${t(`family.relations.${relation}`)} ${where}${named}${when === undefined ? '' : ` · ${when}`}`;
}

/** The last visible named version at or before a changeset. They come with the newest changeset first. */
function nearest(versions: readonly NamedVersion[], index: number): NamedVersion | undefined {
  return versions.find(({ changesetIndex, state }) => state === 'visible' && changesetIndex <= index);
}
