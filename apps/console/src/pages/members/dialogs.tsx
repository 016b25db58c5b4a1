import { LabeledInput } from '@itwin/itwinui-react';
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../../api/client.ts';
import { nameOf, refresh } from '../../api/queries.ts';
import type { Member, Owner, Role } from '../../api/types.ts';
import { useSubmit } from '../../api/useSubmit.ts';
import { Choices } from '../../components/Choices.tsx';
import { ConfirmDialog } from '../../components/ConfirmDialog.tsx';
import { FormDialog } from '../../components/FormDialog.tsx';
import { DescriptionField, NameField } from '../../components/NameFields.tsx';

/** Permissions that a role can give. */
const permissions = [
  'imodels_webview',
  'imodels_read',
  'imodels_write',
  'imodels_manage',
  'imodels_delete',
  'administration_invite_member',
  'administration_manage_roles',
  'itwins_modify',
  'webhooks_maintainer',
] as const;

export interface DialogProps {
  iTwinId: string;
  onClose: () => void;
}

/** Sends a change of who may do what on an iTwin, and reads it again. */
export function useChange(iTwinId: string, onClose: () => void) {
  const client = useQueryClient();
  return useSubmit({
    mutationFn: ({ method, path, body }: { method: 'POST' | 'PATCH' | 'DELETE'; path: string; body?: unknown }) =>
      api(`/accesscontrol/itwins/${iTwinId}/${path}`, { method, body }),
    onSuccess: async () => {
      await refresh(client, ['iTwin', iTwinId]);
      onClose();
    },
  });
}

export function OwnerDialog({ iTwinId, onClose }: DialogProps) {
  const { t } = useTranslation();
  const [email, setEmail] = useState('');
  const change = useChange(iTwinId, onClose);
  return (
    <FormDialog
      title={t('members.addOwner')}
      submit={t('members.addOwner')}
      isBusy={change.isPending}
      isReady={email.trim() !== ''}
      fault={change.error}
      onSubmit={() => change.mutate({ method: 'POST', path: 'members/owners', body: { email: email.trim() } })}
      onClose={onClose}
    >
      <EmailField value={email} onChange={setEmail} />
    </FormDialog>
  );
}

function EmailField({ value, onChange }: { value: string; onChange: (email: string) => void }) {
  const { t } = useTranslation();
  return (
    <LabeledInput
      label={t('fields.email')}
      message={t('members.emailHint')}
      required
      autoFocus
      autoComplete="off"
      inputMode="email"
      maxLength={255}
      value={value}
      onChange={({ currentTarget }) => onChange(currentTarget.value)}
    />
  );
}

/** Adds a member, or changes the roles of one. */
export function MemberDialog({
  iTwinId,
  roles,
  member,
  onClose,
}: DialogProps & { roles: readonly Role[]; member?: Member }) {
  const { t } = useTranslation();
  const [email, setEmail] = useState('');
  const [roleIds, setRoleIds] = useState(member?.roles.map(({ id }) => id) ?? []);
  const change = useChange(iTwinId, onClose);
  const title = member === undefined ? t('members.addMember') : t('members.changeRolesLabel', { name: nameOf(member) });
  return (
    <FormDialog
      title={title}
      submit={t(member === undefined ? 'members.addMember' : 'common.save')}
      isBusy={change.isPending}
      isReady={roleIds.length > 0 && (member !== undefined || email.trim() !== '')}
      fault={change.error}
      onSubmit={() =>
        change.mutate(
          member === undefined
            ? { method: 'POST', path: 'members/users', body: { members: [{ email: email.trim(), roleIds }] } }
            : { method: 'PATCH', path: `members/users/${encodeURIComponent(member.id)}`, body: { roleIds } },
        )
      }
      onClose={onClose}
    >
      {member === undefined && <EmailField value={email} onChange={setEmail} />}
      <Choices
        legend={t('members.rolesOf')}
        options={roles.map(({ id, displayName }) => ({ value: id, label: displayName }))}
        chosen={roleIds}
        onChange={setRoleIds}
      />
    </FormDialog>
  );
}

export function RoleDialog({ iTwinId, onClose }: DialogProps) {
  const { t } = useTranslation();
  const [name, setName] = useState('');
  const [description, setDescription] = useState('');
  const [chosen, setChosen] = useState<string[]>(['imodels_webview', 'imodels_read']);
  const change = useChange(iTwinId, onClose);
  return (
    <FormDialog
      title={t('members.newRole')}
      submit={t('common.create')}
      isBusy={change.isPending}
      isReady={name.trim() !== ''}
      fault={change.error}
      onSubmit={() =>
        change.mutate({
          method: 'POST',
          path: 'roles',
          body: { displayName: name.trim(), description: description.trim(), permissions: chosen },
        })
      }
      onClose={onClose}
    >
      <NameField value={name} onChange={setName} />
      <DescriptionField value={description} onChange={setDescription} rows={2} />
      <Choices
        legend={t('members.permissionsOf')}
        options={permissions.map((value) => ({ value, label: t(`permissions.${value}`) }))}
        chosen={chosen}
        onChange={setChosen}
      />
    </FormDialog>
  );
}

/** What is about to be removed from an iTwin. */
export type Removal = { kind: 'owner'; of: Owner } | { kind: 'member'; of: Member } | { kind: 'role'; of: Role };

export function RemovalDialog({ iTwinId, removal, onClose }: DialogProps & { removal: Removal }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const { kind, of } = removal;
  const id = encodeURIComponent(of.id);
  const { title, text, path, submit } = {
    owner: {
      title: t('members.removeOwnerTitle', { name: kind === 'role' ? '' : nameOf(of) }),
      text: t('members.removeOwnerText'),
      path: `members/owners/${id}`,
      submit: t('members.removeOwner'),
    },
    member: {
      title: t('members.removeTitle', { name: kind === 'role' ? '' : nameOf(of) }),
      text: t('members.removeText'),
      path: `members/users/${id}`,
      submit: t('members.remove'),
    },
    role: {
      title: t('members.deleteRoleTitle', { name: kind === 'role' ? of.displayName : '' }),
      text: t('members.deleteRoleText'),
      path: `roles/${id}`,
      submit: t('members.deleteRole'),
    },
  }[kind];
  return (
    <ConfirmDialog
      title={title}
      text={text}
      submit={submit}
      request={() => api(`/accesscontrol/itwins/${iTwinId}/${path}`, { method: 'DELETE' })}
      onDone={() => refresh(client, ['iTwin', iTwinId])}
      onClose={onClose}
    />
  );
}
