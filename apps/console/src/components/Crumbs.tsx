import { Breadcrumbs } from '@itwin/itwinui-react';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { iModelQuery, iTwinQuery } from '../api/queries.ts';

/** Where the page is: iTwins, the iTwin, the iModel. */
export function Crumbs() {
  const { t } = useTranslation();
  const { iTwinId: named, iModelId } = useParams({ strict: false });
  const iModel = useQuery({ ...iModelQuery(iModelId ?? ''), enabled: iModelId !== undefined });
  const iTwinId = named ?? iModel.data?.iTwinId;
  const iTwin = useQuery({ ...iTwinQuery(iTwinId ?? ''), enabled: iTwinId !== undefined });
  return (
    <Breadcrumbs aria-label={t('shell.breadcrumbs')} className="crumbs">
      <Breadcrumbs.Item as={Link} to="/">
        {t('iTwins.title')}
      </Breadcrumbs.Item>
      {iTwinId !== undefined && !iTwin.isError && (
        <Breadcrumbs.Item as={Link} to={`/itwins/${iTwinId}`}>
          {iTwin.data?.displayName ?? '…'}
        </Breadcrumbs.Item>
      )}
      {iModelId !== undefined && !iModel.isError && (
        <Breadcrumbs.Item as={Link} to={`/imodels/${iModelId}`}>
          {iModel.data?.displayName ?? '…'}
        </Breadcrumbs.Item>
      )}
    </Breadcrumbs>
  );
}
