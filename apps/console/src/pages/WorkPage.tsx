import { Button, Text } from '@itwin/itwinui-react';
import { SvgComputer } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import {
  briefcasesQuery,
  iModelQuery,
  itemsOf,
  iTwinPermissionsQuery,
  locksQuery,
  nameOf,
  peopleQuery,
  refresh,
} from '../api/queries.ts';
import type { Briefcase } from '../api/types.ts';
import { useUser } from '../auth/context.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { FormDialog } from '../components/FormDialog.tsx';
import { More } from '../components/More.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { agoText, numberText } from '../format.ts';

/** Who is working on an iModel: briefcases, and the locks that they hold. */
export function WorkPage() {
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  return (
    <div className="stack large">
      <Briefcases iModelId={iModelId} />
      <Locks iModelId={iModelId} />
    </div>
  );
}

function Briefcases({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const user = useUser();
  const briefcases = useInfiniteQuery(briefcasesQuery(iModelId));
  const found = itemsOf(briefcases.data);
  const people = useQuery(peopleQuery(found.map(({ ownerId }) => ownerId)));
  const { data: iModel } = useQuery(iModelQuery(iModelId));
  const permissions = useQuery({
    ...iTwinPermissionsQuery(iModel?.iTwinId ?? ''),
    enabled: iModel !== undefined,
  });
  const [releasing, setReleasing] = useState<Briefcase>();
  const managesOthers = permissions.data?.includes('itwins_modify') === true;
  return (
    <section>
      <Text as="h2" variant="title">
        {t('work.briefcases')}
      </Text>
      <Text as="p" isMuted>
        {t('work.briefcasesText')}
      </Text>
      {briefcases.isPending && <Waiting />}
      {briefcases.isError && <FaultState fault={briefcases.error} onRetry={() => void briefcases.refetch()} />}
      {briefcases.isSuccess && found.length === 0 && (
        <EmptyState
          picture={<SvgComputer className="state-icon" aria-hidden />}
          title={t('work.noBriefcases')}
          text={t('work.noBriefcasesText')}
        />
      )}
      <ul className="people">
        {found.map((briefcase) => {
          const owner = people.data?.get(briefcase.ownerId);
          const mine = briefcase.ownerId === user.id;
          return (
            <li key={briefcase.briefcaseId}>
              <Text>{t('work.briefcase', { id: numberText(briefcase.briefcaseId) })}</Text>
              <Text variant="small" isMuted>
                {[
                  mine ? t('work.mine') : owner === undefined ? t('iModel.unknownUser') : nameOf(owner),
                  ...(briefcase.deviceName === null ? [] : [briefcase.deviceName]),
                  t('work.acquired', { when: agoText(briefcase.acquiredDateTime) }),
                ].join(' · ')}
              </Text>
              <span className="spacer" />
              {(mine || managesOthers) && (
                <Button
                  size="small"
                  aria-label={t('work.releaseLabel', { id: numberText(briefcase.briefcaseId) })}
                  onClick={() => setReleasing(briefcase)}
                >
                  {t('work.release')}
                </Button>
              )}
            </li>
          );
        })}
      </ul>
      <More {...briefcases} />
      {releasing !== undefined && (
        <ReleaseDialog iModelId={iModelId} briefcase={releasing} onClose={() => setReleasing(undefined)} />
      )}
    </section>
  );
}

function ReleaseDialog({
  iModelId,
  briefcase: { briefcaseId },
  onClose,
}: {
  iModelId: string;
  briefcase: Briefcase;
  onClose: () => void;
}) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const release = useMutation({
    mutationFn: () => api(`/imodels/${iModelId}/briefcases/${briefcaseId}`, { method: 'DELETE' }),
    onSuccess: async () => {
      await refresh(client, ['iModel', iModelId, 'briefcases'], ['iModel', iModelId, 'locks']);
      onClose();
    },
  });
  return (
    <FormDialog
      title={t('work.releaseTitle', { id: numberText(briefcaseId) })}
      submit={t('work.release')}
      isBusy={release.isPending}
      isDangerous
      fault={release.error}
      onSubmit={() => release.mutate()}
      onClose={onClose}
    >
      <Text as="p">{t('work.releaseText')}</Text>
    </FormDialog>
  );
}

function Locks({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const locks = useInfiniteQuery(locksQuery(iModelId));
  const found = itemsOf(locks.data);
  return (
    <section>
      <Text as="h2" variant="title">
        {t('work.locks')}
      </Text>
      {locks.isPending && <Waiting />}
      {locks.isError && <FaultState fault={locks.error} onRetry={() => void locks.refetch()} />}
      {locks.isSuccess && found.length === 0 && (
        <Text as="p" isMuted>
          {t('work.noLocks')}
        </Text>
      )}
      <ul className="people">
        {found.map(({ briefcaseId, lockedObjects }) => (
          <li key={briefcaseId}>
            <Text>{t('work.briefcase', { id: numberText(briefcaseId) })}</Text>
            {lockedObjects.map(({ lockLevel, objectIds }) => (
              <Text key={lockLevel} variant="small" isMuted>
                {t('work.lock', {
                  level: t(`work.levels.${lockLevel as 'shared'}`, { defaultValue: lockLevel }),
                  count: objectIds.length,
                })}
              </Text>
            ))}
          </li>
        ))}
      </ul>
      <More {...locks} />
    </section>
  );
}
