import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { refresh } from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { useIsShown, useSubmit } from '../api/useSubmit.ts';
import { ConfirmDialog } from '../components/ConfirmDialog.tsx';
import { FormDialog } from '../components/FormDialog.tsx';
import { DescriptionField, NameField } from '../components/NameFields.tsx';

export function EditIModelDialog({ iModel, onClose }: { iModel: IModel; onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [name, setName] = useState(iModel.displayName);
  const [description, setDescription] = useState(iModel.description ?? '');
  const save = useSubmit({
    mutationFn: () =>
      api(`/imodels/${iModel.id}`, { method: 'PATCH', body: { name: name.trim(), description: description.trim() } }),
    onSuccess: async () => {
      await refresh(client, ['iModel', iModel.id], ['iModels', iModel.iTwinId]);
      onClose();
    },
  });
  return (
    <FormDialog
      title={t('iModel.edit')}
      submit={t('common.save')}
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

export function DeleteIModelDialog({ iModel, onClose }: { iModel: IModel; onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const navigate = useNavigate();
  const isShown = useIsShown();
  return (
    <ConfirmDialog
      title={t('iModel.deleteTitle', { name: iModel.displayName })}
      text={t('iModel.deleteText')}
      submit={t('common.delete')}
      request={() => api(`/imodels/${iModel.id}`, { method: 'DELETE' })}
      onDone={async () => {
        if (isShown()) await navigate({ to: '/itwins/$iTwinId', params: { iTwinId: iModel.iTwinId } });
        client.removeQueries({ queryKey: ['iModel', iModel.id] });
        await refresh(client, ['iModels', iModel.iTwinId]);
      }}
      onClose={onClose}
    />
  );
}
