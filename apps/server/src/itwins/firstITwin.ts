import type { Services } from '../services.ts';

/**
 * Gives a new installation with users of its own one iTwin to begin with, owned by the first user of the users file.
 * @returns that iTwin when it was made by this call or is the only one there is
 */
export async function ensureFirstITwin(services: Services): Promise<{ id: string; name: string } | undefined> {
  const existing = await services.database.db.selectFrom('itwin').select(['id', 'display_name']).limit(2).execute();
  const [only, another] = existing;
  if (only !== undefined) return another === undefined ? { id: only.id, name: only.display_name } : undefined;
  const listed = services.directory.data.users[0];
  if (!services.config.embeddedIssuer || listed === undefined) return undefined;
  const { id, email, givenName, surname, organizationId = null } = listed;
  const user = { id, email, givenName, surname, organizationId };
  await services.users.remember(user);
  const row = await services.iTwins.create(
    { user, application: { id: 'offshoot-start', name: 'First start', tier: services.config.defaultTier }, administeredOrganizationIds: [] },
    {
      class: 'Endeavor',
      subClass: 'Project',
      displayName: 'My iTwin',
      number: undefined,
      type: null,
      geographicLocation: null,
      dataCenterLocation: undefined,
      status: 'Active',
      parentId: null,
      organizationId,
    },
  );
  return { id: row.id, name: row.display_name };
}
