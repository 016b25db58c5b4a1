import { Button, LabeledInput, LabeledSelect, Text } from '@itwin/itwinui-react';
import { SvgAdd, SvgShare } from '@itwin/itwinui-icons-react';
import { useInfiniteQuery, useQuery, useQueryClient } from '@tanstack/react-query';
import { useParams } from '@tanstack/react-router';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { sharesQuery, type Share } from '../api/administration.ts';
import { api } from '../api/client.ts';
import { iModelQuery, iTwinPermissionsQuery, itemsOf, nameOf, peopleQuery, refresh } from '../api/queries.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { ConfirmDialog } from '../components/ConfirmDialog.tsx';
import { EmptyState } from '../components/EmptyState.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { FormDialog } from '../components/FormDialog.tsx';
import { More } from '../components/More.tsx';
import { NameField } from '../components/NameFields.tsx';
import { Secret } from '../components/Secret.tsx';
import { SectionHead } from '../components/SectionHead.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { dateText } from '../format.ts';

const dayMs = 86_400_000;
/** Lifetimes of a share, days; the server allows six months. */
const lifetimes = [1, 7, 30, 90, 180] as const;

/** Keys with which anyone can look at the iModel. */
export function SharesPage() {
  const { t } = useTranslation();
  const { iModelId } = useParams({ from: '/imodels/$iModelId' });
  const [open, setOpen] = useState<'new' | Share>();
  const { data: iModel } = useQuery(iModelQuery(iModelId));
  const { data: permissions = [] } = useQuery({
    ...iTwinPermissionsQuery(iModel?.iTwinId ?? ''),
    enabled: iModel !== undefined,
  });
  const shares = useInfiniteQuery(sharesQuery(iModelId));
  const found = itemsOf(shares.data);
  const people = useQuery(peopleQuery(found.map(({ creatorId }) => creatorId)));
  return (
    <section>
      <SectionHead
        title={t('shares.title')}
        text={t('shares.text')}
        action={
          permissions.includes('imodels_manage') && (
            <Button startIcon={<SvgAdd />} onClick={() => setOpen('new')}>
              {t('shares.new')}
            </Button>
          )
        }
      />
      {shares.isPending && <Waiting />}
      {shares.isError && <FaultState fault={shares.error} onRetry={() => void shares.refetch()} />}
      {shares.isSuccess && found.length === 0 && (
        <EmptyState
          picture={<SvgShare className="state-icon" aria-hidden />}
          title={t('shares.none')}
          text={t('shares.noneText')}
        />
      )}
      <ul className="people">
        {found.map((share) => {
          const creator = people.data?.get(share.creatorId);
          return (
            <li key={share.id}>
              <Text>{share.displayName}</Text>
              <Text variant="small" isMuted>
                {[
                  t(`permissions.${share.permission}`),
                  t(Date.parse(share.expiresAt) > Date.now() ? 'shares.until' : 'shares.expired', {
                    when: dateText(share.expiresAt),
                  }),
                  ...(creator === undefined ? [] : [nameOf(creator)]),
                ].join(' · ')}
              </Text>
              <span className="spacer" />
              <Button
                size="small"
                aria-label={t('shares.revokeLabel', { name: share.displayName })}
                onClick={() => setOpen(share)}
              >
                {t('shares.revoke')}
              </Button>
            </li>
          );
        })}
      </ul>
      <More {...shares} />
      {open === 'new' && <ShareDialog iModelId={iModelId} onClose={() => setOpen(undefined)} />}
      {typeof open === 'object' && <RevokeDialog iModelId={iModelId} share={open} onClose={() => setOpen(undefined)} />}
    </section>
  );
}

/** Creates a share, and shows its key once. */
function ShareDialog({ iModelId, onClose }: { iModelId: string; onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  const [name, setName] = useState('');
  const [permission, setPermission] = useState<Share['permission']>('imodels_webview');
  const [days, setDays] = useState<(typeof lifetimes)[number]>(30);
  const create = useSubmit({
    mutationFn: async () => {
      // A minute less, because the clock of this computer may be ahead of that of the server.
      const expiresAt = new Date(Date.now() + days * dayMs - 60_000).toISOString();
      const { share } = await api<{ share: { shareKey: string } }>(`/imodels/${iModelId}/shares`, {
        method: 'POST',
        body: { name: name.trim(), permission, expiresAt },
      });
      return share.shareKey;
    },
    onSuccess: () => refresh(client, ['iModel', iModelId, 'shares']),
  });
  const key = create.data;
  return (
    <FormDialog
      title={t('shares.new')}
      submit={t(key === undefined ? 'common.create' : 'common.done')}
      isBusy={create.isPending}
      isFinished={key !== undefined}
      isReady={key !== undefined || name.trim() !== ''}
      fault={create.error}
      onSubmit={() => (key === undefined ? create.mutate() : onClose())}
      onClose={onClose}
    >
      {key !== undefined ? (
        <>
          <Text as="p">{t('shares.keyText')}</Text>
          <Secret label={t('shares.key')} value={key} />
          <LabeledInput label={t('shares.header')} readOnly value={`Authorization: Basic ${key}`} />
        </>
      ) : (
        <>
          <NameField value={name} onChange={setName} />
          <LabeledSelect
            label={t('shares.may')}
            value={permission}
            options={(['imodels_webview', 'imodels_read'] as const).map((value) => ({
              value,
              label: t(`permissions.${value}`),
            }))}
            onChange={(value: Share['permission']) => setPermission(value)}
          />
          <LabeledSelect
            label={t('shares.lifetime')}
            value={days}
            options={lifetimes.map((value) => ({ value, label: t('shares.days', { count: value }) }))}
            onChange={(value: (typeof lifetimes)[number]) => setDays(value)}
          />
        </>
      )}
    </FormDialog>
  );
}

function RevokeDialog({ iModelId, share, onClose }: { iModelId: string; share: Share; onClose: () => void }) {
  const { t } = useTranslation();
  const client = useQueryClient();
  return (
    <ConfirmDialog
      title={t('shares.revokeTitle', { name: share.displayName })}
      text={t('shares.revokeText')}
      submit={t('shares.revoke')}
      request={() => api(`/imodels/${iModelId}/shares/${share.id}`, { method: 'DELETE' })}
      onDone={() => refresh(client, ['iModel', iModelId, 'shares'])}
      onClose={onClose}
    />
  );
}
