import { Anchor, Surface, Text } from '@itwin/itwinui-react';
import { useQuery } from '@tanstack/react-query';
import { Link, useParams } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import {
  checkpointQuery,
  createOperationQuery,
  headQuery,
  iModelQuery,
  nameOf,
  peopleQuery,
  versionsQuery,
} from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { Facts } from '../components/Facts.tsx';
import { Thumbnail } from '../components/Thumbnail.tsx';
import { StoragePanel } from './StoragePanel.tsx';
import { dateText, numberText } from '../format.ts';

export function OverviewPage() {
  const { t } = useTranslation();
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const { data: iModel } = useQuery(iModelQuery(iModelId));
  if (iModel === undefined) return null;
  return (
    <div className="overview">
      <Surface elevation={1} className="picture">
        <Link to="/imodels/$iModelId/view" params={{ iModelId }} aria-label={t('view.open')} title={t('view.open')}>
          <Thumbnail
            iModelId={iModelId}
            size="large"
            changedAt={iModel.lastChangesetPushDateTime ?? iModel.createdDateTime}
          />
        </Link>
      </Surface>
      <Summary iModel={iModel} />
      <StoragePanel iModelId={iModelId} />
    </div>
  );
}

function Summary({ iModel }: { iModel: IModel }) {
  const { t } = useTranslation();
  const iModelId = iModel.id;
  const creatorId = decodeURIComponent(iModel._links.creator.href.split('/').at(-1) ?? '');
  const head = useQuery(headQuery(iModelId));
  const versions = useQuery(versionsQuery(iModelId));
  const people = useQuery(peopleQuery([creatorId]));
  const operation = useQuery(createOperationQuery(iModelId));
  const creator = people.data?.get(creatorId);
  const visible = versions.data?.filter(({ state }) => state === 'visible');
  const origin = operation.data?.clonedFrom ?? operation.data?.forkedFrom;
  return (
    <Surface elevation={1} className="panel">
      <Text as="h2" variant="title">
        {t('iModel.summary')}
      </Text>
      <Facts
        facts={[
          [
            t('iModel.changesets'),
            head.data === undefined ? (
              <Bone />
            ) : (
              <Link className="iui-anchor" to="/imodels/$iModelId/timeline" params={{ iModelId }}>
                {numberText(head.data?.index ?? 0)}
              </Link>
            ),
          ],
          [
            t('iModel.lastChange'),
            iModel.lastChangesetPushDateTime === null ? t('iModel.never') : dateText(iModel.lastChangesetPushDateTime),
          ],
          [
            t('iModel.checkpoint'),
            head.data === undefined ? <Bone /> : <CheckpointState iModelId={iModelId} index={head.data?.index ?? 0} />,
          ],
          [t('iModel.newestVersion'), visible === undefined ? <Bone /> : (visible[0]?.displayName ?? t('iModel.none'))],
          [t('fields.created'), dateText(iModel.createdDateTime)],
          [t('fields.creator'), creator === undefined ? t('iModel.unknownUser') : nameOf(creator)],
          ...(origin == null
            ? []
            : [[t('iModel.origin'), <Origin key="origin" iModelId={origin.iModelId} />] as const]),
          [t('fields.dataCenter'), iModel.dataCenterLocation],
          [t('fields.id'), <code key="id">{iModelId}</code>],
        ]}
      />
    </Surface>
  );
}

const Bone = () => <span className="bone short" aria-hidden />;

/** The iModel that this one was made from, as far as the caller may see it. */
function Origin({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const source = useQuery({ ...iModelQuery(iModelId), retry: false });
  if (source.isPending) return <Bone />;
  if (source.isError) return <>{t('iModel.originGone')}</>;
  return (
    <Anchor as={Link} to={`/imodels/${iModelId}`}>
      {source.data.displayName}
    </Anchor>
  );
}

function CheckpointState({ iModelId, index }: { iModelId: string; index: number }) {
  const { t } = useTranslation();
  const { data, isError } = useQuery(checkpointQuery(iModelId, index));
  if (isError) return <>{t('checkpoints.hidden')}</>;
  if (data === undefined) return <Bone />;
  return (
    <>
      {t(`checkpoints.states.${data.state}`)}
      {data.failureReason !== null && (
        <Text as="p" variant="small" isMuted>
          {data.failureReason}
        </Text>
      )}
    </>
  );
}
