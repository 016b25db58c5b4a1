import { Button, Text } from '@itwin/itwinui-react';
import { SvgComputer } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQueries, useQuery, useQueryClient } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import {
  briefcaseQuery,
  briefcasesQuery,
  iModelPermissionsQuery,
  itemsOf,
  locksQuery,
  nameOf,
  peopleQuery,
  refresh,
} from '../api/queries.ts';
import type { Briefcase, LockSet } from '../api/types.ts';
import { useUser } from '../auth/context.ts';
import { ConfirmDialog } from '../components/ConfirmDialog.tsx';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
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
  const ownerText = useOwnerText(found);
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  const [releasing, setReleasing] = useState<Briefcase>();
  const releasesOthers = permissions.includes('imodels_manage');
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
          const mine = briefcase.ownerId === user.id;
          return (
            <li key={briefcase.briefcaseId}>
              <Text>{t('work.briefcase', { id: numberText(briefcase.briefcaseId) })}</Text>
              <Text variant="small" isMuted>
                {[
                  ownerText(briefcase),
                  ...(briefcase.deviceName === null ? [] : [briefcase.deviceName]),
                  t('work.acquired', { when: agoText(briefcase.acquiredDateTime) }),
                ].join(' · ')}
              </Text>
              <span className="spacer" />
              {(mine || releasesOthers) && (
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
  briefcase,
  onClose,
}: {
  iModelId: string;
  briefcase: Briefcase;
  onClose: () => void;
}) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const mine = useUser().id === briefcase.ownerId;
  const ownerText = useOwnerText([briefcase]);
  const { briefcaseId } = briefcase;
  return (
    <ConfirmDialog
      title={t('work.releaseTitle', { id: numberText(briefcaseId) })}
      text={t(mine ? 'work.releaseText' : 'work.releaseOthersText', { owner: ownerText(briefcase) })}
      submit={t('work.release')}
      request={() => api(`/imodels/${iModelId}/briefcases/${briefcaseId}`, { method: 'DELETE' })}
      onDone={async () => {
        await refresh(client, ['iModel', iModelId, 'locks']);
        await refresh(client, ['iModel', iModelId, 'briefcases']);
      }}
      onClose={onClose}
    />
  );
}

function Locks({ iModelId }: { iModelId: string }) {
  const { t } = useTranslation();
  const locks = useInfiniteQuery(locksQuery(iModelId));
  const found = useMemo(() => byBriefcase(itemsOf(locks.data)), [locks.data]);
  const briefcases = useQueries({
    queries: [...found.keys()].map((briefcaseId) => briefcaseQuery(iModelId, briefcaseId)),
    combine: (results) =>
      new Map(results.flatMap(({ data }) => (data === undefined ? [] : [[data.briefcaseId, data]]))),
  });
  const ownerText = useOwnerText([...briefcases.values()]);
  return (
    <section>
      <Text as="h2" variant="title">
        {t('work.locks')}
      </Text>
      <Text as="p" isMuted>
        {t('work.locksText')}
      </Text>
      {locks.isPending && <Waiting />}
      {locks.isError && <FaultState fault={locks.error} onRetry={() => void locks.refetch()} />}
      {locks.isSuccess && found.size === 0 && (
        <Text as="p" isMuted>
          {t('work.noLocks')}
        </Text>
      )}
      <ul className="people" aria-label={t('work.locks')}>
        {[...found].map(([briefcaseId, levels]) => {
          const briefcase = briefcases.get(briefcaseId);
          return (
            <li key={briefcaseId}>
              <Text>{t('work.briefcase', { id: numberText(briefcaseId) })}</Text>
              <Text variant="small" isMuted>
                {[
                  ...(briefcase === undefined ? [] : [ownerText(briefcase)]),
                  ...(briefcase?.deviceName == null ? [] : [briefcase.deviceName]),
                  ...[...levels].map(([level, count]) =>
                    t('work.lock', {
                      level: t(`work.levels.${level as 'shared'}`, { defaultValue: level }),
                      count,
                      number: numberText(count),
                    }),
                  ),
                ].join(' · ')}
              </Text>
            </li>
          );
        })}
      </ul>
      <More {...locks} />
    </section>
  );
}

/** How many elements each briefcase has locked at each level. The locks of a briefcase may go on over several pages. */
function byBriefcase(sets: readonly LockSet[]): Map<number, Map<string, number>> {
  const found = new Map<number, Map<string, number>>();
  for (const { briefcaseId, lockedObjects } of sets) {
    const levels = found.get(briefcaseId) ?? new Map<string, number>();
    found.set(briefcaseId, levels);
    for (const { lockLevel, objectIds } of lockedObjects)
      levels.set(lockLevel, (levels.get(lockLevel) ?? 0) + objectIds.length);
  }
  return found;
}

/** Names the owners of briefcases. */
function useOwnerText(briefcases: readonly Briefcase[]): (briefcase: Briefcase) => string {
  const { t } = useTranslation();
  const user = useUser();
  const people = useQuery(peopleQuery(briefcases.map(({ ownerId }) => ownerId)));
  return ({ ownerId }) => {
    if (ownerId === user.id) return t('work.mine');
    const owner = people.data?.get(ownerId);
    return owner === undefined ? t('iModel.unknownUser') : nameOf(owner);
  };
}
