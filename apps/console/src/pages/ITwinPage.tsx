import { Tabs } from '@itwin/itwinui-react';
import { useQuery } from '@tanstack/react-query';
import { useNavigate, useParams, useSearch } from '@tanstack/react-router';
import { lazy, Suspense, useEffect } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { iTwinPermissionsQuery, iTwinQuery } from '../api/queries.ts';
import { Favorite } from '../components/Favorite.tsx';
import { FaultPage } from '../components/FaultState.tsx';
import { Page } from '../components/Page.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { IModelsTab } from './IModelsTab.tsx';

const MembersTab = lazy(async () => ({ default: (await import('./MembersTab.tsx')).MembersTab }));
const GroupsTab = lazy(async () => ({ default: (await import('./GroupsTab.tsx')).GroupsTab }));
const WebhooksTab = lazy(async () => ({ default: (await import('./WebhooksTab.tsx')).WebhooksTab }));
const UsageTab = lazy(async () => ({ default: (await import('./UsageTab.tsx')).UsageTab }));

const tabs = ['imodels', 'members', 'groups', 'webhooks', 'usage'] as const;
type TabName = (typeof tabs)[number];

export function ITwinPage() {
  const { t } = useTranslation();
  const { iTwinId } = useParams({ from: '/itwins/$iTwinId' });
  const search = useSearch({ from: '/itwins/$iTwinId' });
  const navigate = useNavigate({ from: '/itwins/$iTwinId' });
  const iTwin = useQuery(iTwinQuery(iTwinId));
  const permissions = useQuery(iTwinPermissionsQuery(iTwinId));
  useEffect(() => {
    // What somebody opens is among the recents; nobody waits for it.
    if (iTwin.isSuccess) void api(`/itwins/recents/${iTwinId}`, { method: 'POST' }).catch(() => undefined);
  }, [iTwinId, iTwin.isSuccess]);
  if (iTwin.isError) return <FaultPage fault={iTwin.error} onRetry={() => void iTwin.refetch()} />;
  // All tabs come at once: one that came later would move the chosen one out of a narrow window.
  if (iTwin.isPending || permissions.isPending) return <Waiting />;
  // Only those who look after webhooks may see them.
  const shown = tabs.filter((tab) => tab !== 'webhooks' || permissions.data?.includes('webhooks_maintainer') === true);
  const active = tabs.find((each) => each === search.tab) ?? 'imodels';
  return (
    <Page
      title={iTwin.data.displayName}
      part={active === 'imodels' ? undefined : t(`iTwins.tabs.${active}`)}
      beside={<Favorite kind="iTwin" id={iTwinId} name={iTwin.data.displayName} />}
      subtitle={[
        t(`iTwins.subClasses.${iTwin.data.subClass as 'Project'}`, { defaultValue: iTwin.data.subClass }),
        ...(iTwin.data.number === iTwinId ? [] : [iTwin.data.number]),
        t('iTwins.dataCenter', { name: iTwin.data.dataCenterLocation }),
      ].join(' · ')}
    >
      <Tabs.Wrapper
        type="borderless"
        focusActivationMode="manual"
        value={active}
        onValueChange={(tab) => void navigate({ search: tab === 'imodels' ? {} : { tab } })}
      >
        <Tabs.TabList aria-label={iTwin.data.displayName}>
          {shown.map((tab) => (
            <Tabs.Tab key={tab} value={tab} label={t(`iTwins.tabs.${tab}`)} />
          ))}
        </Tabs.TabList>
        <Tabs.Panel value={active} className="tab-panel">
          <Suspense fallback={<Waiting />}>
            <TabContent tab={active} iTwinId={iTwinId} permissions={permissions.data} />
          </Suspense>
        </Tabs.Panel>
      </Tabs.Wrapper>
    </Page>
  );
}

function TabContent({
  tab,
  iTwinId,
  permissions = [],
}: {
  tab: TabName;
  iTwinId: string;
  permissions: string[] | undefined;
}) {
  switch (tab) {
    case 'imodels':
      return <IModelsTab iTwinId={iTwinId} canCreate={permissions.includes('imodels_manage')} />;
    case 'members':
      return <MembersTab iTwinId={iTwinId} permissions={permissions} />;
    case 'groups':
      return <GroupsTab iTwinId={iTwinId} permissions={permissions} />;
    case 'webhooks':
      return <WebhooksTab iTwinId={iTwinId} />;
    case 'usage':
      return <UsageTab iTwinId={iTwinId} />;
  }
}
