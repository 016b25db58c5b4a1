import { LabeledInput, LabeledTextarea } from '@itwin/itwinui-react';
import { useTranslation } from 'react-i18next';

interface FieldProps {
  value: string;
  onChange: (value: string) => void;
}

/** The name of what a dialogue makes or changes; it has the focus when the dialogue opens. */
export function NameField({ value, onChange }: FieldProps) {
  const { t } = useTranslation();
  return (
    <LabeledInput
      label={t('fields.name')}
      required
      autoFocus
      maxLength={255}
      value={value}
      onChange={({ currentTarget }) => onChange(currentTarget.value)}
    />
  );
}

export function DescriptionField({ value, onChange, rows = 3 }: FieldProps & { rows?: number }) {
  const { t } = useTranslation();
  return (
    <LabeledTextarea
      label={t('fields.description')}
      rows={rows}
      maxLength={255}
      value={value}
      onChange={({ currentTarget }) => onChange(currentTarget.value)}
    />
  );
}
