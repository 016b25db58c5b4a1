import { LabeledTextarea, Text } from '@itwin/itwinui-react';
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Group } from '../../api/administration.ts';
import { api } from '../../api/client.ts';
import { refresh } from '../../api/queries.ts';
import type { Role } from '../../api/types.ts';
import { Choices } from '../../components/Choices.tsx';
import { ConfirmDialog } from '../../components/ConfirmDialog.tsx';
import { FormDialog } from '../../components/FormDialog.tsx';
import { DescriptionField, NameField } from '../../components/NameFields.tsx';
import { useChange, type DialogProps } from '../members/dialogs.tsx';

/** Creates a group, or changes its name and its users. */
export function GroupDialog({ iTwinId, group, onClose }: DialogProps & { group?: Group }) {
  const { t } = useTranslation();
  const [name, setName] = useState(group?.name ?? '');
  const [description, setDescription] = useState(group?.description ?? '');
  // A user whose e-mail address is not shown to the caller stands there with the id.
  const [users, setUsers] = useState(
    () => group?.members.map(({ id, email }) => (email === '' ? id : email)).join('\n') ?? '',
  );
  const change = useChange(iTwinId, onClose);
  const members = [...new Set(users.split(/[\s,;]+/).filter((each) => each !== ''))];
  return (
    <FormDialog
      title={group === undefined ? t('groups.new') : t('groups.editLabel', { name: group.name })}
      submit={t(group === undefined ? 'common.create' : 'common.save')}
      isBusy={change.isPending}
      isReady={name.trim() !== ''}
      fault={change.error}
      onSubmit={() => {
        const body = { name: name.trim(), description: description.trim(), members };
        change.mutate(
          group === undefined
            ? { method: 'POST', path: 'groups', body }
            : { method: 'PATCH', path: `groups/${group.id}`, body },
        );
      }}
      onClose={onClose}
    >
      <NameField value={name} onChange={setName} />
      <DescriptionField value={description} onChange={setDescription} rows={2} />
      <LabeledTextarea
        label={t('groups.users')}
        message={t('groups.usersHint')}
        rows={6}
        value={users}
        onChange={({ currentTarget }) => setUsers(currentTarget.value)}
      />
    </FormDialog>
  );
}

/** Gives roles to a group, or takes them away. */
export function GroupRolesDialog({
  iTwinId,
  group,
  roles,
  held,
  onClose,
}: DialogProps & { group: Group; roles: readonly Role[]; held: readonly string[] }) {
  const { t } = useTranslation();
  const [roleIds, setRoleIds] = useState([...held]);
  const change = useChange(iTwinId, onClose);
  return (
    <FormDialog
      title={t('groups.rolesLabel', { name: group.name })}
      submit={t('common.save')}
      isBusy={change.isPending}
      isReady={roleIds.length > 0 || held.length > 0}
      fault={change.error}
      onSubmit={() => {
        const path = `members/groups/${group.id}`;
        if (roleIds.length === 0) change.mutate({ method: 'DELETE', path });
        else if (held.length > 0) change.mutate({ method: 'PATCH', path, body: { roleIds } });
        else
          change.mutate({
            method: 'POST',
            path: 'members/groups',
            body: { members: [{ groupId: group.id, roleIds }] },
          });
      }}
      onClose={onClose}
    >
      {roles.length === 0 ? (
        <Text as="p">{t('groups.noRolesFirst')}</Text>
      ) : (
        <Choices
          legend={t('members.rolesOf')}
          options={roles.map(({ id, displayName }) => ({ value: id, label: displayName }))}
          chosen={roleIds}
          onChange={setRoleIds}
        />
      )}
    </FormDialog>
  );
}

export function DeleteGroupDialog({ iTwinId, group, onClose }: DialogProps & { group: Group }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  return (
    <ConfirmDialog
      title={t('groups.deleteTitle', { name: group.name })}
      text={t('groups.deleteText')}
      submit={t('common.delete')}
      request={() => api(`/accesscontrol/itwins/${iTwinId}/groups/${group.id}`, { method: 'DELETE' })}
      onDone={() => refresh(client, ['iTwin', iTwinId])}
      onClose={onClose}
    />
  );
}
