import { Surface, Text } from '@itwin/itwinui-react';
import { queryOptions, useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { iModelPermissionsQuery } from '../api/queries.ts';
import { FaultAlert } from '../components/FaultState.tsx';
import { bytesText } from '../format.ts';

interface Bytes {
  ownBytes: number;
  sharedBytes: number;
  cloneOnlyBytes: number;
}

const parts = ['baseline', 'changesets', 'checkpoints', 'graphics', 'thumbnail'] as const;
type Storage = Bytes & Record<(typeof parts)[number], Bytes> & { complete: boolean };

const storageQuery = (iModelId: string) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'storage'],
    queryFn: async ({ signal }) =>
      (await api<{ storage: Storage }>(`/imodels/${iModelId}/storage`, { signal })).storage,
    // It counts every file of the history.
    staleTime: 60_000,
  });

/** What an iModel takes, and what of that it shares with others. Shown to those who manage it. */
export function StoragePanel({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  const manages = permissions.includes('imodels_manage');
  const { data, error } = useQuery({ ...storageQuery(iModelId), enabled: manages });
  if (!manages) return null;
  const title = t('storage.title');
  return (
    <Surface elevation={1} className="panel wide">
      <Text as="h2" variant="title">
        {title}
      </Text>
      <FaultAlert fault={error} />
      {data === undefined ? (
        error === null && <span className="bone" aria-hidden />
      ) : (
        <>
          <div className="table-place">
            <table className="numbers" aria-label={title}>
              <thead>
                <tr>
                  <th scope="col">{t('storage.part')}</th>
                  <th scope="col">{t('storage.own')}</th>
                  <th scope="col">{t('storage.shared')}</th>
                  <th scope="col">{t('storage.cloneOnly')}</th>
                </tr>
              </thead>
              <tbody>
                {parts.map((part) => (
                  <Row key={part} name={t(`storage.parts.${part}`)} bytes={data[part]} />
                ))}
              </tbody>
              <tfoot>
                <Row name={t('storage.total')} bytes={data} />
              </tfoot>
            </table>
          </div>
          <Text as="p" variant="small" isMuted>
            {t('storage.text')} {!data.complete && t('storage.incomplete')}
          </Text>
        </>
      )}
    </Surface>
  );
}

function Row({ name, bytes }: { name: string; bytes: Bytes }) {
  return (
    <tr>
      <th scope="row">{name}</th>
      <td>{bytesText(bytes.ownBytes)}</td>
      <td>{bytesText(bytes.sharedBytes)}</td>
      <td>{bytesText(bytes.cloneOnlyBytes)}</td>
    </tr>
  );
}
