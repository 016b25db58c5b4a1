import { Button, Surface, Text } from '@itwin/itwinui-react';
import { SvgStatusErrorHollow, SvgStatusSuccessHollow } from '@itwin/itwinui-icons-react';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useNavigate, useParams } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { createOperationQuery, iModelQuery, iTwinPermissionsQuery, refresh } from '../api/queries.ts';
import type { CreateOperation, IModel } from '../api/types.ts';
import { useIsShown, useSubmit } from '../api/useSubmit.ts';
import { Facts } from '../components/Facts.tsx';
import { FaultAlert, FaultPage } from '../components/FaultState.tsx';
import { LinkButton } from '../components/LinkButton.tsx';
import { ProgressBar } from '../components/ProgressBar.tsx';
import { Page } from '../components/Page.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { bytesText, dateText, numberText } from '../format.ts';

type Kind = 'clone' | 'fork' | 'upload' | 'empty';

function kindOf({ clonedFrom, forkedFrom, state }: CreateOperation): Kind {
  if (clonedFrom !== null) return 'clone';
  if (forkedFrom !== null) return 'fork';
  return state === 'waitingForFile' ? 'upload' : 'empty';
}

/** How the creation of an iModel goes. Its address says everything, so it survives a reload. */
export function CreationPage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId/creation' });
  const iModel = useQuery(iModelQuery(iModelId));
  const operation = useQuery(createOperationQuery(iModelId));
  const client = useQueryClient();
  const state = operation.data?.state;
  useEffect(() => {
    if (state === 'successful') void refresh(client, ['iModel', iModelId], ['iModels']);
  }, [client, iModelId, state]);
  const fault = iModel.error ?? operation.error;
  if (fault !== null)
    return (
      <FaultPage
        fault={fault}
        onRetry={() => {
          void iModel.refetch();
          void operation.refetch();
        }}
      />
    );
  if (iModel.data === undefined || operation.data === undefined) return <Waiting />;
  return <Creation iModel={iModel.data} operation={operation.data} />;
}

function Creation({ iModel, operation }: { iModel: IModel; operation: CreateOperation }) {
  const { t } = useTranslation();
  const kind = kindOf(operation);
  return (
    <Page title={iModel.displayName} part={t(`creation.kinds.${kind}`)} subtitle={iModel.description ?? undefined}>
      <Surface elevation={1} className="panel narrow">
        <Text as="h2" variant="title">
          {t(`creation.kinds.${kind}`)}
        </Text>
        <div role="status">
          <State state={operation.state} />
        </div>
        {operation.state === 'scheduled' && <Progress progress={operation.progress} />}
        <Outcome iModel={iModel} operation={operation} />
        <Facts
          facts={[
            [t('creation.begun'), dateText(operation.createdDateTime)],
            ...(operation.finishedDateTime === null
              ? []
              : [[t('creation.finished'), dateText(operation.finishedDateTime)] as const]),
          ]}
        />
      </Surface>
    </Page>
  );
}

function Progress({ progress }: Pick<CreateOperation, 'progress'>) {
  const { t } = useTranslation();
  const { changesets, totalChangesets, bytes, totalBytes } = progress;
  const share = totalBytes > 0 ? bytes / totalBytes : totalChangesets > 0 ? changesets / totalChangesets : 0;
  const labels = [
    ...(totalChangesets > 0
      ? [
          t('creation.changesets', {
            done: numberText(changesets),
            count: totalChangesets,
            all: numberText(totalChangesets),
          }),
        ]
      : []),
    ...(totalBytes > 0 ? [t('creation.bytes', { done: bytesText(bytes), all: bytesText(totalBytes) })] : []),
  ];
  return (
    <ProgressBar
      label={t('creation.working')}
      share={labels.length > 0 ? share : undefined}
      labels={labels.length > 0 ? labels : [t('creation.working')]}
    />
  );
}

function State({ state }: Pick<CreateOperation, 'state'>) {
  const { t } = useTranslation();
  switch (state) {
    case 'successful':
      return (
        <Text as="p" variant="leading" className="outcome good">
          <SvgStatusSuccessHollow aria-hidden /> {t('creation.ready')}
        </Text>
      );
    case 'failed':
    case 'mainIModelIsMissingFederationGuids':
      return (
        <Text as="p" variant="leading" className="outcome bad">
          <SvgStatusErrorHollow aria-hidden /> {t('creation.failed')}
        </Text>
      );
    case 'waitingForFile':
      return <Text as="p">{t('creation.waitingForFile')}</Text>;
    case 'scheduled':
      return null;
  }
}

/** What can be done now: open it, cancel it, or remove what failed. */
function Outcome({ iModel, operation }: { iModel: IModel; operation: CreateOperation }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const navigate = useNavigate();
  const isShown = useIsShown();
  const [removing, setRemoving] = useState(false);
  const permissions = useQuery(iTwinPermissionsQuery(iModel.iTwinId));
  const remove = useSubmit({
    mutationFn: () => api(`/imodels/${iModel.id}`, { method: 'DELETE' }),
    onMutate: () => setRemoving(true),
    onError: () => setRemoving(false),
    onSuccess: async () => {
      if (isShown()) await navigate({ to: '/itwins/$iTwinId', params: { iTwinId: iModel.iTwinId } });
      client.removeQueries({ queryKey: ['iModel', iModel.id] });
      await refresh(client, ['iModels', iModel.iTwinId]);
    },
  });
  const mayRemove = permissions.data?.includes('imodels_delete') === true;
  const { state, failureReason } = operation;
  const failed = state === 'failed' || state === 'mainIModelIsMissingFederationGuids';
  if (state === 'successful') return <Open iModelId={iModel.id} />;
  return (
    <>
      {failed && (
        <Text as="p">
          {state === 'failed' ? (failureReason ?? t('creation.noReason')) : t('creation.missingFederationGuids')}
        </Text>
      )}
      {failed && permissions.isSuccess && (
        <Text as="p">{t(mayRemove ? 'creation.whatNow' : 'creation.askRemoval')}</Text>
      )}
      <FaultAlert fault={remove.error} />
      {mayRemove && (
        <div className="actions">
          <Button loading={removing} onClick={() => remove.mutate()}>
            {t(failed ? 'creation.remove' : 'creation.cancel')}
          </Button>
        </div>
      )}
    </>
  );
}

/** The way on, with the focus: React focuses only form fields by itself. */
function Open({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const place = useRef<HTMLDivElement>(null);
  useEffect(() => place.current?.querySelector('a')?.focus(), []);
  return (
    <div ref={place} className="actions">
      <LinkButton styleType="high-visibility" to="/imodels/$iModelId" params={{ iModelId }}>
        {t('creation.open')}
      </LinkButton>
    </div>
  );
}
