import { Badge, Button, Surface, Text } from '@itwin/itwinui-react';
import { SvgAdd, SvgNotification } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { deadLettersQuery, webhooksQuery, type Webhook } from '../api/administration.ts';
import { api } from '../api/client.ts';
import { itemsOf, refresh } from '../api/queries.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultAlert, FaultState } from '../components/FaultState.tsx';
import { More } from '../components/More.tsx';
import { SectionHead } from '../components/SectionHead.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { dateText } from '../format.ts';
import { DeleteWebhookDialog, eventName, WebhookDialog } from './webhooks/dialogs.tsx';

type Open = { what: 'new' } | { what: 'edit' | 'delete'; webhook: Webhook } | undefined;

/** Addresses that are told what happens to the iModels of an iTwin. */
export function WebhooksTab({ iTwinId }: { iTwinId: string }) {
  const { t } = useTranslation();
  const [open, setOpen] = useState<Open>();
  const webhooks = useQuery(webhooksQuery(iTwinId));
  const close = () => setOpen(undefined);
  return (
    <section>
      <SectionHead
        title={t('webhooks.title')}
        text={t('webhooks.text')}
        action={
          webhooks.isSuccess && (
            <Button startIcon={<SvgAdd />} onClick={() => setOpen({ what: 'new' })}>
              {t('webhooks.new')}
            </Button>
          )
        }
      />
      {webhooks.isPending && <Waiting />}
      {webhooks.isError && <FaultState fault={webhooks.error} onRetry={() => void webhooks.refetch()} />}
      {webhooks.data?.length === 0 && (
        <EmptyState
          picture={<SvgNotification className="state-icon" aria-hidden />}
          title={t('webhooks.none')}
          text={t('webhooks.noneText')}
        />
      )}
      <div className="stack">
        {webhooks.data?.map((webhook) => (
          <WebhookPanel
            key={webhook.id}
            iTwinId={iTwinId}
            webhook={webhook}
            onOpen={(what) => setOpen({ what, webhook })}
          />
        ))}
      </div>
      {open?.what === 'new' && <WebhookDialog iTwinId={iTwinId} onClose={close} />}
      {open?.what === 'edit' && <WebhookDialog iTwinId={iTwinId} webhook={open.webhook} onClose={close} />}
      {open?.what === 'delete' && <DeleteWebhookDialog iTwinId={iTwinId} webhook={open.webhook} onClose={close} />}
    </section>
  );
}

function WebhookPanel({
  iTwinId,
  webhook,
  onOpen,
}: {
  iTwinId: string;
  webhook: Webhook;
  onOpen: (what: 'edit' | 'delete') => void;
}) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [showsFailures, setShowsFailures] = useState(false);
  const { id, callbackUrl, eventTypes, isActive } = webhook;
  const set = useSubmit({
    mutationFn: () => api(`/itwins/${iTwinId}/webhooks/${id}`, { method: 'PATCH', body: { isActive: !isActive } }),
    onSettled: () => refresh(client, ['iTwin', iTwinId, 'webhooks']),
  });
  return (
    <Surface elevation={1} className="panel">
      <div className="page-head">
        <Text as="h3" variant="leading" className="breaking">
          {callbackUrl}
        </Text>
        <Badge backgroundColor={isActive ? 'steelblue' : 'ash'}>
          {t(isActive ? 'webhooks.active' : 'webhooks.paused')}
        </Badge>
      </div>
      <Text as="p">{eventTypes.map((type) => eventName(t, type)).join(', ')}</Text>
      <FaultAlert fault={set.error} />
      <div className="actions">
        <Button
          size="small"
          loading={set.isPending}
          aria-label={t(isActive ? 'webhooks.pauseLabel' : 'webhooks.activateLabel', { url: callbackUrl })}
          onClick={() => set.mutate()}
        >
          {t(isActive ? 'webhooks.pause' : 'webhooks.activate')}
        </Button>
        <Button size="small" aria-label={t('webhooks.editLabel', { url: callbackUrl })} onClick={() => onOpen('edit')}>
          {t('webhooks.edit')}
        </Button>
        <Button
          size="small"
          aria-label={t('webhooks.deleteLabel', { url: callbackUrl })}
          onClick={() => onOpen('delete')}
        >
          {t('common.delete')}
        </Button>
        <Button size="small" aria-expanded={showsFailures} onClick={() => setShowsFailures(!showsFailures)}>
          {t('webhooks.failures')}
        </Button>
      </div>
      {showsFailures && <Failures iTwinId={iTwinId} webhookId={id} />}
    </Surface>
  );
}

/** Messages that could not be delivered, which can be sent again. */
function Failures({ iTwinId, webhookId }: { iTwinId: string; webhookId: string }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const query = deadLettersQuery(iTwinId, webhookId);
  const letters = useInfiniteQuery(query);
  const found = itemsOf(letters.data);
  const again = useSubmit({
    mutationFn: (messageId: string) =>
      api(`/itwins/${iTwinId}/webhooks/${webhookId}/deadletters/${messageId}`, { method: 'POST' }),
    onSettled: () => refresh(client, query.queryKey),
  });
  return (
    <div className="stack">
      {letters.isPending && <Waiting />}
      <FaultAlert fault={letters.error ?? again.error} />
      {letters.isSuccess && found.length === 0 && <Text as="p">{t('webhooks.noFailures')}</Text>}
      <ul className="people">
        {found.map(({ messageId, eventType, enqueuedDateTime, attempts, lastError }) => (
          <li key={messageId}>
            <Text>{eventName(t, eventType)}</Text>
            <Text variant="small" isMuted>
              {[dateText(enqueuedDateTime), t('webhooks.attempts', { count: attempts }), lastError]
                .filter((each) => each !== '')
                .join(' · ')}
            </Text>
            <span className="spacer" />
            <Button size="small" disabled={again.isPending} onClick={() => again.mutate(messageId)}>
              {t('webhooks.again')}
            </Button>
          </li>
        ))}
      </ul>
      <More {...letters} />
    </div>
  );
}
