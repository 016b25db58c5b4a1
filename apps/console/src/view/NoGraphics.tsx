import { Button, ProgressRadial, Text } from '@itwin/itwinui-react';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { iModelPermissionsQuery, refresh } from '../api/queries.ts';
import { FaultAlert, FaultState } from '../components/FaultState.tsx';
import { drawGraphics, graphicsQuery } from './graphics.ts';
import type { LoadedPoint } from './usePoint.ts';

/** Why a point cannot be shown, or not yet, and what can be done. */
export function NoGraphics({ point }: { point: LoadedPoint }) {
  const { t } = useTranslation();
  const { iModelId, index, graphics, fault } = point;
  const client = useQueryClient();
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  const draw = useMutation({
    mutationFn: () => drawGraphics(iModelId, index),
    onSettled: () => refresh(client, graphicsQuery(iModelId, index).queryKey),
  });
  if (fault != null) return <FaultState fault={fault} onRetry={point.retry} />;
  const state = graphics?.state;
  const busy =
    state === undefined || state === 'scheduled' || (state === 'successful' && graphics?.chunks.length !== 0);
  const canDraw =
    (state === 'failed' || (state === 'none' && graphics?.error === null)) && permissions.includes('imodels_write');
  return (
    <div className="viewport-empty" role="status">
      {busy && <ProgressRadial indeterminate aria-hidden />}
      <Text as="p" variant="leading">
        {state === 'scheduled'
          ? t('view.states.scheduled')
          : busy
            ? t('common.loading')
            : t(`view.states.${state === 'successful' ? 'empty' : state}`)}
      </Text>
      {state === 'scheduled' && (
        <Text as="p" isMuted>
          {t('view.states.scheduledText')}
        </Text>
      )}
      {state === 'none' && (
        <Text as="p" isMuted>
          {t(
            graphics?.error?.code === 'GraphicsNotMade'
              ? 'view.states.noneHere'
              : canDraw
                ? 'view.states.noneText'
                : 'view.states.noneAsk',
          )}
        </Text>
      )}
      {graphics?.error != null && state !== 'none' && <Text as="p">{graphics.error.message}</Text>}
      <FaultAlert fault={draw.error} />
      {canDraw && (
        <Button styleType="high-visibility" loading={draw.isPending} onClick={() => draw.mutate()}>
          {t(state === 'failed' ? 'view.drawAgain' : 'view.draw')}
        </Button>
      )}
    </div>
  );
}
