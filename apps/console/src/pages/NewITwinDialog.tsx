import { LabeledInput, LabeledSelect } from '@itwin/itwinui-react';
import { useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { refresh } from '../api/queries.ts';
import type { ITwin } from '../api/types.ts';
import { useIsShown, useSubmit } from '../api/useSubmit.ts';
import { FormDialog } from '../components/FormDialog.tsx';
import { NameField } from '../components/NameFields.tsx';

const classOf = {
  Project: 'Endeavor',
  Program: 'Endeavor',
  WorkPackage: 'Endeavor',
  Asset: 'Thing',
  Portfolio: 'Thing',
};
type SubClass = keyof typeof classOf;
const subClasses = Object.keys(classOf) as SubClass[];

export function NewITwinDialog({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState('');
  const [number, setNumber] = useState('');
  const [subClass, setSubClass] = useState<SubClass>('Project');
  const [idempotencyKey] = useState(() => crypto.randomUUID());
  const isShown = useIsShown();
  const create = useSubmit({
    mutationFn: async () =>
      (
        await api<{ iTwin: ITwin }>('/itwins', {
          method: 'POST',
          idempotencyKey,
          body: {
            displayName: name.trim(),
            class: classOf[subClass],
            subClass,
            ...(number.trim() !== '' && { number: number.trim() }),
          },
        })
      ).iTwin,
    onSuccess: async ({ id }) => {
      await refresh(client, ['iTwins']);
      if (isShown()) await navigate({ to: '/itwins/$iTwinId', params: { iTwinId: id } });
    },
  });
  return (
    <FormDialog
      title={t('iTwins.new')}
      submit={t('common.create')}
      isBusy={create.isPending}
      isReady={name.trim() !== ''}
      fault={create.error}
      onSubmit={() => create.mutate()}
      onClose={onClose}
    >
      <NameField value={name} onChange={setName} />
      <LabeledSelect
        label={t('fields.subClass')}
        value={subClass}
        options={subClasses.map((value) => ({ value, label: t(`iTwins.subClasses.${value}`) }))}
        onChange={(value: SubClass) => setSubClass(value)}
      />
      <LabeledInput
        label={t('fields.number')}
        message={t('iTwins.numberHint')}
        maxLength={255}
        value={number}
        onChange={({ currentTarget }) => setNumber(currentTarget.value)}
      />
    </FormDialog>
  );
}
