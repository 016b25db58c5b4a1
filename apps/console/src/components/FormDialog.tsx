import { Button, Dialog, IconButton } from '@itwin/itwinui-react';
import { SvgCloseSmall } from '@itwin/itwinui-icons-react';
import { useEffect, useId, useState, type SubmitEvent, type ReactNode } from 'react';
import { useTranslation } from 'react-i18next';
import { FaultAlert } from './FaultState.tsx';

interface FormDialogProps {
  title: string;
  submit: string;
  isBusy: boolean;
  isReady?: boolean;
  /** What it was for is done: it can only be closed. */
  isFinished?: boolean;
  fault?: unknown;
  /** Deletes or replaces something. */
  isDangerous?: boolean;
  onSubmit: () => void;
  onClose: () => void;
  /** Ends the work that is under way, where that is possible. */
  onCancelWork?: (() => void) | undefined;
  children: ReactNode;
}

/** A dialogue with a form. It closes with Escape unless its request is under way. */
export function FormDialog({
  title,
  submit,
  isBusy,
  isReady = true,
  isFinished = false,
  fault,
  isDangerous = false,
  onSubmit,
  onClose,
  onCancelWork,
  children,
}: FormDialogProps) {
  const { t } = useTranslation();
  const form = useId();
  useFocusReturn();
  const send = (event: SubmitEvent) => {
    event.preventDefault();
    if (isReady && !isBusy) onSubmit();
  };
  return (
    <Dialog
      isOpen
      onClose={onClose}
      closeOnEsc={!isBusy}
      isDismissible={!isBusy}
      setFocus={isDangerous}
      trapFocus
      preventDocumentScroll
      portal
    >
      <Dialog.Backdrop />
      <Dialog.Main className="dialog" aria-modal aria-label={title}>
        <Dialog.TitleBar>
          <Dialog.TitleBar.Title>{title}</Dialog.TitleBar.Title>
          {!isBusy && (
            <IconButton
              size="small"
              styleType="borderless"
              aria-label={t('common.close')}
              data-iui-shift="right"
              onClick={onClose}
            >
              <SvgCloseSmall />
            </IconButton>
          )}
        </Dialog.TitleBar>
        <Dialog.Content>
          <form id={form} className="stack" onSubmit={send}>
            <FaultAlert fault={fault} />
            {children}
          </form>
        </Dialog.Content>
        <Dialog.ButtonBar>
          <Button
            type="submit"
            form={form}
            styleType={isDangerous ? 'cta' : 'high-visibility'}
            disabled={!isReady}
            loading={isBusy}
            className={isDangerous ? 'danger' : undefined}
          >
            {submit}
          </Button>
          {!isFinished && (
            <Button
              disabled={isBusy && onCancelWork === undefined}
              onClick={isBusy && onCancelWork !== undefined ? onCancelWork : onClose}
            >
              {t('common.cancel')}
            </Button>
          )}
        </Dialog.ButtonBar>
      </Dialog.Main>
    </Dialog>
  );
}

/** Gives the focus back to where it was before the dialogue opened. */
function useFocusReturn(): void {
  // During the first render: the fields of the dialogue take the focus before any effect runs.
  const [before] = useState(() => document.activeElement);
  useEffect(
    () => () => {
      // After the page is usable again.
      setTimeout(() => {
        if (before instanceof HTMLElement && before.isConnected) before.focus();
      });
    },
    [before],
  );
}
