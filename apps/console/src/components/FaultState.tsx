import { Alert, Button, NonIdealState } from '@itwin/itwinui-react';
import { Svg401, Svg403, Svg404, SvgError, SvgTimedOut } from '@itwin/itwinui-illustrations-react';
import { useTranslation } from 'react-i18next';
import { ApiFault } from '../api/fault.ts';
import { faultText } from '../faultText.ts';
import { useTitle } from './useTitle.ts';

function Illustration({ fault }: { fault: unknown }) {
  const status = fault instanceof ApiFault ? fault.status : undefined;
  if (status === 401) return <Svg401 aria-hidden />;
  if (status === 403) return <Svg403 aria-hidden />;
  if (status === 404) return <Svg404 aria-hidden />;
  if (status === 0) return <SvgTimedOut aria-hidden />;
  return <SvgError aria-hidden />;
}

interface FaultStateProps {
  fault: unknown;
  onRetry?: () => void;
}

/** A page that cannot be shown, with the reason and a way on. */
export function FaultPage(props: FaultStateProps) {
  const { t } = useTranslation();
  useTitle(faultText(props.fault, t).title);
  return <FaultState {...props} heading="h1" />;
}

/** A tab or a list that cannot be shown. */
export function FaultState({ fault, onRetry, heading: Heading = 'h2' }: FaultStateProps & { heading?: 'h1' | 'h2' }) {
  const { t } = useTranslation();
  const { title, text } = faultText(fault, t);
  return (
    <div className="state" role="alert">
      <NonIdealState
        svg={<Illustration fault={fault} />}
        heading={<Heading>{title}</Heading>}
        description={text}
        actions={onRetry === undefined ? undefined : <Button onClick={onRetry}>{t('common.retry')}</Button>}
      />
    </div>
  );
}

/** A refusal beside the form or list that it is about. */
export function FaultAlert({ fault, onClose }: { fault: unknown; onClose?: () => void }) {
  const { t } = useTranslation();
  if (fault == null) return null;
  const { title, text } = faultText(fault, t);
  return (
    <Alert.Wrapper type="negative" role="alert">
      <Alert.Icon />
      <Alert.Message>
        <strong>{title}.</strong> {text}
      </Alert.Message>
      {onClose !== undefined && <Alert.CloseButton aria-label={t('common.close')} onClick={onClose} />}
    </Alert.Wrapper>
  );
}
