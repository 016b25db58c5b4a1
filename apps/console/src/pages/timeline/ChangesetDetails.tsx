import { Button, Divider, IconButton, Surface, Text } from '@itwin/itwinui-react';
import { Svg3D, SvgCloseSmall, SvgDuplicate, SvgFlag } from '@itwin/itwinui-icons-react';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useEffect, useRef, useState, type ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { extendedDataQuery } from '../../api/administration.ts';
import { api } from '../../api/client.ts';
import {
  changesetsQuery,
  checkpointQuery,
  iModelPermissionsQuery,
  nameOf,
  peopleQuery,
  refresh,
  timelinePage,
} from '../../api/queries.ts';
import { ApiFault } from '../../api/fault.ts';
import type { Changeset, NamedVersion } from '../../api/types.ts';
import { useSubmit } from '../../api/useSubmit.ts';
import { Facts } from '../../components/Facts.tsx';
import { FaultAlert } from '../../components/FaultState.tsx';
import { LinkButton } from '../../components/LinkButton.tsx';
import { ProgressBar } from '../../components/ProgressBar.tsx';
import { bytesText, dateText, numberText } from '../../format.ts';
import { VersionDialog } from '../VersionDialogs.tsx';
import { kindsOf } from './kinds.ts';

interface DetailsProps {
  iModelId: string;
  index: number;
  version: NamedVersion | undefined;
  onClose: () => void;
}

/** Everything about one point of the timeline, and what can be done there. */
export function ChangesetDetails({ iModelId, index, version, onClose }: DetailsProps) {
  const { t } = useTranslation();
  const navigate = useNavigate();
  const [naming, setNaming] = useState(false);
  const panel = useRef<HTMLElement>(null);
  useEffect(() => {
    // In a narrow window the details are below the list.
    if (matchMedia('(max-width: 900px)').matches) panel.current?.scrollIntoView({ block: 'start' });
  }, [index]);
  const page = useQuery({
    ...changesetsQuery(iModelId, Math.floor((index - 1) / timelinePage) * timelinePage + 1),
    enabled: index > 0,
  });
  const changeset = page.data?.get(index);
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  const title = index === 0 ? t('timeline.baseline') : t('timeline.changeset', { index: numberText(index) });
  return (
    <Surface as="aside" ref={panel} elevation={1} className="details" aria-label={title}>
      <div className="details-head">
        <Text as="h2" variant="title">
          {title}
        </Text>
        <IconButton styleType="borderless" size="small" label={t('common.close')} onClick={onClose}>
          <SvgCloseSmall />
        </IconButton>
      </div>
      {changeset?.description != null && <Text as="p">{changeset.description}</Text>}
      <div className="actions">
        <Button
          size="small"
          styleType="high-visibility"
          startIcon={<SvgDuplicate />}
          onClick={() =>
            void navigate({ to: '.', search: ((before: object) => ({ ...before, clone: index })) as never })
          }
        >
          {t('timeline.cloneTo')}
        </Button>
        <LinkButton
          size="small"
          startIcon={<Svg3D />}
          to="/imodels/$iModelId/view"
          params={{ iModelId }}
          search={{ at: index }}
        >
          {t('view.open')}
        </LinkButton>
        {version === undefined && (index === 0 || changeset !== undefined) && permissions.includes('imodels_write') && (
          <Button size="small" startIcon={<SvgFlag />} onClick={() => setNaming(true)}>
            {t('versions.new')}
          </Button>
        )}
      </div>
      {changeset !== undefined && <ChangesetFacts changeset={changeset} />}
      {version !== undefined && (
        <Part title={t('timeline.version')}>
          <Text as="p">
            <strong>{version.displayName}</strong> {version.state === 'hidden' && `(${t('versions.hidden')})`}
          </Text>
          {version.description !== null && <Text as="p">{version.description}</Text>}
        </Part>
      )}
      {index > 0 && <ExtendedDataPart iModelId={iModelId} index={index} />}
      <CheckpointPart iModelId={iModelId} index={index} canMake={permissions.includes('imodels_write')} />
      {naming && (
        <VersionDialog
          iModelId={iModelId}
          changesetId={index === 0 ? null : (changeset?.id ?? null)}
          onClose={() => setNaming(false)}
        />
      )}
    </Surface>
  );
}

function Part({ title, children }: { title: string; children: ReactNode }) {
  return (
    <>
      <Divider />
      <Text as="h3" variant="leading">
        {title}
      </Text>
      {children}
    </>
  );
}

function ChangesetFacts({ changeset }: { changeset: Changeset }) {
  const { t } = useTranslation();
  const people = useQuery(peopleQuery([changeset.creatorId]));
  const author = people.data?.get(changeset.creatorId);
  const files = changeset.synchronizationInfo?.changedFiles ?? [];
  return (
    <Facts
      facts={[
        [t('fields.author'), author === undefined ? t('iModel.unknownUser') : nameOf(author)],
        [t('fields.application'), changeset.application?.name ?? t('iModel.none')],
        [t('fields.pushed'), dateText(changeset.pushDateTime)],
        [t('fields.size'), bytesText(changeset.fileSize)],
        [
          t('fields.kinds'),
          kindsOf(changeset.containingChanges)
            .map((kind) => t(`timeline.kinds.${kind}`))
            .join(', ') || t('timeline.kinds.regular'),
        ],
        [t('fields.briefcase'), numberText(changeset.briefcaseId)],
        ...(files.length === 0 ? [] : [[t('fields.files'), files.join(', ')] as const]),
        [t('fields.id'), <code key="id">{changeset.id}</code>],
      ]}
    />
  );
}

/** What an application attached to the changeset, if anything. */
function ExtendedDataPart({ iModelId, index }: { iModelId: string; index: number }) {
  const { t } = useTranslation();
  const { data } = useQuery({ ...extendedDataQuery(iModelId, index), retry: false });
  if (data == null) return null;
  return (
    <Part title={t('timeline.extendedData')}>
      <pre className="json" tabIndex={0} aria-label={t('timeline.extendedData')}>
        {data}
      </pre>
    </Part>
  );
}

/** The checkpoint of this point: whether there is one, why not, and making it. */
function CheckpointPart({ iModelId, index, canMake }: { iModelId: string; index: number; canMake: boolean }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const query = checkpointQuery(iModelId, index);
  const checkpoint = useQuery({ ...query, retry: false });
  const make = useSubmit({
    mutationFn: () => api(`/imodels/${iModelId}/changesets/${index}/checkpoint`, { method: 'PUT' }),
    onSettled: () => refresh(client, query.queryKey),
  });
  const { data, error } = checkpoint;
  if (error instanceof ApiFault && error.status === 403)
    return <Part title={t('checkpoints.title')}>{<Text as="p">{t('checkpoints.hidden')}</Text>}</Part>;
  return (
    <Part title={t('checkpoints.title')}>
      <FaultAlert fault={error ?? make.error} />
      {data === undefined ? (
        error === null && <span className="bone" aria-hidden />
      ) : (
        <>
          <Text as="p" role="status">
            {t(`checkpoints.texts.${data.state}`, { size: bytesText(data.size) })}
          </Text>
          {data.state === 'scheduled' && data.progress.totalChangesets > 0 && (
            <ProgressBar
              label={t('checkpoints.title')}
              share={data.progress.changesets / data.progress.totalChangesets}
              labels={[
                t('checkpoints.applied', {
                  count: data.progress.totalChangesets,
                  done: numberText(data.progress.changesets),
                  all: numberText(data.progress.totalChangesets),
                }),
              ]}
            />
          )}
          {data.failureReason !== null && <Text as="p">{data.failureReason}</Text>}
          {canMake && (data.state === 'failed' || data.state === 'notGenerated') && (
            <Button size="small" loading={make.isPending} onClick={() => make.mutate()}>
              {t(data.state === 'failed' ? 'checkpoints.again' : 'checkpoints.make')}
            </Button>
          )}
        </>
      )}
    </Part>
  );
}
