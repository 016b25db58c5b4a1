import { ProgressRadial } from '@itwin/itwinui-react';
import { useTranslation } from 'react-i18next';

/** What is shown while a whole page is on its way. */
export function Waiting() {
  const { t } = useTranslation();
  return (
    <div className="centered" role="status" aria-label={t('common.loading')}>
      <ProgressRadial size="large" indeterminate aria-hidden />
    </div>
  );
}
