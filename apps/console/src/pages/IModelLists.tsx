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
import { agoText, dateText } from '../format.ts';

export function IModelCards({
  iModels,
  iTwinId,
  canClone,
}: {
  iModels: readonly IModel[];
  iTwinId: string;
  canClone: boolean;
}) {
  const { t } = useTranslation();
  return (
    <div className="cards" role="list" aria-label={t('iTwins.tabs.imodels')}>
      {iModels.map((iModel) => (
        <div role="listitem" key={iModel.id} className="card-place">
          <IModelCard iModel={iModel} iTwinId={iTwinId} canClone={canClone} />
        </div>
      ))}
    </div>
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
        <Tile.NameLabel>
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

export function IModelTable({ iModels }: { iModels: readonly IModel[] }) {
  const { t, i18n } = useTranslation();
  const columns = useMemo(
    (): Column<Row>[] => [
      {
        id: 'name',
        Header: t('fields.name'),
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
      { id: 'description', Header: t('fields.description'), accessor: ({ description }) => description ?? '' },
      { id: 'created', Header: t('fields.created'), accessor: ({ createdDateTime }) => dateText(createdDateTime) },
      {
        id: 'changed',
        Header: t('fields.changed'),
        accessor: ({ lastChangesetPushDateTime: time }) => (time === null ? '' : dateText(time)),
      },
    ],
    // The texts of cells depend on the language.
    [t, i18n.language],
  );
  return (
    <Table
      columns={columns as never}
      data={iModels as never}
      emptyTableContent=""
      aria-label={t('iTwins.tabs.imodels')}
    />
  );
}
