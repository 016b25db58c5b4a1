import { FileEmptyCard, FileUploadCard, LabeledInput, LabeledTextarea, Text } from '@itwin/itwinui-react';
import { useQueryClient } from '@tanstack/react-query';
import { useBlocker, useNavigate } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { ApiFault } from '../api/fault.ts';
import { refresh } from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { upload } from '../api/upload.ts';
import { useIsShown, useSubmit } from '../api/useSubmit.ts';
import { FormDialog } from '../components/FormDialog.tsx';
import { ProgressBar } from '../components/ProgressBar.tsx';
import { bytesText } from '../format.ts';

const ending = /\.bim$/i;
const withoutEnding = (name: string): string => name.replace(ending, '');

interface NewIModelDialogProps {
  iTwinId: string;
  /** The baseline file that was dropped. */
  file?: File | undefined;
  onClose: () => void;
}

/** Creates an iModel, empty or from a file. */
export function NewIModelDialog({ iTwinId, file: dropped, onClose }: NewIModelDialogProps) {
  const { t } = useTranslation();
  const [files, setFiles] = useState<File[]>(dropped === undefined ? [] : [dropped]);
  const [name, setName] = useState(
    dropped !== undefined && ending.test(dropped.name) ? withoutEnding(dropped.name) : '',
  );
  const [description, setDescription] = useState('');
  const [file] = files;
  const { create, sent, cancel } = useCreation({ iTwinId, name: name.trim(), description: description.trim(), file });
  const wrongFile = file !== undefined && !ending.test(file.name);
  return (
    <FormDialog
      title={t('iModels.new')}
      submit={t(file === undefined ? 'iModels.createEmpty' : 'iModels.createFromFile')}
      isBusy={create.isPending}
      isReady={name.trim() !== '' && !wrongFile}
      fault={create.error?.name === 'AbortError' ? undefined : create.error}
      onSubmit={() => create.mutate()}
      onClose={onClose}
      onCancelWork={file === undefined ? undefined : cancel}
    >
      <LabeledInput
        label={t('fields.name')}
        required
        autoFocus
        maxLength={255}
        value={name}
        readOnly={create.isPending}
        onChange={({ currentTarget }) => setName(currentTarget.value)}
      />
      <LabeledTextarea
        label={t('fields.description')}
        rows={2}
        maxLength={255}
        value={description}
        readOnly={create.isPending}
        onChange={({ currentTarget }) => setDescription(currentTarget.value)}
      />
      {create.isPending && file !== undefined ? (
        <ProgressBar
          label={t('iModels.uploading')}
          share={file.size === 0 ? 1 : sent / file.size}
          labels={[t('iModels.uploading'), `${bytesText(sent)} / ${bytesText(file.size)}`]}
        />
      ) : (
        <FileUploadCard
          files={files}
          onFilesChange={(chosen) => {
            setFiles(chosen.slice(0, 1));
            const [first] = chosen;
            if (first !== undefined && name.trim() === '' && ending.test(first.name))
              setName(withoutEnding(first.name));
          }}
          children={
            file !== undefined && (
              <>
                <FileUploadCard.Icon />
                <FileUploadCard.Info>
                  <FileUploadCard.Title />
                  <FileUploadCard.Description>{bytesText(file.size)}</FileUploadCard.Description>
                </FileUploadCard.Info>
                <FileUploadCard.Action>
                  <FileUploadCard.InputLabel>{t('iModels.replace')}</FileUploadCard.InputLabel>
                </FileUploadCard.Action>
              </>
            )
          }
          input={<FileUploadCard.Input name="baseline" accept=".bim" aria-label={t('iModels.file')} />}
          emptyCard={
            <FileEmptyCard>
              <FileEmptyCard.Icon />
              <FileEmptyCard.Text>
                <FileUploadCard.InputLabel>{t('iModels.choose')}</FileUploadCard.InputLabel>
                <div>{t('iModels.orDrop')}</div>
              </FileEmptyCard.Text>
            </FileEmptyCard>
          }
        />
      )}
      {wrongFile && (
        <Text as="p" role="alert" className="bad">
          {t('iModels.wrongFile')}
        </Text>
      )}
    </FormDialog>
  );
}

interface Wanted {
  iTwinId: string;
  name: string;
  description: string;
  file: File | undefined;
}

/** Creates the iModel, uploads its file and shows how it goes on from there. */
function useCreation(wanted: Wanted) {
  const { iTwinId, file } = wanted;
  const client = useQueryClient();
  const navigate = useNavigate();
  const { t } = useTranslation();
  const isShown = useIsShown();
  const [sent, setSent] = useState(0);
  const abort = useRef<AbortController>(undefined);
  const attempt = useAttempt(wanted);
  const hasArrived = useRef(false);
  const create = useSubmit({
    mutationFn: async () => {
      const end = new AbortController();
      abort.current = end;
      hasArrived.current = false;
      setSent(0);
      const iModel = await attempt.begin();
      if (file === undefined) return iModel;
      try {
        end.signal.throwIfAborted();
        await upload(iModel._links.upload?.href ?? '', file, { signal: end.signal, onProgress: setSent });
        await api(`/imodels/${iModel.id}/baselinefile`, { method: 'POST', signal: end.signal });
      } catch (error) {
        await attempt.undo(iModel);
        throw error;
      }
      hasArrived.current = true;
      return iModel;
    },
    onSuccess: async ({ id }) => {
      await refresh(client, ['iModels', iTwinId]);
      if (!isShown()) return;
      await navigate({
        to: file === undefined ? '/imodels/$iModelId' : '/imodels/$iModelId/creation',
        params: { iModelId: id },
      });
    },
  });
  // Leaving the page ends the upload, so the browser asks first.
  useBlocker({
    shouldBlockFn: () => !hasArrived.current && !globalThis.confirm(t('iModels.leave')),
    disabled: !create.isPending || file === undefined,
    enableBeforeUnload: true,
  });
  const cancel = () => abort.current?.abort(new DOMException('cancelled', 'AbortError'));
  useEffect(
    () => () => {
      if (!hasArrived.current) abort.current?.abort(new DOMException('left', 'AbortError'));
    },
    [],
  );
  return { create, sent, cancel };
}

/** One attempt after the other to create an iModel: none leaves one behind that keeps its name from the next. */
function useAttempt({ iTwinId, name, description, file }: Wanted) {
  /** Of a request whose answer did not arrive: the server carries it out once. */
  const unanswered = useRef<{ text: string; key: string }>(undefined);
  /** The iModel of an upload that failed, as long as the server could not be told to remove it. */
  const leftBehind = useRef<string>(undefined);
  const remove = async (iModelId: string): Promise<void> => {
    leftBehind.current = iModelId;
    await api(`/imodels/${iModelId}`, { method: 'DELETE' }).catch((error: unknown) => {
      if (!(error instanceof ApiFault && error.status === 404)) throw error;
    });
    leftBehind.current = undefined;
  };
  const begin = async (): Promise<IModel> => {
    if (leftBehind.current !== undefined) await remove(leftBehind.current);
    const body = {
      iTwinId,
      name,
      ...(description !== '' && { description }),
      ...(file !== undefined && { creationMode: 'fromBaseline', baselineFile: { size: file.size } }),
    };
    const text = JSON.stringify(body);
    if (unanswered.current?.text !== text) unanswered.current = { text, key: crypto.randomUUID() };
    try {
      const { iModel } = await api<{ iModel: IModel }>('/imodels', {
        method: 'POST',
        body,
        idempotencyKey: unanswered.current.key,
      });
      unanswered.current = undefined;
      return iModel;
    } catch (error) {
      if (error instanceof ApiFault && error.status !== 0) unanswered.current = undefined;
      throw error;
    }
  };
  return { begin, undo: (iModel: IModel) => remove(iModel.id).catch(() => undefined) };
}
