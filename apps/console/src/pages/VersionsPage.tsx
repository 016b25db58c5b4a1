import { Badge, Button, Surface, Text } from '@itwin/itwinui-react';
import { SvgDuplicate, SvgFlag } from '@itwin/itwinui-icons-react';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { iModelPermissionsQuery, refresh, versionsQuery } from '../api/queries.ts';
import type { NamedVersion } from '../api/types.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultAlert, FaultState } from '../components/FaultState.tsx';
import { LinkButton } from '../components/LinkButton.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { dateText, numberText } from '../format.ts';
import { VersionDialog } from './VersionDialogs.tsx';

/** The named versions of an iModel, the newest changeset first. */
export function VersionsPage() {
  const { t } = useTranslation();
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const versions = useQuery(versionsQuery(iModelId));
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  if (versions.isPending) return <Waiting />;
  if (versions.isError) return <FaultState fault={versions.error} onRetry={() => void versions.refetch()} />;
  if (versions.data.length === 0)
    return (
      <EmptyState
        picture={<SvgFlag className="state-icon" aria-hidden />}
        title={t('versions.empty.title')}
        text={t('versions.empty.text')}
        actions={
          <LinkButton to="/imodels/$iModelId/timeline" params={{ iModelId }}>
            {t('versions.empty.button')}
          </LinkButton>
        }
      />
    );
  return (
    <ul className="versions">
      {versions.data.map((version) => (
        <li key={version.id}>
          <Version iModelId={iModelId} version={version} canWrite={permissions.includes('imodels_write')} />
        </li>
      ))}
    </ul>
  );
}

function Version({ iModelId, version, canWrite }: { iModelId: string; version: NamedVersion; canWrite: boolean }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [editing, setEditing] = useState(false);
  const hidden = version.state === 'hidden';
  const setState = useSubmit({
    mutationFn: () =>
      api(`/imodels/${iModelId}/namedversions/${version.id}`, {
        method: 'PATCH',
        body: { state: hidden ? 'visible' : 'hidden' },
      }),
    onSuccess: () => refresh(client, ['iModel', iModelId, 'versions']),
  });
  return (
    <Surface elevation={1} className="panel version">
      <div className="version-head">
        <Text as="h2" variant="leading">
          {version.displayName}
        </Text>
        {hidden && <Badge backgroundColor="ash">{t('versions.hidden')}</Badge>}
      </div>
      {version.description !== null && <Text as="p">{version.description}</Text>}
      <Text as="p" variant="small" isMuted>
        <Link
          className="iui-anchor"
          to="/imodels/$iModelId/timeline"
          params={{ iModelId }}
          search={{ at: version.changesetIndex }}
        >
          {version.changesetIndex === 0
            ? t('timeline.baseline')
            : t('versions.at', { index: numberText(version.changesetIndex) })}
        </Link>
        {` · ${dateText(version.createdDateTime)}`}
      </Text>
      <FaultAlert fault={setState.error} />
      <div className="actions">
        <LinkButton
          size="small"
          to="/imodels/$iModelId/versions"
          params={{ iModelId }}
          search={{ clone: version.changesetIndex }}
          startIcon={<SvgDuplicate />}
          aria-label={`${t('timeline.cloneTo')}: ${version.displayName}`}
        >
          {t('timeline.cloneTo')}
        </LinkButton>
        {canWrite && (
          <>
            <Button size="small" onClick={() => setEditing(true)}>
              {t('versions.edit')}
            </Button>
            <Button size="small" loading={setState.isPending} onClick={() => setState.mutate()}>
              {t(hidden ? 'versions.show' : 'versions.hide')}
            </Button>
          </>
        )}
      </div>
      {editing && <VersionDialog iModelId={iModelId} version={version} onClose={() => setEditing(false)} />}
    </Surface>
  );
}
