import {
  FileEmptyCard,
  FileUploadCard,
  LabeledInput,
  LabeledTextarea,
  ProgressLinear,
  Text,
} from '@itwin/itwinui-react';
import { useMutation, useQueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useEffect, useRef, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { refresh } from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { upload } from '../api/upload.ts';
import { FormDialog } from '../components/FormDialog.tsx';
import { bytesText } from '../format.ts';

const withoutEnding = (name: string): string => name.replace(/\.bim$/i, '');

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
  const [name, setName] = useState(withoutEnding(dropped?.name ?? ''));
  const [description, setDescription] = useState('');
  const [file] = files;
  const { create, sent, cancel } = useCreation({ iTwinId, name: name.trim(), description: description.trim(), file });
  const wrongFile = file !== undefined && !/\.bim$/i.test(file.name);
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
        disabled={create.isPending}
        onChange={({ currentTarget }) => setName(currentTarget.value)}
      />
      <LabeledTextarea
        label={t('fields.description')}
        rows={2}
        maxLength={255}
        value={description}
        disabled={create.isPending}
        onChange={({ currentTarget }) => setDescription(currentTarget.value)}
      />
      {create.isPending && file !== undefined ? (
        <ProgressLinear
          aria-label={t('iModels.uploading')}
          value={file.size === 0 ? 100 : (100 * sent) / file.size}
          labels={[t('iModels.uploading'), `${bytesText(sent)} / ${bytesText(file.size)}`]}
        />
      ) : (
        <FileUploadCard
          files={files}
          onFilesChange={(chosen) => {
            setFiles(chosen.slice(0, 1));
            const [first] = chosen;
            if (first !== undefined && name.trim() === '') setName(withoutEnding(first.name));
          }}
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
function useCreation({ iTwinId, name, description, file }: Wanted) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [sent, setSent] = useState(0);
  const abort = useRef<AbortController>(undefined);
  const create = useMutation({
    mutationFn: async () => {
      const ending = new AbortController();
      abort.current = ending;
      setSent(0);
      const { iModel } = await api<{ iModel: IModel }>('/imodels', {
        method: 'POST',
        signal: ending.signal,
        body: {
          iTwinId,
          name,
          ...(description !== '' && { description }),
          ...(file !== undefined && { creationMode: 'fromBaseline', baselineFile: { size: file.size } }),
        },
      });
      if (file === undefined) return iModel;
      try {
        await upload(iModel._links.upload?.href ?? '', file, { signal: ending.signal, onProgress: setSent });
        await api(`/imodels/${iModel.id}/baselinefile`, { method: 'POST', signal: ending.signal });
      } catch (error) {
        // Nobody can finish the upload, so its iModel goes.
        await api(`/imodels/${iModel.id}`, { method: 'DELETE' }).catch(() => undefined);
        throw error;
      }
      return iModel;
    },
    onSuccess: async ({ id }) => {
      await refresh(client, ['iModels', iTwinId]);
      await navigate({
        to: file === undefined ? '/imodels/$iModelId' : '/imodels/$iModelId/creation',
        params: { iModelId: id },
      });
    },
  });
  const { isPending } = create;
  useEffect(() => {
    if (!isPending || file === undefined) return;
    // A reload ends the upload, so the browser asks first.
    const ask = (event: BeforeUnloadEvent) => event.preventDefault();
    addEventListener('beforeunload', ask);
    return () => removeEventListener('beforeunload', ask);
  }, [isPending, file]);
  const cancel = () => abort.current?.abort(new DOMException('cancelled', 'AbortError'));
  return { create, sent, cancel };
}
