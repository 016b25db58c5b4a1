import { Button, LabeledInput, LabeledSelect, Tag, TagContainer, Text } from '@itwin/itwinui-react';
import { SvgAdd } from '@itwin/itwinui-icons-react';
import { useQuery, useQueryClient, type QueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { grantsQuery, type Grant } from '../api/administration.ts';
import { api, page, queryText, type Paged } from '../api/client.ts';
import { ApiFault } from '../api/fault.ts';
import { nameOf, peopleQuery, refresh, rolesQuery } from '../api/queries.ts';
import type { IModel, Member, Role } from '../api/types.ts';
import { useSubmit } from '../api/useSubmit.ts';
import { Choices } from '../components/Choices.tsx';
import { ConfirmDialog } from '../components/ConfirmDialog.tsx';
import { FaultState } from '../components/FaultState.tsx';
import { FormDialog } from '../components/FormDialog.tsx';
import { SectionHead } from '../components/SectionHead.tsx';
import { Waiting } from '../components/Waiting.tsx';

type Kind = 'roles' | 'users';

/** Permissions that an iModel can have of its own. Deleting is decided on the iTwin. */
const grantable = ['imodels_webview', 'imodels_read', 'imodels_write', 'imodels_manage'] as const;

const wire = {
  roles: { path: 'rolepermissions', list: 'rolePermissions', holder: 'roleId' },
  users: { path: 'userpermissions', list: 'userPermissions', holder: 'userId' },
} as const;

interface Change {
  kind: Kind;
  grants: readonly Grant[];
  /** Removes all others. */
  replace: boolean;
}

async function sendGrants({ id, iTwinId }: IModel, { kind, grants, replace }: Change): Promise<void> {
  const { path, list, holder } = wire[kind];
  const named = await Promise.all(
    grants.map(async (grant) => ({ ...grant, holder: await holderOf(grant.holder, iTwinId) })),
  );
  await api(`/imodels/${id}/${path}`, {
    method: replace ? 'PUT' : 'PATCH',
    body: { [list]: named.map((grant) => ({ [holder]: grant.holder, permissions: grant.permissions })) },
  });
}

/** Reads again what depends on the permissions of an iModel. */
const afterGrants = (client: QueryClient, { id }: IModel): Promise<void> =>
  refresh(client, ['iModel', id], ['iModels']);

/** Most members that are searched for an e-mail address. */
const mostMembers = 10_000;

/** The id of a member of the iTwin, found by e-mail; what is not an e-mail is an id. @throws ApiFault if there is no such member */
async function holderOf(holder: string, iTwinId: string): Promise<string> {
  if (!holder.includes('@')) return holder;
  const wanted = holder.toLowerCase();
  let searched = 0;
  for (let query: string | undefined = queryText({ $top: 1000 }); query !== undefined && searched < mostMembers;) {
    const found: Paged<Member> = await page(`/accesscontrol/itwins/${iTwinId}/members/users`, query, 'members');
    const member = found.items.find(({ email }) => email.toLowerCase() === wanted);
    if (member !== undefined) return member.id;
    searched += found.items.length;
    query = found.next;
  }
  throw new ApiFault(404, 'UserNotFound', holder);
}

type Open = { what: 'new' } | { what: 'change' | 'remove'; grant: Grant } | { what: 'inherit' } | undefined;

/** The permissions of one iModel, which replace those of its iTwin. */
export function GrantsSection({ iModel, canManage }: { iModel: IModel; canManage: boolean }) {
  const { t } = useTranslation();
  const [open, setOpen] = useState<Open>();
  const ofRoles = useQuery(grantsQuery(iModel.id, 'roles'));
  const ofUsers = useQuery(grantsQuery(iModel.id, 'users'));
  const roles = useQuery(rolesQuery(iModel.iTwinId));
  const kind: Kind = (ofUsers.data?.length ?? 0) > 0 ? 'users' : 'roles';
  const grants = (kind === 'users' ? ofUsers.data : ofRoles.data) ?? [];
  const people = useQuery(peopleQuery(kind === 'users' ? grants.map(({ holder }) => holder) : []));
  const nameOfHolder = (holder: string): string => {
    const person = people.data?.get(holder);
    if (person !== undefined) return nameOf(person);
    return roles.data?.find(({ id }) => id === holder)?.displayName ?? holder;
  };
  const fault = ofRoles.error ?? ofUsers.error;
  const close = () => setOpen(undefined);
  return (
    <section>
      <SectionHead
        title={t('grants.title')}
        text={t(iModel.isSecured ? 'grants.secured' : 'grants.inherited')}
        action={
          canManage && (
            <div className="actions">
              {iModel.isSecured && <Button onClick={() => setOpen({ what: 'inherit' })}>{t('grants.inherit')}</Button>}
              <Button
                startIcon={<SvgAdd />}
                // Whether there are permissions for roles or for users decides what can be added.
                disabled={!ofRoles.isSuccess || !ofUsers.isSuccess}
                onClick={() => setOpen({ what: 'new' })}
              >
                {t('grants.new')}
              </Button>
            </div>
          )
        }
      />
      {(ofRoles.isPending || ofUsers.isPending) && <Waiting />}
      {fault !== null && (
        <FaultState fault={fault} onRetry={() => void Promise.all([ofRoles.refetch(), ofUsers.refetch()])} />
      )}
      <ul className="people">
        {grants.map((grant) => (
          <GrantRow
            key={grant.holder}
            grant={grant}
            name={nameOfHolder(grant.holder)}
            canManage={canManage}
            // Without the last one, the iModel would return to the permissions of the iTwin, for which there is a button.
            canRemove={grants.length > 1}
            onOpen={(what) => setOpen({ what, grant })}
          />
        ))}
      </ul>
      {(open?.what === 'new' || open?.what === 'change') && (
        <GrantDialog
          iModel={iModel}
          roles={roles.data ?? []}
          // An iModel has permissions for roles or for users, never for both.
          kind={grants.length > 0 ? kind : undefined}
          {...(open.what === 'change' && { grant: open.grant, name: nameOfHolder(open.grant.holder) })}
          onClose={close}
        />
      )}
      {open?.what === 'remove' && (
        <ReplaceDialog
          iModel={iModel}
          kind={kind}
          grants={grants.filter(({ holder }) => holder !== open.grant.holder)}
          title={t('grants.removeLabel', { name: nameOfHolder(open.grant.holder) })}
          text={t('grants.removeText')}
          submit={t('grants.remove')}
          onClose={close}
        />
      )}
      {open?.what === 'inherit' && (
        <ReplaceDialog
          iModel={iModel}
          kind={kind}
          grants={[]}
          title={t('grants.inherit')}
          text={t('grants.inheritText')}
          submit={t('grants.inherit')}
          onClose={close}
        />
      )}
    </section>
  );
}

function GrantRow({
  grant,
  name,
  canManage,
  canRemove,
  onOpen,
}: {
  grant: Grant;
  name: string;
  canManage: boolean;
  canRemove: boolean;
  onOpen: (what: 'change' | 'remove') => void;
}) {
  const { t } = useTranslation();
  return (
    <li>
      <Text>{name}</Text>
      <TagContainer>
        {grant.permissions.map((permission) => (
          <Tag key={permission}>{t(`permissions.${permission as 'imodels_read'}`, { defaultValue: permission })}</Tag>
        ))}
      </TagContainer>
      {grant.permissions.length === 0 && (
        <Text variant="small" isMuted>
          {t('grants.shutOut')}
        </Text>
      )}
      <span className="spacer" />
      {canManage && (
        <>
          <Button size="small" aria-label={t('grants.changeLabel', { name })} onClick={() => onOpen('change')}>
            {t('grants.change')}
          </Button>
          {canRemove && (
            <Button size="small" aria-label={t('grants.removeLabel', { name })} onClick={() => onOpen('remove')}>
              {t('grants.remove')}
            </Button>
          )}
        </>
      )}
    </li>
  );
}

function GrantDialog({
  iModel,
  roles,
  kind: given,
  grant,
  name,
  onClose,
}: {
  iModel: IModel;
  roles: readonly Role[];
  kind: Kind | undefined;
  grant?: Grant;
  name?: string;
  onClose: () => void;
}) {
  const { t } = useTranslation();
  const [kind, setKind] = useState<Kind>(given ?? 'roles');
  const [chosenRole, setRole] = useState<string>();
  // The roles may arrive after the dialogue has opened.
  const role = chosenRole ?? roles[0]?.id ?? '';
  const [user, setUser] = useState('');
  const [permissions, setPermissions] = useState(grant?.permissions ?? ['imodels_webview', 'imodels_read']);
  const client = useQueryClient();
  const change = useSubmit({
    mutationFn: (wanted: Change) => sendGrants(iModel, wanted),
    onSuccess: async () => {
      await afterGrants(client, iModel);
      onClose();
    },
  });
  const holder = grant?.holder ?? (kind === 'roles' ? role : user.trim());
  return (
    <FormDialog
      title={grant === undefined ? t('grants.new') : t('grants.changeLabel', { name })}
      submit={t('common.save')}
      isBusy={change.isPending}
      isReady={holder !== ''}
      fault={change.error}
      onSubmit={() => change.mutate({ kind, grants: [{ holder, permissions }], replace: false })}
      onClose={onClose}
    >
      {!iModel.isSecured && <Text as="p">{t('grants.firstText')}</Text>}
      {grant === undefined && given === undefined && (
        <LabeledSelect
          label={t('grants.for')}
          value={kind}
          options={(['roles', 'users'] as const).map((value) => ({ value, label: t(`grants.kinds.${value}`) }))}
          onChange={(value: Kind) => setKind(value)}
        />
      )}
      {grant === undefined && kind === 'roles' && (
        <LabeledSelect
          label={t('grants.role')}
          value={role}
          options={roles.map(({ id, displayName }) => ({ value: id, label: displayName }))}
          {...(roles.length === 0 && { message: t('groups.noRolesFirst') })}
          onChange={(value: string) => setRole(value)}
        />
      )}
      {grant === undefined && kind === 'users' && (
        <LabeledInput
          label={t('grants.user')}
          message={t('grants.userHint')}
          required
          maxLength={255}
          value={user}
          onChange={({ currentTarget }) => setUser(currentTarget.value)}
        />
      )}
      <Choices
        legend={t('members.permissionsOf')}
        options={grantable.map((value) => ({ value, label: t(`permissions.${value}`) }))}
        chosen={permissions}
        onChange={setPermissions}
      />
      {permissions.length === 0 && <Text as="p">{t('grants.shutOutText')}</Text>}
    </FormDialog>
  );
}

/** Replaces all permissions, after a question. */
function ReplaceDialog({
  iModel,
  kind,
  grants,
  title,
  text,
  submit,
  onClose,
}: {
  iModel: IModel;
  kind: Kind;
  grants: readonly Grant[];
  title: string;
  text: string;
  submit: string;
  onClose: () => void;
}) {
  const client = useQueryClient();
  return (
    <ConfirmDialog
      title={title}
      text={text}
      submit={submit}
      request={() => sendGrants(iModel, { kind, grants, replace: true })}
      onDone={() => afterGrants(client, iModel)}
      onClose={onClose}
    />
  );
}
