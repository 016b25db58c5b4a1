import { Button, FileUpload, LabeledSelect } from '@itwin/itwinui-react';
import { SvgAdd, SvgImodel, SvgSearch, SvgUpload } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery } from '@tanstack/react-query';
import { useNavigate, useSearch } from '@tanstack/react-router';
import { useMemo, useState, type ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { iModelsQuery, itemsOf, type ListKind } from '../api/queries.ts';
import { CardSkeletons } from '../components/CardSkeletons.tsx';
import { Choice } from '../components/Choice.tsx';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { SearchField } from '../components/SearchField.tsx';
import { IModelCards, IModelTable } from './IModelLists.tsx';
import { NewIModelDialog } from './NewIModelDialog.tsx';

const kinds = ['all', 'favorites', 'recents'] as const;
const orders = ['name asc', 'createdDateTime desc', 'createdDateTime asc'] as const;
const looks = ['cards', 'table'] as const;

/** What the dialogue for a new iModel begins with. */
type Creating = 'empty' | File | undefined;

export function IModelsTab({ iTwinId, canCreate }: { iTwinId: string; canCreate: boolean }) {
  const { t } = useTranslation();
  const [creating, setCreating] = useState<Creating>();
  const dialog = creating !== undefined && (
    <NewIModelDialog
      iTwinId={iTwinId}
      file={creating === 'empty' ? undefined : creating}
      onClose={() => setCreating(undefined)}
    />
  );
  const content = (
    <>
      <Toolbar
        create={
          canCreate && (
            <Button styleType="high-visibility" startIcon={<SvgAdd />} onClick={() => setCreating('empty')}>
              {t('iModels.new')}
            </Button>
          )
        }
      />
      <List iTwinId={iTwinId} canCreate={canCreate} onCreate={() => setCreating('empty')} />
    </>
  );
  return (
    <>
      {canCreate ? (
        <FileUpload
          className="drop"
          dragContent={
            <div className="drop-text">
              <SvgUpload aria-hidden />
              {t('iModels.drop')}
            </div>
          }
          onFileDropped={([file]) => {
            if (file !== undefined) setCreating(file);
          }}
        >
          <div>{content}</div>
        </FileUpload>
      ) : (
        content
      )}
      {dialog}
    </>
  );
}

function Toolbar({ create }: { create: ReactNode }) {
  const { t } = useTranslation();
  const { show, q = '', order, as } = useSearch({ from: '/itwins/$iTwinId' });
  const navigate = useNavigate({ from: '/itwins/$iTwinId' });
  const change = (changes: Record<string, string | undefined>) =>
    void navigate({ replace: true, search: (before) => ({ ...before, ...changes }) });
  const kind = kinds.find((each) => each === show) ?? 'all';
  return (
    <div className="toolbar">
      <Choice
        label={t('lists.show')}
        value={kind}
        options={kinds.map((value) => ({ value, label: t(`lists.${value}`) }))}
        onChange={(value) => change({ show: value === 'all' ? undefined : value })}
      />
      {kind === 'all' && (
        <>
          <SearchField
            label={t('iModels.search')}
            value={q}
            onSearch={(text) => change({ q: text === '' ? undefined : text })}
          />
          <LabeledSelect
            label={t('lists.order')}
            displayStyle="inline"
            value={orders.find((each) => each === order) ?? orders[0]}
            options={orders.map((value) => ({ value, label: t(`iModels.orders.${value}`) }))}
            onChange={(value) => change({ order: value === orders[0] ? undefined : value })}
          />
        </>
      )}
      <Choice
        label={t('lists.look')}
        value={looks.find((each) => each === as) ?? 'cards'}
        options={looks.map((value) => ({ value, label: t(`lists.looks.${value}`) }))}
        onChange={(value) => change({ as: value === 'cards' ? undefined : value })}
      />
      <span className="spacer" />
      {create}
    </div>
  );
}

function List({ iTwinId, canCreate, onCreate }: { iTwinId: string; canCreate: boolean; onCreate: () => void }) {
  const { t } = useTranslation();
  const { show, q = '', order, as } = useSearch({ from: '/itwins/$iTwinId' });
  const kind: ListKind = kinds.find((each) => each === show) ?? 'all';
  const list = useInfiniteQuery(
    iModelsQuery(iTwinId, { kind, search: q, order: orders.find((each) => each === order) ?? orders[0] }),
  );
  const iModels = useMemo(() => itemsOf(list.data), [list.data]);
  if (list.isPending) return <CardSkeletons />;
  if (list.isError && iModels.length === 0)
    return <FaultState fault={list.error} onRetry={() => void list.refetch()} />;
  if (iModels.length === 0) {
    if (q !== '' && kind === 'all')
      return (
        <EmptyState
          picture={<SvgSearch className="state-icon" aria-hidden />}
          title={t('lists.nothing')}
          text={t('lists.nothingText', { search: q })}
        />
      );
    return (
      <EmptyState
        picture={<SvgImodel className="state-icon" aria-hidden />}
        title={t(`iModels.empty.${kind}.title`)}
        text={t(kind === 'all' && !canCreate ? 'iModels.empty.all.readOnly' : `iModels.empty.${kind}.text`)}
        actions={
          kind === 'all' && canCreate ? (
            <Button styleType="high-visibility" startIcon={<SvgAdd />} onClick={onCreate}>
              {t('iModels.new')}
            </Button>
          ) : undefined
        }
      />
    );
  }
  return (
    <>
      {as === 'table' ? (
        <IModelTable
          iModels={iModels}
          isComplete={!list.hasNextPage}
          onEnd={() => {
            if (list.hasNextPage && !list.isFetchingNextPage) void list.fetchNextPage();
          }}
        />
      ) : (
        <IModelCards iModels={iModels} isComplete={!list.hasNextPage} iTwinId={iTwinId} canClone={canCreate} />
      )}
      <More {...list} onDemand={as === 'table'} />
    </>
  );
}
