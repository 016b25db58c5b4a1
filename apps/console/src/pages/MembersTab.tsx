import { Button, Surface, Tag, TagContainer, Text } from '@itwin/itwinui-react';
import { SvgAdd, SvgUsers } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { itemsOf, membersQuery, nameOf, ownersQuery, rolesQuery } from '../api/queries.ts';
import type { Member, Role } from '../api/types.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { SectionHead } from '../components/SectionHead.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { MemberDialog, OwnerDialog, RemovalDialog, RoleDialog, type Removal } from './members/dialogs.tsx';

/** The dialogue that is open. */
type Open = 'owner' | 'member' | 'role' | Member | Removal | undefined;

const isRemoval = (open: Open): open is Removal => typeof open === 'object' && 'kind' in open;

/** Who may do what on an iTwin. */
export function MembersTab({ iTwinId, permissions }: { iTwinId: string; permissions: readonly string[] }) {
  const [open, setOpen] = useState<Open>();
  const roles = useQuery(rolesQuery(iTwinId));
  const close = () => setOpen(undefined);
  const managesMembers = permissions.includes('administration_invite_member');
  const managesRoles = permissions.includes('administration_manage_roles');
  return (
    <div className="stack large">
      <Owners iTwinId={iTwinId} canManage={managesRoles && managesMembers} onOpen={setOpen} />
      <Members iTwinId={iTwinId} roles={roles.data} canManage={managesMembers} onOpen={setOpen} />
      <Roles roles={roles.data} canManage={managesRoles} onOpen={setOpen} />
      {open === 'owner' && <OwnerDialog iTwinId={iTwinId} onClose={close} />}
      {open === 'member' && <MemberDialog iTwinId={iTwinId} roles={roles.data ?? []} onClose={close} />}
      {open === 'role' && <RoleDialog iTwinId={iTwinId} onClose={close} />}
      {typeof open === 'object' && !isRemoval(open) && (
        <MemberDialog iTwinId={iTwinId} roles={roles.data ?? []} member={open} onClose={close} />
      )}
      {isRemoval(open) && <RemovalDialog iTwinId={iTwinId} removal={open} onClose={close} />}
    </div>
  );
}

interface SectionProps {
  canManage: boolean;
  onOpen: (open: Open) => void;
}

function Owners({ iTwinId, canManage, onOpen }: SectionProps & { iTwinId: string }) {
  const { t } = useTranslation();
  const owners = useInfiniteQuery(ownersQuery(iTwinId));
  return (
    <section>
      <SectionHead
        title={t('members.owners')}
        text={t('members.ownersText')}
        action={
          canManage && (
            <Button startIcon={<SvgAdd />} onClick={() => onOpen('owner')}>
              {t('members.addOwner')}
            </Button>
          )
        }
      />
      {owners.isPending && <Waiting />}
      {owners.isError && <FaultState fault={owners.error} onRetry={() => void owners.refetch()} />}
      <ul className="people">
        {itemsOf(owners.data).map((owner) => (
          <li key={owner.id}>
            <Text>{nameOf(owner)}</Text>
            <Text variant="small" isMuted>
              {owner.email}
            </Text>
            <span className="spacer" />
            {canManage && (
              <Button
                size="small"
                aria-label={t('members.removeOwnerLabel', { name: nameOf(owner) })}
                onClick={() => onOpen({ kind: 'owner', of: owner })}
              >
                {t('members.removeOwner')}
              </Button>
            )}
          </li>
        ))}
      </ul>
      <More {...owners} />
    </section>
  );
}

function Members({
  iTwinId,
  roles,
  canManage,
  onOpen,
}: SectionProps & { iTwinId: string; roles: readonly Role[] | undefined }) {
  const { t } = useTranslation();
  const members = useInfiniteQuery(membersQuery(iTwinId));
  const found = itemsOf(members.data);
  const withoutRoles = roles?.length === 0;
  return (
    <section>
      <SectionHead
        title={t('members.members')}
        action={
          canManage && (
            <Button startIcon={<SvgAdd />} disabled={withoutRoles} onClick={() => onOpen('member')}>
              {t('members.addMember')}
            </Button>
          )
        }
      />
      {members.isPending && <Waiting />}
      {members.isError && <FaultState fault={members.error} onRetry={() => void members.refetch()} />}
      {members.isSuccess && found.length === 0 && (
        <EmptyState
          picture={<SvgUsers className="state-icon" aria-hidden />}
          title={t('members.none')}
          text={t(withoutRoles && canManage ? 'members.noRolesFirst' : 'members.noneText')}
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
            <span className="spacer" />
            {canManage && (
              <>
                <Button
                  size="small"
                  aria-label={t('members.changeRolesLabel', { name: nameOf(member) })}
                  onClick={() => onOpen(member)}
                >
                  {t('members.changeRoles')}
                </Button>
                <Button
                  size="small"
                  aria-label={t('members.removeLabel', { name: nameOf(member) })}
                  onClick={() => onOpen({ kind: 'member', of: member })}
                >
                  {t('members.remove')}
                </Button>
              </>
            )}
          </li>
        ))}
      </ul>
      <More {...members} />
    </section>
  );
}

function Roles({ roles, canManage, onOpen }: SectionProps & { roles: readonly Role[] | undefined }) {
  const { t } = useTranslation();
  if (roles === undefined || (roles.length === 0 && !canManage)) return null;
  return (
    <section>
      <SectionHead
        title={t('members.roles')}
        text={t('members.rolesText')}
        action={
          canManage && (
            <Button startIcon={<SvgAdd />} onClick={() => onOpen('role')}>
              {t('members.newRole')}
            </Button>
          )
        }
      />
      <div className="roles">
        {roles.map((role) => (
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
            {canManage && (
              <div className="actions">
                <Button
                  size="small"
                  aria-label={t('members.deleteRoleLabel', { name: role.displayName })}
                  onClick={() => onOpen({ kind: 'role', of: role })}
                >
                  {t('members.deleteRole')}
                </Button>
              </div>
            )}
          </Surface>
        ))}
      </div>
    </section>
  );
}
