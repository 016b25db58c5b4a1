import { Surface, Tag, TagContainer, Text } from '@itwin/itwinui-react';
import { SvgUsers } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { itemsOf, membersQuery, nameOf, ownersQuery, rolesQuery } from '../api/queries.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { Waiting } from '../components/Waiting.tsx';

/** Who may do what on an iTwin. */
export function MembersTab({ iTwinId }: { iTwinId: string; permissions: readonly string[] }) {
  return (
    <div className="stack large">
      <Owners iTwinId={iTwinId} />
      <Members iTwinId={iTwinId} />
      <Roles iTwinId={iTwinId} />
    </div>
  );
}

function Owners({ iTwinId }: { iTwinId: string }) {
  const { t } = useTranslation();
  const owners = useInfiniteQuery(ownersQuery(iTwinId));
  return (
    <section>
      <Text as="h2" variant="title">
        {t('members.owners')}
      </Text>
      <Text as="p" isMuted>
        {t('members.ownersText')}
      </Text>
      {owners.isPending && <Waiting />}
      {owners.isError && <FaultState fault={owners.error} onRetry={() => void owners.refetch()} />}
      <ul className="people">
        {itemsOf(owners.data).map((owner) => (
          <li key={owner.id}>
            <Text>{nameOf(owner)}</Text>
            <Text variant="small" isMuted>
              {owner.email}
            </Text>
          </li>
        ))}
      </ul>
      <More {...owners} />
    </section>
  );
}

function Members({ iTwinId }: { iTwinId: string }) {
  const { t } = useTranslation();
  const members = useInfiniteQuery(membersQuery(iTwinId));
  const found = itemsOf(members.data);
  return (
    <section>
      <Text as="h2" variant="title">
        {t('members.members')}
      </Text>
      {members.isPending && <Waiting />}
      {members.isError && <FaultState fault={members.error} onRetry={() => void members.refetch()} />}
      {members.isSuccess && found.length === 0 && (
        <EmptyState
          picture={<SvgUsers className="state-icon" aria-hidden />}
          title={t('members.none')}
          text={t('members.noneText')}
        />
      )}
      <ul className="people">
        {found.map((member) => (
          <li key={member.id}>
            <Text>{nameOf(member)}</Text>
            <Text variant="small" isMuted>
              {member.email}
            </Text>
            <TagContainer>
              {member.roles.map((role) => (
                <Tag key={role.id}>{role.displayName}</Tag>
              ))}
            </TagContainer>
          </li>
        ))}
      </ul>
      <More {...members} />
    </section>
  );
}

function Roles({ iTwinId }: { iTwinId: string }) {
  const { t } = useTranslation();
  const roles = useQuery(rolesQuery(iTwinId));
  if (roles.data === undefined || roles.data.length === 0) return null;
  return (
    <section>
      <Text as="h2" variant="title">
        {t('members.roles')}
      </Text>
      <div className="roles">
        {roles.data.map((role) => (
          <Surface key={role.id} elevation={1} className="panel">
            <Text as="h3" variant="leading">
              {role.displayName}
            </Text>
            {role.description !== null && <Text as="p">{role.description}</Text>}
            <TagContainer>
              {role.permissions.map((permission) => (
                <Tag key={permission}>
                  {t(`permissions.${permission as 'imodels_read'}`, { defaultValue: permission })}
                </Tag>
              ))}
            </TagContainer>
          </Surface>
        ))}
      </div>
    </section>
  );
}
