import { Badge, Text } from '@itwin/itwinui-react';
import { SvgDuplicate, SvgFlag, SvgStatusSuccessHollow } from '@itwin/itwinui-icons-react';
import { useLayoutEffect, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import type { NamedVersion } from '../../api/types.ts';
import { LinkButton } from '../../components/LinkButton.tsx';
import { agoText, bytesText, dateText, numberText } from '../../format.ts';
import { kindsOf } from './kinds.ts';
import type { ShownChangeset } from './useChangesets.ts';

interface TimelineRowProps {
  iModelId: string;
  /** Index of the changeset; 0 is the baseline. */
  index: number;
  row: number;
  /** Distance from the begin of the list, pixels. */
  start: number;
  changeset: ShownChangeset | undefined;
  version: NamedVersion | undefined;
  /** Reached by the Tab key. */
  isActive: boolean;
  isSelected: boolean;
  onSelect: () => void;
}

export function TimelineRow(props: TimelineRowProps) {
  const { iModelId, index, row, start, changeset, version, isActive, isSelected, onSelect } = props;
  const { t } = useTranslation();
  const element = useRef<HTMLDivElement>(null);
  useLayoutEffect(() => {
    if (element.current !== null) element.current.style.transform = `translateY(${start}px)`;
  }, [start]);
  const hasCheckpoint = changeset?._links.currentOrPrecedingCheckpoint?.href.includes(`/changesets/${index}/`) === true;
  return (
    <div
      ref={element}
      className={`timeline-row${isSelected ? ' selected' : ''}${version === undefined ? '' : ' versioned'}`}
      role="row"
      aria-rowindex={row + 1}
      aria-selected={isSelected}
      data-row={row}
      tabIndex={isActive ? 0 : -1}
      onClick={onSelect}
    >
      <div role="gridcell" className="timeline-index">
        <span className="dot" aria-hidden />
        <Text variant="small" isMuted>
          {index === 0 ? t('timeline.start') : `#${numberText(index)}`}
        </Text>
      </div>
      <div role="gridcell" className="timeline-text">
        <div className="timeline-title">
          {version !== undefined && (
            <>
              <SvgFlag aria-label={t('timeline.version')} className="mark" />
              <strong className="ellipsis version-name">{version.displayName}</strong>
              {version.state === 'hidden' && <Badge backgroundColor="ash">{t('versions.hidden')}</Badge>}
            </>
          )}
          <Title index={index} changeset={changeset} />
          {hasCheckpoint && <SvgStatusSuccessHollow className="mark" aria-label={t('timeline.hasCheckpoint')} />}
        </div>
        {changeset !== undefined && <Meta changeset={changeset} />}
      </div>
      <div role="gridcell" className="timeline-actions">
        <LinkButton
          size="small"
          to="/imodels/$iModelId/timeline"
          params={{ iModelId }}
          search={(before) => ({ ...before, clone: index })}
          replace
          startIcon={<SvgDuplicate />}
          tabIndex={isActive ? 0 : -1}
          aria-label={t('timeline.cloneToLabel', { index: numberText(index) })}
          onClick={(event) => event.stopPropagation()}
        >
          {t('timeline.cloneTo')}
        </LinkButton>
      </div>
    </div>
  );
}

function Title({ index, changeset }: { index: number; changeset: ShownChangeset | undefined }) {
  const { t } = useTranslation();
  if (index === 0) return <Text>{t('timeline.baseline')}</Text>;
  if (changeset === undefined) return <span className="bone" role="img" aria-label={t('common.loading')} />;
  if (changeset.description === null) return <Text isMuted>{t('timeline.noDescription')}</Text>;
  return (
    <Text className="ellipsis" title={changeset.description}>
      {changeset.description}
    </Text>
  );
}

function Meta({ changeset }: { changeset: ShownChangeset }) {
  const { t } = useTranslation();
  const { author, application, pushDateTime, fileSize, containingChanges } = changeset;
  return (
    <Text variant="small" isMuted className="ellipsis">
      {author ?? t('iModel.unknownUser')}
      {application !== null && ` · ${application.name}`}
      {' · '}
      <time dateTime={pushDateTime} title={dateText(pushDateTime)}>
        {agoText(pushDateTime)}
      </time>
      {` · ${bytesText(fileSize)}`}
      {kindsOf(containingChanges).map((kind) => ` · ${t(`timeline.kinds.${kind}`)}`)}
    </Text>
  );
}
