import { Text } from '@itwin/itwinui-react';
import { useSubmit } from '../api/useSubmit.ts';
import { FormDialog } from './FormDialog.tsx';

interface ConfirmDialogProps {
  title: string;
  /** What will be lost. */
  text: string;
  submit: string;
  request: () => Promise<unknown>;
  /** Runs before the dialogue closes: reads again what has changed. */
  onDone: () => Promise<unknown>;
  onClose: () => void;
}

/** Asks before something is deleted or replaced, and does it. */
export function ConfirmDialog({ title, text, submit, request, onDone, onClose }: ConfirmDialogProps) {
  const change = useSubmit({
    mutationFn: request,
    onSuccess: async () => {
      await onDone();
      onClose();
    },
  });
  return (
    <FormDialog
      title={title}
      submit={submit}
      isBusy={change.isPending}
      isDangerous
      fault={change.error}
      onSubmit={() => change.mutate()}
      onClose={onClose}
    >
      <Text as="p">{text}</Text>
    </FormDialog>
  );
}
