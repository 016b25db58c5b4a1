import { usersFileIssuer } from '../../apps/server/src/access/directory.ts';
import type { Bulk } from './bulk.ts';
import type { Content } from './data.ts';
import { idOf } from './ids.ts';

const [manyRole, crowdRole] = ['20000000-0000-4000-8000-000000000001', '20000000-0000-4000-8000-000000000002'];

/** Users, iTwins of others, members and groups. */
export async function addPeople(
  bulk: Bulk,
  { ownerId, manyId, crowdId, crowdIModelId, largeId }: Content,
  size: number,
): Promise<void> {
  const now = Date.now();
  const userOf = (n: number): string => idOf('user', n);
  await bulk.insert('user_account', size, (n) => ({
    id: userOf(n),
    issuer: usersFileIssuer,
    subject: userOf(n),
    email: `user${n}@example.com`,
    verified_email: `user${n}@example.com`,
    given_name: 'User',
    surname: String(n),
    organization_id: null,
    created_at: now,
  }));
  await bulk.insert('itwin', size, (n) => ({
    id: idOf('iTwin', n),
    organization_id: null,
    owner_id: ownerId,
    class: 'Endeavor',
    sub_class: 'Project',
    type: null,
    number: `number ${n}`,
    display_name: `iTwin ${n}`,
    search_text: `itwin ${n}\nnumber ${n}`,
    geographic_location: null,
    data_center: 'East US',
    status: 'Active',
    parent_id: null,
    created_at: now,
    deleted_at: null,
  }));
  await bulk.insert('owner', size, (n) => ({ itwin_id: idOf('iTwin', n), user_id: ownerId }));
  await bulk.insert('role', 2, (n) => ({
    id: n === 0 ? manyRole : crowdRole,
    itwin_id: n === 0 ? manyId : crowdId,
    display_name: 'Reader',
    description: null,
    permissions: JSON.stringify(['imodels_webview', 'imodels_read']),
  }));
  await bulk.insert('member', size, (n) => ({ itwin_id: crowdId, user_id: userOf(n), role_id: crowdRole }));
  await bulk.insert('member', 1, (n) => ({ itwin_id: manyId, user_id: userOf(n), role_id: manyRole }));
  await bulk.insert('user_group', size, (n) => ({
    id: idOf('group', n),
    itwin_id: crowdId,
    name: `group ${n}`,
    description: null,
  }));
  await bulk.insert('group_user', size, (n) => ({ group_id: idOf('group', n), user_id: userOf(n) }));
  await bulk.insert('group_member', size, (n) => ({
    itwin_id: crowdId,
    group_id: idOf('group', n),
    role_id: crowdRole,
  }));
  for (const imodel_id of [largeId, crowdIModelId])
    await bulk.insert('imodel_user', size, (n) => ({
      imodel_id,
      user_id: userOf(n),
      first_access_at: now,
      last_access_at: now - 3_600_000,
    }));
}
