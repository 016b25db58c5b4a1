import { Badge, Table, Text, Tile } from '@itwin/itwinui-react';
import { SvgDuplicate } from '@itwin/itwinui-icons-react';
import { Link } from '@tanstack/react-router';
import { useMemo } from 'react';
import { useTranslation } from 'react-i18next';
import type { Column } from '@itwin/itwinui-react/react-table';
import type { IModel } from '../api/types.ts';
import { Favorite } from '../components/Favorite.tsx';
import { LinkButton } from '../components/LinkButton.tsx';
import { Thumbnail } from '../components/Thumbnail.tsx';
import { VirtualCards } from '../components/VirtualCards.tsx';
import { agoText, dateText } from '../format.ts';

/** Height of a card without a description, pixels. */
const cardHeight = 288;

interface ListProps {
  iModels: readonly IModel[];
  /** Whether these are all. */
  isComplete: boolean;
}

export function IModelCards(props: ListProps & { iTwinId: string; canClone: boolean }) {
  const { iModels, isComplete, iTwinId, canClone } = props;
  const { t } = useTranslation();
  return (
    <VirtualCards
      items={iModels}
      label={t('iTwins.tabs.imodels')}
      isComplete={isComplete}
      height={cardHeight}
      card={(iModel) => <IModelCard iModel={iModel} iTwinId={iTwinId} canClone={canClone} />}
    />
  );
}

function IModelCard({ iModel, iTwinId, canClone }: { iModel: IModel; iTwinId: string; canClone: boolean }) {
  const { t } = useTranslation();
  const ready = iModel.state === 'initialized';
  const changed = iModel.lastChangesetPushDateTime;
  return (
    <Tile.Wrapper className="card">
      <Tile.ThumbnailArea>
        <Thumbnail iModelId={iModel.id} />
        <Favorite onTile kind="iModel" id={iModel.id} iTwinId={iTwinId} name={iModel.displayName} />
        {!ready && (
          <Tile.BadgeContainer>
            <Badge backgroundColor="warning">{t('iModels.notReady')}</Badge>
          </Tile.BadgeContainer>
        )}
      </Tile.ThumbnailArea>
      <Tile.Name>
        <Tile.NameLabel title={iModel.displayName}>
          <Tile.Action as={Link} to={ready ? `/imodels/${iModel.id}` : `/imodels/${iModel.id}/creation`}>
            {iModel.displayName}
          </Tile.Action>
        </Tile.NameLabel>
      </Tile.Name>
      <Tile.ContentArea>
        <Tile.Description>{iModel.description ?? ''}</Tile.Description>
        <Tile.Metadata>
          <Text variant="small" isMuted>
            {changed === null
              ? t('iModels.created', { when: agoText(iModel.createdDateTime) })
              : t('iModels.changed', { when: agoText(changed) })}
          </Text>
        </Tile.Metadata>
      </Tile.ContentArea>
      {ready && canClone && (
        <Tile.Buttons>
          <LinkButton
            to="/imodels/$iModelId"
            params={{ iModelId: iModel.id }}
            search={{ clone: 'head' }}
            startIcon={<SvgDuplicate />}
            aria-label={t('clone.of', { name: iModel.displayName })}
          >
            {t('clone.button')}
          </LinkButton>
        </Tile.Buttons>
      )}
    </Tile.Wrapper>
  );
}

/** The table takes rows with an index signature. */
type Row = IModel & Record<string, unknown>;

/** Least widths of columns, pixels. */
const nameWidth = 180;
const timeWidth = 150;
/** Rows below the window for which the next page is read, pixels. */
const readAhead = 1200;

/** A table with a scroll bar of its own: only the rows in view exist. */
export function IModelTable({ iModels, isComplete, onEnd }: ListProps & { onEnd: () => void }) {
  const { t, i18n } = useTranslation();
  const columns = useMemo(
    (): Column<Row>[] => [
      {
        id: 'name',
        Header: t('fields.name'),
        minWidth: nameWidth,
        accessor: 'displayName',
        Cell: ({ row: { original } }: { row: { original: IModel } }) => (
          <Link
            className="cell-link"
            to={original.state === 'initialized' ? '/imodels/$iModelId' : '/imodels/$iModelId/creation'}
            params={{ iModelId: original.id }}
          >
            {original.displayName}
          </Link>
        ),
      },
      {
        id: 'description',
        Header: t('fields.description'),
        minWidth: nameWidth,
        accessor: ({ description }) => description ?? '',
      },
      // Times are written for the rows in view only.
      { id: 'created', Header: t('fields.created'), accessor: 'createdDateTime', minWidth: timeWidth, Cell: timeCell },
      {
        id: 'changed',
        Header: t('fields.changed'),
        accessor: 'lastChangesetPushDateTime',
        minWidth: timeWidth,
        Cell: timeCell,
      },
    ],
    // The texts of cells depend on the language.
    [t, i18n.language],
  );
  return (
    <Table
      className="imodel-table"
      columns={columns as never}
      data={iModels as never}
      emptyTableContent=""
      enableVirtualization
      onBottomReached={onEnd}
      intersectionMargin={readAhead}
      aria-label={t('iTwins.tabs.imodels')}
      aria-rowcount={isComplete ? iModels.length + 1 : -1}
      rowProps={({ index }) => ({ 'aria-rowindex': index + 2 })}
    />
  );
}

const timeCell = ({ value }: { value: unknown }) => <>{typeof value === 'string' ? dateText(value) : ''}</>;
