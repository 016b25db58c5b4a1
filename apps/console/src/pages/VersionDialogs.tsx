import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { refresh } from '../api/queries.ts';
import type { NamedVersion } from '../api/types.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { FormDialog } from '../components/FormDialog.tsx';
import { DescriptionField, NameField } from '../components/NameFields.tsx';

type VersionDialogProps = { iModelId: string; onClose: () => void } & (
  { changesetId: string | null; version?: undefined } | { version: NamedVersion }
);

/** Names a changeset, or changes the name and description of a named version. */
export function VersionDialog(props: VersionDialogProps) {
  const { iModelId, version, onClose } = props;
  const { t } = useTranslation();
  const client = useQueryClient();
  const [name, setName] = useState(version?.displayName ?? '');
  const [description, setDescription] = useState(version?.description ?? '');
  const save = useSubmit({
    mutationFn: () => {
      const body = { name: name.trim(), description: description.trim() };
      return version === undefined
        ? api(`/imodels/${iModelId}/namedversions`, {
            method: 'POST',
            body: { ...body, changesetId: (props as { changesetId: string | null }).changesetId },
          })
        : api(`/imodels/${iModelId}/namedversions/${version.id}`, { method: 'PATCH', body });
    },
    onSuccess: async () => {
      await refresh(client, ['iModel', iModelId, 'versions']);
      onClose();
    },
  });
  return (
    <FormDialog
      title={t(version === undefined ? 'versions.new' : 'versions.edit')}
      submit={t(version === undefined ? 'common.create' : 'common.save')}
      isBusy={save.isPending}
      isReady={name.trim() !== ''}
      fault={save.error}
      onSubmit={() => save.mutate()}
      onClose={onClose}
    >
      <NameField value={name} onChange={setName} />
      <DescriptionField value={description} onChange={setDescription} />
    </FormDialog>
  );
}
