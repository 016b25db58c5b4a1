import { ProgressLinear, Surface, Text } from '@itwin/itwinui-react';
import { useQuery } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { usageQuery } from '../api/queries.ts';
import type { Used } from '../api/types.ts';
import { FaultState } from '../components/FaultState.tsx';
import { Waiting } from '../components/Waiting.tsx';
import { bytesText, numberText } from '../format.ts';

/** What an iTwin uses, and what it may use. */
export function UsageTab({ iTwinId }: { iTwinId: string }) {
  const { t } = useTranslation();
  const usage = useQuery(usageQuery(iTwinId));
  if (usage.isPending) return <Waiting />;
  if (usage.isError) return <FaultState fault={usage.error} onRetry={() => void usage.refetch()} />;
  const { iTwin, organization } = usage.data;
  return (
    <div className="roles">
      <Surface elevation={1} className="panel">
        <Text as="h2" variant="title">
          {t('usage.iTwin')}
        </Text>
        <Amount name={t('usage.bytes')} used={iTwin.bytes} text={bytesText} />
        <Amount name={t('usage.iModels')} used={iTwin.iModels} text={numberText} />
        <Amount name={t('usage.webhooks')} used={iTwin.webhooks} text={numberText} />
      </Surface>
      {organization !== null && (
        <Surface elevation={1} className="panel">
          <Text as="h2" variant="title">
            {t('usage.organization')}
          </Text>
          <Amount name={t('usage.bytes')} used={organization.bytes} text={bytesText} />
          <Amount name={t('usage.iModels')} used={organization.iModels} text={numberText} />
        </Surface>
      )}
      <Text as="p" variant="small" isMuted className="wide">
        {t('usage.shared')}
      </Text>
    </div>
  );
}

function Amount({ name, used, text }: { name: string; used: Used; text: (value: number) => string }) {
  const { t } = useTranslation();
  if (used.limit === null)
    return (
      <Text as="p">
        {name}: <strong>{text(used.used)}</strong> <span className="muted">{t('usage.noLimit')}</span>
      </Text>
    );
  const share = Math.min(100, (100 * used.used) / Math.max(1, used.limit));
  return (
    <ProgressLinear
      aria-label={name}
      value={share}
      {...(share >= 90 && { status: 'warning' as const })}
      labels={[name, t('usage.of', { used: text(used.used), limit: text(used.limit) })]}
    />
  );
}
