import { Tag, TagContainer, Text } from '@itwin/itwinui-react';
import { SvgUsers } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { useTranslation } from 'react-i18next';
import { iModelPermissionsQuery, iModelQuery, itemsOf, nameOf, usersQuery } from '../api/queries.ts';
import type { IModelUser } from '../api/types.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { agoText } from '../format.ts';
import { GrantsSection } from './GrantsSection.tsx';

/** What the user may do with an iModel, and who has used it. */
export function AccessPage() {
  const { t } = useTranslation();
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const { data: iModel } = useQuery(iModelQuery(iModelId));
  const permissions = useQuery(iModelPermissionsQuery(iModelId));
  const users = useInfiniteQuery(usersQuery(iModelId));
  const found = itemsOf(users.data);
  return (
    <div className="stack large">
      <section>
        <Text as="h2" variant="title">
          {t('access.mine')}
        </Text>
        <Text as="p" isMuted>
          {t(iModel?.isSecured === true ? 'access.mineSecured' : 'access.mineInherited')}
        </Text>
        <TagContainer>
          {(permissions.data ?? []).map((permission) => (
            <Tag key={permission}>{t(`permissions.${permission as 'imodels_read'}`, { defaultValue: permission })}</Tag>
          ))}
        </TagContainer>
      </section>
      {iModel !== undefined && (
        <GrantsSection iModel={iModel} canManage={permissions.data?.includes('imodels_manage') === true} />
      )}
      <section>
        <Text as="h2" variant="title">
          {t('access.users')}
        </Text>
        <Text as="p" isMuted>
          {t('access.usersText')}
        </Text>
        {users.isPending && <Waiting />}
        {users.isError && <FaultState fault={users.error} onRetry={() => void users.refetch()} />}
        {users.isSuccess && found.length === 0 && (
          <EmptyState
            picture={<SvgUsers className="state-icon" aria-hidden />}
            title={t('access.nobody')}
            text={t('access.nobodyText')}
          />
        )}
        <ul className="people">
          {found.map((user) => (
            <li key={user.id}>
              <Text>{nameOf(user)}</Text>
              <Text variant="small" isMuted>
                <Statistics user={user} />
              </Text>
            </li>
          ))}
        </ul>
        <More {...users} />
      </section>
    </div>
  );
}

function Statistics({ user: { email, statistics } }: { user: IModelUser }) {
  const { t } = useTranslation();
  return [
    ...(email === '' ? [] : [email]),
    t('access.pushed', { count: statistics.pushedChangesetsCount }),
    t('access.versions', { count: statistics.createdVersionsCount }),
    ...(statistics.lastAccessTime === null
      ? []
      : [t('access.lastAccess', { when: agoText(statistics.lastAccessTime) })]),
  ].join(' · ');
}
