import { Badge, Button, DropdownMenu, IconButton, MenuItem, Tabs } from '@itwin/itwinui-react';
import { SvgDuplicate, SvgImodel, SvgMore } from '@itwin/itwinui-icons-react';
import { useQuery } from '@tanstack/react-query';
import { Navigate, Outlet, useLocation, useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { useEffect, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { iModelQuery, iTwinPermissionsQuery } from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { useSession } from '../auth/context.ts';
import { serverAddress } from '../base.ts';
import { Favorite } from '../components/Favorite.tsx';
import { FaultPage } from '../components/FaultState.tsx';
import { Page } from '../components/Page.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { CloneDialog } from './CloneDialog.tsx';
import { DeleteIModelDialog, EditIModelDialog } from './IModelDialogs.tsx';

/** The pages of an iModel, by the last part of their address. */
const pages = ['overview', 'view', 'timeline', 'versions', 'family', 'access', 'shares', 'work'] as const;
type PageName = (typeof pages)[number];

const addressOf = (name: PageName): '/imodels/$iModelId' | `/imodels/$iModelId/${Exclude<PageName, 'overview'>}` =>
  name === 'overview' ? '/imodels/$iModelId' : `/imodels/$iModelId/${name}`;

/** The frame of the pages of an iModel. */
export function IModelPage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const iModel = useQuery({
    ...iModelQuery(iModelId),
    // What was read before it became ready must not lead away from it, however short a time ago that was.
    refetchOnMount: ({ state: { data } }) => (data?.state === 'initialized' ? true : 'always'),
  });
  const ready = iModel.data?.state === 'initialized';
  useEffect(() => {
    if (ready) void api(`/imodels/recents/${iModelId}`, { method: 'POST' }).catch(() => undefined);
  }, [iModelId, ready]);
  if (iModel.isError) return <FaultPage fault={iModel.error} onRetry={() => void iModel.refetch()} />;
  if (iModel.isPending) return <Waiting />;
  if (!ready && iModel.isFetching) return <Waiting />;
  if (!ready) return <Navigate to="/imodels/$iModelId/creation" params={{ iModelId }} replace />;
  return <Ready key={iModelId} iModel={iModel.data} />;
}

function Ready({ iModel }: { iModel: IModel }) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const { clone } = useSearch({ from: '/imodels/$iModelId' });
  const last = useLocation().pathname.split('/').at(-1);
  const active = pages.find((each) => each === last) ?? 'overview';
  const params = { iModelId: iModel.id };
  const setClone = (value: number | 'head' | undefined) =>
    // What else the address says stays: the changeset that is shown, or the look at the model.
    void navigate({ to: '.', search: ((before: object) => ({ ...before, clone: value })) as never });
  return (
    <Page
      title={iModel.displayName}
      part={active === 'overview' ? undefined : t(`iModel.tabs.${active}`)}
      beside={
        <>
          <Favorite kind="iModel" id={iModel.id} iTwinId={iModel.iTwinId} name={iModel.displayName} />
          {iModel.isSecured && <Badge backgroundColor="steelblue">{t('iModel.secured')}</Badge>}
        </>
      }
      subtitle={iModel.description ?? undefined}
      actions={
        <>
          <OpenViewer iModelId={iModel.id} />
          <Actions iModel={iModel} onClone={() => setClone('head')} />
        </>
      }
    >
      <Tabs.Wrapper
        type="borderless"
        focusActivationMode="manual"
        value={active}
        onValueChange={(name) => void navigate({ to: addressOf(name as PageName), params })}
      >
        <Tabs.TabList aria-label={iModel.displayName}>
          {pages.map((name) => (
            <Tabs.Tab key={name} value={name} label={t(`iModel.tabs.${name}`)} />
          ))}
        </Tabs.TabList>
        <Tabs.Panel value={active} className="tab-panel">
          <Outlet />
        </Tabs.Panel>
      </Tabs.Wrapper>
      {clone !== undefined && <CloneDialog iModel={iModel} upTo={clone} onClose={() => setClone(undefined)} />}
    </Page>
  );
}

/** Opens the iTwin viewer in a tab of its own, at the point that is shown. */
function OpenViewer({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const { viewer } = useSession().settings;
  const { at } = useLocation().search;
  if (viewer?.page !== true) return null;
  const address = `${serverAddress}/viewer/?iModel=${iModelId}${at === undefined ? '' : `&at=${at}`}`;
  return (
    <Button as="a" href={address} target="_blank" rel="noopener" startIcon={<SvgImodel />}>
      {t('iModel.openViewer')}
    </Button>
  );
}

function Actions({ iModel, onClone }: { iModel: IModel; onClone: () => void }) {
  const { t } = useTranslation();
  const [open, setOpen] = useState<'edit' | 'delete'>();
  const { data: permissions = [] } = useQuery(iTwinPermissionsQuery(iModel.iTwinId));
  const manages = permissions.includes('imodels_manage');
  const deletes = permissions.includes('imodels_delete');
  const items = (close: () => void) => [
    ...(manages
      ? [
          <MenuItem key="edit" onClick={() => (close(), setOpen('edit'))}>
            {t('iModel.edit')}
          </MenuItem>,
        ]
      : []),
    ...(deletes
      ? [
          <MenuItem key="delete" onClick={() => (close(), setOpen('delete'))}>
            {t('iModel.delete')}
          </MenuItem>,
        ]
      : []),
  ];
  return (
    <>
      <Button styleType="high-visibility" startIcon={<SvgDuplicate />} onClick={onClone}>
        {t('clone.button')}
      </Button>
      {(manages || deletes) && (
        <DropdownMenu menuItems={items} placement="bottom-end">
          <IconButton label={t('common.moreActions')}>
            <SvgMore />
          </IconButton>
        </DropdownMenu>
      )}
      {open === 'edit' && <EditIModelDialog iModel={iModel} onClose={() => setOpen(undefined)} />}
      {open === 'delete' && <DeleteIModelDialog iModel={iModel} onClose={() => setOpen(undefined)} />}
    </>
  );
}
