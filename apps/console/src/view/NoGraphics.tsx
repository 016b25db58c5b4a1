import { Button, ProgressRadial, Text } from '@itwin/itwinui-react';
import { useQuery, useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { iModelPermissionsQuery, refresh } from '../api/queries.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { FaultAlert, FaultState } from '../components/FaultState.tsx';
import { drawGraphics, graphicsQuery } from './graphics.ts';
import type { LoadedPoint } from './usePoint.ts';

/** Has a point drawn. */
function useDraw({ iModelId, index }: LoadedPoint) {
  const client = useQueryClient();
  const { data: permissions = [] } = useQuery(iModelPermissionsQuery(iModelId));
  const draw = useSubmit({
    mutationFn: () => drawGraphics(iModelId, index),
    onSettled: () => refresh(client, graphicsQuery(iModelId, index).queryKey),
  });
  return { draw, mayDraw: permissions.includes('imodels_write') };
}

/** Says that a point was drawn by an earlier version of the server, and draws it anew. */
export function Outdated({ point }: { point: LoadedPoint }) {
  const { t } = useTranslation();
  const { draw, mayDraw } = useDraw(point);
  return (
    <section>
      <Text as="p" variant="small">
        {t('view.outdated')}
      </Text>
      <FaultAlert fault={draw.error} />
      {mayDraw && (
        <div className="actions">
          <Button size="small" loading={draw.isPending} onClick={() => draw.mutate()}>
            {t('view.drawAgain')}
          </Button>
        </div>
      )}
    </section>
  );
}

/** Why a point cannot be shown, or not yet, and what can be done. */
export function NoGraphics({ point }: { point: LoadedPoint }) {
  const { t } = useTranslation();
  const { graphics, fault } = point;
  const { draw, mayDraw } = useDraw(point);
  if (fault != null) return <FaultState fault={fault} onRetry={point.retry} />;
  const state = graphics?.state;
  const busy =
    state === undefined || state === 'scheduled' || (state === 'successful' && graphics?.chunks.length !== 0);
  const canDraw = (state === 'failed' || (state === 'none' && graphics?.error === null)) && mayDraw;
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
