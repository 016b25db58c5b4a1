import { LabeledInput, Text } from '@itwin/itwinui-react';
import { useQueryClient } from '@tanstack/react-query';
import type { TFunction } from 'i18next';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Webhook } from '../../api/administration.ts';
import { api } from '../../api/client.ts';
import { refresh } from '../../api/queries.ts';
import { useSubmit } from '../../api/useSubmit.ts';
import { Choices } from '../../components/Choices.tsx';
import { ConfirmDialog } from '../../components/ConfirmDialog.tsx';
import { FormDialog } from '../../components/FormDialog.tsx';
import { Secret } from '../../components/Secret.tsx';
import type { DialogProps } from '../members/dialogs.tsx';

const events = {
  'iModels.iModelCreated.v1': 'created',
  'iModels.iModelDeleted.v1': 'deleted',
  'iModels.changesetPushed.v1': 'pushed',
  'iModels.namedVersionCreated.v1': 'named',
} as const;

/** An event in words. */
export function eventName(t: TFunction, type: string): string {
  return type in events ? t(`webhooks.events.${events[type as keyof typeof events]}`) : type;
}

/** Creates a webhook, and shows its secret once; or changes one. */
export function WebhookDialog({ iTwinId, webhook, onClose }: DialogProps & { webhook?: Webhook }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [url, setUrl] = useState(webhook?.callbackUrl ?? '');
  const [eventTypes, setEventTypes] = useState(webhook?.eventTypes ?? Object.keys(events));
  const save = useSubmit({
    mutationFn: async (): Promise<string | undefined> => {
      const path = `/itwins/${iTwinId}/webhooks`;
      const body = { callbackUrl: url.trim(), eventTypes };
      if (webhook !== undefined) {
        await api(`${path}/${webhook.id}`, { method: 'PATCH', body });
        return undefined;
      }
      const answer = await api<{ webhook: { secret: string } }>(path, {
        method: 'POST',
        body: { ...body, isActive: true },
      });
      return answer.webhook.secret;
    },
    onSuccess: async (secret) => {
      await refresh(client, ['iTwin', iTwinId, 'webhooks']);
      if (secret === undefined) onClose();
    },
  });
  const secret = save.data;
  return (
    <FormDialog
      title={webhook === undefined ? t('webhooks.new') : t('webhooks.editLabel', { url: webhook.callbackUrl })}
      submit={t(secret !== undefined ? 'common.done' : webhook === undefined ? 'common.create' : 'common.save')}
      isBusy={save.isPending}
      isFinished={secret !== undefined}
      isReady={secret !== undefined || (URL.canParse(url.trim()) && eventTypes.length > 0)}
      fault={save.error}
      onSubmit={() => (secret === undefined ? save.mutate() : onClose())}
      onClose={onClose}
    >
      {secret !== undefined ? (
        <>
          <Text as="p">{t('webhooks.secretText')}</Text>
          <Secret label={t('webhooks.secret')} value={secret} />
        </>
      ) : (
        <>
          <LabeledInput
            label={t('webhooks.url')}
            message={t('webhooks.urlHint')}
            required
            autoFocus
            type="url"
            maxLength={2000}
            value={url}
            onChange={({ currentTarget }) => setUrl(currentTarget.value)}
          />
          <Choices
            legend={t('webhooks.which')}
            options={Object.keys(events).map((value) => ({ value, label: eventName(t, value) }))}
            chosen={eventTypes}
            onChange={setEventTypes}
          />
        </>
      )}
    </FormDialog>
  );
}

export function DeleteWebhookDialog({ iTwinId, webhook, onClose }: DialogProps & { webhook: Webhook }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  return (
    <ConfirmDialog
      title={t('webhooks.deleteTitle')}
      text={t('webhooks.deleteText', { url: webhook.callbackUrl })}
      submit={t('common.delete')}
      request={() => api(`/itwins/${iTwinId}/webhooks/${webhook.id}`, { method: 'DELETE' })}
      onDone={() => refresh(client, ['iTwin', iTwinId, 'webhooks'])}
      onClose={onClose}
    />
  );
}
