import { Button, Surface, Tag, TagContainer, Text } from '@itwin/itwinui-react';
import { SvgAdd, SvgUsers } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { groupsQuery, rolesOfGroupsQuery, type Group } from '../api/administration.ts';
import { itemsOf, nameOf, rolesQuery } from '../api/queries.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { SectionHead } from '../components/SectionHead.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { DeleteGroupDialog, GroupDialog, GroupRolesDialog } from './groups/dialogs.tsx';

type Open = { what: 'new' } | { what: 'edit' | 'roles' | 'delete'; group: Group } | undefined;

/** Users that are shown of a group; the dialogue has all. */
const shownUsers = 20;

/** Groups of users of an iTwin, and the roles that they have together. */
export function GroupsTab({ iTwinId, permissions }: { iTwinId: string; permissions: readonly string[] }) {
  const { t } = useTranslation();
  const [open, setOpen] = useState<Open>();
  const groups = useInfiniteQuery(groupsQuery(iTwinId));
  const roles = useQuery(rolesQuery(iTwinId));
  const held = useQuery(rolesOfGroupsQuery(iTwinId));
  const canManage = permissions.includes('administration_invite_member');
  const found = itemsOf(groups.data);
  const close = () => setOpen(undefined);
  return (
    <section>
      <SectionHead
        title={t('groups.title')}
        text={t('groups.text')}
        action={
          canManage && (
            <Button startIcon={<SvgAdd />} onClick={() => setOpen({ what: 'new' })}>
              {t('groups.new')}
            </Button>
          )
        }
      />
      {groups.isPending && <Waiting />}
      {groups.isError && <FaultState fault={groups.error} onRetry={() => void groups.refetch()} />}
      {groups.isSuccess && found.length === 0 && (
        <EmptyState
          picture={<SvgUsers className="state-icon" aria-hidden />}
          title={t('groups.none')}
          text={t('groups.noneText')}
        />
      )}
      <div className="roles">
        {found.map((group) => (
          <GroupPanel
            key={group.id}
            group={group}
            roles={held.data?.get(group.id) ?? []}
            canManage={canManage}
            // The dialogue begins with the roles of today.
            knowsRoles={roles.isSuccess && held.isSuccess}
            onOpen={(what) => setOpen({ what, group })}
          />
        ))}
      </div>
      <More {...groups} />
      {open?.what === 'new' && <GroupDialog iTwinId={iTwinId} onClose={close} />}
      {open?.what === 'edit' && <GroupDialog iTwinId={iTwinId} group={open.group} onClose={close} />}
      {open?.what === 'delete' && <DeleteGroupDialog iTwinId={iTwinId} group={open.group} onClose={close} />}
      {open?.what === 'roles' && (
        <GroupRolesDialog
          iTwinId={iTwinId}
          group={open.group}
          roles={roles.data ?? []}
          held={held.data?.get(open.group.id)?.map(({ id }) => id) ?? []}
          onClose={close}
        />
      )}
    </section>
  );
}

function GroupPanel({
  group,
  roles,
  canManage,
  knowsRoles,
  onOpen,
}: {
  group: Group;
  roles: readonly { id: string; displayName: string }[];
  canManage: boolean;
  knowsRoles: boolean;
  onOpen: (what: 'edit' | 'roles' | 'delete') => void;
}) {
  const { t } = useTranslation();
  const { name, description, members } = group;
  return (
    <Surface elevation={1} className="panel">
      <Text as="h3" variant="leading">
        {name}
      </Text>
      {description !== null && description !== '' && <Text as="p">{description}</Text>}
      {roles.length === 0 ? (
        <Text as="p" isMuted>
          {t('groups.noRoles')}
        </Text>
      ) : (
        <TagContainer>
          {roles.map((role) => (
            <Tag key={role.id}>{role.displayName}</Tag>
          ))}
        </TagContainer>
      )}
      <Text as="p" variant="small">
        {members.length === 0
          ? t('groups.nobody')
          : [
              ...members.slice(0, shownUsers).map(nameOf),
              ...(members.length > shownUsers ? [t('groups.others', { count: members.length - shownUsers })] : []),
            ].join(', ')}
      </Text>
      {canManage && (
        <div className="actions">
          <Button size="small" aria-label={t('groups.editLabel', { name })} onClick={() => onOpen('edit')}>
            {t('groups.edit')}
          </Button>
          <Button
            size="small"
            disabled={!knowsRoles}
            aria-label={t('groups.rolesLabel', { name })}
            onClick={() => onOpen('roles')}
          >
            {t('groups.roles')}
          </Button>
          <Button size="small" aria-label={t('groups.deleteLabel', { name })} onClick={() => onOpen('delete')}>
            {t('common.delete')}
          </Button>
        </div>
      )}
    </Surface>
  );
}
