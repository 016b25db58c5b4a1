import { Button, Tile } from '@itwin/itwinui-react';
import { SvgAdd, SvgItwin, SvgSearch } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery } from '@tanstack/react-query';
import { Link, useNavigate, useSearch } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { itemsOf, iTwinsQuery, type ListKind } from '../api/queries.ts';
import type { ITwin } from '../api/types.ts';
import { CardSkeletons } from '../components/CardSkeletons.tsx';
import { Choice } from '../components/Choice.tsx';
import { EmptyState } from '../components/EmptyState.tsx';
import { Favorite } from '../components/Favorite.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { Page } from '../components/Page.tsx';
import { SearchField } from '../components/SearchField.tsx';
import { VirtualCards } from '../components/VirtualCards.tsx';
import { NewITwinDialog } from './NewITwinDialog.tsx';

/** Height of the card of an iTwin, pixels. */
const cardHeight = 122;

const kinds = ['all', 'favorites', 'recents'] as const;

export function ITwinsPage() {
  const { t } = useTranslation();
  const { show, q = '' } = useSearch({ from: '/' });
  const navigate = useNavigate({ from: '/' });
  const [creating, setCreating] = useState(false);
  const kind = kinds.find((each) => each === show) ?? 'all';
  const create = (
    <Button styleType="high-visibility" startIcon={<SvgAdd />} onClick={() => setCreating(true)}>
      {t('iTwins.new')}
    </Button>
  );
  return (
    <Page title={t('iTwins.title')} actions={create}>
      <div className="toolbar">
        <Choice
          label={t('lists.show')}
          value={kind}
          options={kinds.map((value) => ({ value, label: t(`lists.${value}`) }))}
          onChange={(value) => void navigate({ search: { ...(value !== 'all' && { show: value }) } })}
        />
        <SearchField
          label={t('iTwins.search')}
          value={q}
          onSearch={(text) =>
            void navigate({
              replace: true,
              search: (before) => ({ ...before, q: text === '' ? undefined : text }),
            })
          }
        />
      </div>
      <ITwinList kind={kind} search={q} create={create} />
      {creating && <NewITwinDialog onClose={() => setCreating(false)} />}
    </Page>
  );
}

function ITwinList({ kind, search, create }: { kind: ListKind; search: string; create: React.ReactNode }) {
  const { t } = useTranslation();
  const list = useInfiniteQuery(iTwinsQuery(kind, search));
  if (list.isPending) return <CardSkeletons variant="folder" />;
  if (list.isError) return <FaultState fault={list.error} onRetry={() => void list.refetch()} />;
  const iTwins = itemsOf(list.data);
  if (iTwins.length === 0) {
    if (search !== '')
      return (
        <EmptyState
          picture={<SvgSearch className="state-icon" aria-hidden />}
          title={t('lists.nothing')}
          text={t('lists.nothingText', { search })}
        />
      );
    return (
      <EmptyState
        picture={<SvgItwin className="state-icon" aria-hidden />}
        title={t(`iTwins.empty.${kind}.title`)}
        text={t(`iTwins.empty.${kind}.text`)}
        actions={kind === 'all' ? create : undefined}
      />
    );
  }
  return (
    <>
      <VirtualCards
        className="folders"
        items={iTwins}
        label={t('iTwins.title')}
        isComplete={!list.hasNextPage}
        height={cardHeight}
        card={(iTwin) => <ITwinCard iTwin={iTwin} />}
      />
      <More {...list} />
    </>
  );
}

function ITwinCard({ iTwin }: { iTwin: ITwin }) {
  const { t } = useTranslation();
  return (
    <Tile.Wrapper variant="folder" className="card">
      <Tile.ThumbnailArea>
        <Tile.ThumbnailPicture>
          <SvgItwin aria-hidden />
        </Tile.ThumbnailPicture>
        <Favorite onTile kind="iTwin" id={iTwin.id} name={iTwin.displayName} />
      </Tile.ThumbnailArea>
      <Tile.Name>
        <Tile.NameLabel title={iTwin.displayName}>
          <Tile.Action as={Link} to={`/itwins/${iTwin.id}`}>
            {iTwin.displayName}
          </Tile.Action>
        </Tile.NameLabel>
      </Tile.Name>
      <Tile.ContentArea>
        <Tile.Description>
          {t(`iTwins.subClasses.${iTwin.subClass as 'Project'}`, { defaultValue: iTwin.subClass })}
        </Tile.Description>
        <Tile.Metadata>{iTwin.number === iTwin.id ? '' : iTwin.number}</Tile.Metadata>
      </Tile.ContentArea>
    </Tile.Wrapper>
  );
}
