import i18next, { type TFunction } from 'i18next';
import { ApiFault } from './api/fault.ts';

/** An error in words: what happened, and what the reader can do about it. */
export interface FaultText {
  title: string;
  text: string;
}

const known = [
  'NoAnswer',
  'InsufficientPermissions',
  'iTwinNotFound',
  'iModelNotFound',
  'ChangesetNotFound',
  'NamedVersionNotFound',
  'BriefcaseNotFound',
  'RoleNotFound',
  'GroupNotFound',
  'OwnerNotFound',
  'ShareNotFound',
  'WebhookNotFound',
  'DeliveryNotFound',
  'TeamMemberNotFound',
  'UserNotFound',
  'iModelExists',
  'iTwinExists',
  'iModelNotInitialized',
  'CheckpointsNotMade',
  'CheckpointNotUsable',
  'GraphicsNotMade',
  'RequestInProgress',
  'RequestTimeout',
  'NamedVersionExists',
  'NamedVersionOnChangesetExists',
  'DataConflict',
  'FileNotFound',
  'LastOwner',
  'InsufficientStorage',
  'Unavailable',
  'LinkRefused',
  'UploadRefused',
] as const;
type Known = (typeof known)[number];
const isKnown = (code: string): code is Known => (known as readonly string[]).includes(code);

/** Some APIs of the platform spell a code in another way. */
const sameAs: Readonly<Record<string, Known>> = { ItwinNotFound: 'iTwinNotFound' };

export function faultText(fault: unknown, t: TFunction = i18next.t): FaultText {
  if (!(fault instanceof ApiFault)) return { title: t('faults.unexpected.title'), text: t('faults.unexpected.text') };
  if (fault.status === 429)
    return {
      title: t('faults.rateLimit.title'),
      text: t('faults.rateLimit.text', { count: Math.max(1, Math.ceil(fault.retryAfter ?? 60)) }),
    };
  if (fault.status === 401) return { title: t('faults.signedOut.title'), text: t('faults.signedOut.text') };
  const code = sameAs[fault.code] ?? fault.code;
  if (isKnown(code)) return { title: t(`faults.${code}.title`), text: t(`faults.${code}.text`) };
  const [quota] = fault.details.filter((each) => each.code === 'ResourceQuotaExceeded');
  if (quota !== undefined)
    return { title: t('faults.quota.title'), text: `${quota.message} ${t('faults.quota.text')}` };
  if (fault.status === 422)
    return {
      title: t('faults.invalid.title'),
      text: [fault.message, ...fault.details.map(({ message }) => message)].join(' '),
    };
  if (fault.status >= 500) return { title: t('faults.server.title'), text: t('faults.server.text') };
  return { title: t('faults.refused.title'), text: fault.message === '' ? `HTTP ${fault.status}` : fault.message };
}
