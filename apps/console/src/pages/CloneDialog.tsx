import { Alert, LabeledInput, LabeledSelect, Text } from '@itwin/itwinui-react';
import { useQuery, useQueryClient, type QueryClient } from '@tanstack/react-query';
import { useNavigate } from '@tanstack/react-router';
import { useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import { api, apiHeaders } from '../api/client.ts';
import { ApiFault } from '../api/fault.ts';
import { headQuery, iModelPermissionsQuery, iTwinPermissionsQuery, refresh } from '../api/queries.ts';
import type { IModel } from '../api/types.ts';
import { useIsShown, useSubmit } from '../api/useSubmit.ts';
import { useSession } from '../auth/context.ts';
import { FormDialog } from '../components/FormDialog.tsx';
import { DescriptionField } from '../components/NameFields.tsx';
import { numberText } from '../format.ts';
import { TargetChoice } from './TargetChoice.tsx';

interface CloneDialogProps {
  iModel: IModel;
  /** Index of the last changeset to copy. */
  upTo: number | 'head';
  onClose: () => void;
}

/** The ways to derive an iModel that the dialogue offers. */
const kinds = ['clone', 'fork', 'forkWithHistory', 'template'] as const;
type Kind = (typeof kinds)[number];
const operationOf = {
  clone: 'clone-imodel',
  fork: 'fork-imodel',
  forkWithHistory: 'fork-imodel',
  template: 'create-imodel',
} as const;

const copied = ['baseline', 'changesets', 'checkpoints', 'extent'] as const;
const notCopied = ['versions', 'briefcases', 'extendedData', 'permissions', 'thumbnail'] as const;

/** Kinds whose result has one state, that of the point, as its baseline. */
const isFlat = (kind: Kind): boolean => kind === 'fork' || kind === 'template';

/** Clones an iModel, after it has told what will be copied and what may be in the way. */
export function CloneDialog({ iModel, upTo, onClose }: CloneDialogProps) {
  const { t } = useTranslation();
  const [kind, setKind] = useState<Kind>('clone');
  const [target, setTarget] = useState(iModel.iTwinId);
  const [name, setName] = useState(() => t('clone.defaultName', { name: iModel.displayName }).slice(0, 255));
  const [description, setDescription] = useState(iModel.description ?? '');
  const head = useQuery(headQuery(iModel.id));
  const last = head.data === undefined ? undefined : (head.data?.index ?? 0);
  const index = upTo === 'head' ? last : upTo;
  const obstacle = useObstacle(iModel, kind, target, index, last);
  const clone = useClone(iModel, { kind, target, name, description, index: upTo === 'head' ? undefined : upTo });
  const sameName = target === iModel.iTwinId && name.trim() === iModel.displayName;
  return (
    <FormDialog
      title={t('clone.of', { name: iModel.displayName })}
      submit={t(`clone.kinds.${kind}.button`)}
      isBusy={clone.isPending}
      isReady={name.trim() !== '' && index !== undefined && obstacle === undefined && !sameName}
      fault={clone.error ?? head.error}
      onSubmit={() => clone.mutate()}
      onClose={onClose}
    >
      <Text as="p">
        {index === undefined
          ? t('common.loading')
          : index === 0
            ? t('clone.baselineOnly')
            : index === last
              ? t('clone.all', { count: index, index: numberText(index) })
              : t('clone.upTo', { index: numberText(index), last: numberText(last ?? 0) })}
      </Text>
      <TargetChoice value={target} onChange={setTarget} />
      {obstacle !== undefined && (
        <Alert type="warning" role="alert">
          {obstacle}
        </Alert>
      )}
      <LabeledInput
        label={t('fields.name')}
        required
        autoFocus
        maxLength={255}
        value={name}
        {...(sameName && { message: t('clone.sameName') })}
        onChange={({ currentTarget }) => setName(currentTarget.value)}
      />
      <DescriptionField value={description} onChange={setDescription} rows={2} />
      <LabeledSelect
        label={t('clone.kind')}
        message={t(`clone.kinds.${kind}.text`)}
        value={kind}
        options={kinds.map((value) => ({ value, label: t(`clone.kinds.${value}.name`) }))}
        onChange={(value: Kind) => setKind(value)}
      />
      <WhatIsCopied kind={kind} />
    </FormDialog>
  );
}

/** Whether the caller may not manage the iModels of an iTwin, as far as the server has answered. */
function lacks({ data, error }: { data: string[] | undefined; error: Error | null }): boolean {
  return data?.includes('imodels_manage') === false || (error instanceof ApiFault && [403, 404].includes(error.status));
}

/** Why the server would refuse the clone, as far as that is known beforehand. */
function useObstacle(
  iModel: IModel,
  kind: Kind,
  target: string,
  index: number | undefined,
  last: number | undefined,
): string | undefined {
  const { t } = useTranslation();
  const ofSource = useQuery(iTwinPermissionsQuery(iModel.iTwinId));
  const ofIModel = useQuery({ ...iModelPermissionsQuery(iModel.id), enabled: kind === 'template' });
  const ofTarget = useQuery({ ...iTwinPermissionsQuery(target), enabled: target !== iModel.iTwinId });
  // Who may read an iModel may use it as a template; to clone or fork it takes more.
  if (kind === 'template') {
    if (ofIModel.data?.includes('imodels_read') === false) return t('clone.needsReading');
    if (target === iModel.iTwinId && lacks(ofSource)) return t('clone.needsTarget');
  } else if (lacks(ofSource)) return t('clone.needsSource');
  if (target !== iModel.iTwinId && lacks(ofTarget)) return t('clone.needsTarget');
  if (index !== undefined && last !== undefined && index > last)
    return t('clone.noSuchIndex', { last: numberText(last) });
  return undefined;
}

interface Wanted {
  kind: Kind;
  target: string;
  name: string;
  description: string;
  index: number | undefined;
}

/** Sends the request once, however often it is repeated, and leads to the page of the new iModel. */
function useClone(iModel: IModel, { kind, target, name, description, index }: Wanted) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const isShown = useIsShown();
  const body = {
    iTwinId: target,
    name: name.trim(),
    ...(description.trim() !== '' && { description: description.trim() }),
  };
  const text = JSON.stringify([kind, index, body]);
  const idempotencyKey = useMemo(() => ({ key: crypto.randomUUID(), text }).key, [text]);
  return useSubmit({
    mutationFn: async () => {
      if (kind === 'template') {
        const template = { iModelId: iModel.id, changesetId: await changesetIdOf(client, iModel.id, index) };
        const made = await api<{ iModel: IModel }>('/imodels', {
          method: 'POST',
          body: { ...body, template },
          idempotencyKey,
        });
        return made.iModel.id;
      }
      const headers = await apiHeaders(`/imodels/${iModel.id}/${kind === 'clone' ? 'clone' : 'fork'}`, {
        method: 'POST',
        body: {
          ...body,
          ...(index !== undefined && { changesetIndex: index }),
          ...(kind !== 'clone' && { preserveHistory: kind === 'forkWithHistory' }),
        },
        idempotencyKey,
      });
      return headers.get('location')?.split('/').at(-1) ?? '';
    },
    onSuccess: async (iModelId) => {
      await refresh(client, ['iModels', target]);
      if (isShown()) await navigate({ to: '/imodels/$iModelId/creation', params: { iModelId } });
    },
  });
}

/** The id of a changeset, by its index or else of the last one; null for the baseline. */
async function changesetIdOf(client: QueryClient, iModelId: string, index: number | undefined): Promise<string | null> {
  if (index === 0) return null;
  if (index !== undefined)
    return (await api<{ changeset: { id: string } }>(`/imodels/${iModelId}/changesets/${index}`)).changeset.id;
  return (await client.query({ ...headQuery(iModelId), staleTime: 0 }))?.id ?? null;
}

function WhatIsCopied({ kind }: { kind: Kind }) {
  const { t } = useTranslation();
  const { limits } = useSession().settings;
  const limit = limits[operationOf[kind]];
  return (
    <div className="copied">
      <div>
        <Text as="h3" variant="leading">
          {t('clone.copiedTitle')}
        </Text>
        <ul>
          {copied
            .filter((part) => !isFlat(kind) || (part !== 'checkpoints' && part !== 'baseline'))
            .map((part) => (
              <li key={part}>
                {t(isFlat(kind) && part === 'changesets' ? 'clone.copied.state' : `clone.copied.${part}`)}
              </li>
            ))}
        </ul>
      </div>
      <div>
        <Text as="h3" variant="leading">
          {t('clone.notCopiedTitle')}
        </Text>
        <ul>
          {notCopied.map((part) => (
            <li key={part}>{t(`clone.notCopied.${part}`)}</li>
          ))}
        </ul>
      </div>
      <Text as="p" variant="small" isMuted className="wide">
        {t('clone.afterwards')}{' '}
        {limit !== undefined && t('clone.limit', { count: limit.requests, seconds: limit.seconds })}
      </Text>
    </div>
  );
}
