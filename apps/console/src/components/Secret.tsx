import { Alert, Button, LabeledInput } from '@itwin/itwinui-react';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';

/** A secret that the server tells once, to be copied. */
export function Secret({ label, value }: { label: string; value: string }) {
  const { t } = useTranslation();
  const [copied, setCopied] = useState(false);
  return (
    <div className="stack">
      <Alert type="warning">{t('secret.once')}</Alert>
      <LabeledInput label={label} readOnly value={value} onFocus={({ currentTarget }) => currentTarget.select()} />
      <div className="actions">
        <Button
          onClick={() =>
            void navigator.clipboard
              .writeText(value)
              .then(() => setCopied(true))
              .catch(() => setCopied(false))
          }
        >
          {t(copied ? 'secret.copied' : 'secret.copy')}
        </Button>
      </div>
    </div>
  );
}
