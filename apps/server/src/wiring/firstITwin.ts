import { userOfEntry } from '../access/directory.ts';
import { ApiError } from '../errors.ts';
import type { Services } from '../services.ts';

/**
 * Creates the first iTwin of a new installation that has a users file. Its owner is the first user in the file. If several
 * servers start at once, only one creates it, because the name of an iTwin is unique within its organization.
 * @returns the iTwin, if the installation has exactly one
 */
export async function ensureFirstITwin(services: Services): Promise<{ id: string; name: string } | undefined> {
  if ((await firstTwo(services)).length === 0) await makeFirst(services);
  const [only, another] = await firstTwo(services);
  return only === undefined || another !== undefined ? undefined : { id: only.id, name: only.display_name };
}

function firstTwo({ database }: Services): Promise<{ id: string; display_name: string }[]> {
  return database.db.selectFrom('itwin').select(['id', 'display_name']).limit(2).execute();
}

async function makeFirst(services: Services): Promise<void> {
  const listed = services.directory.data.users[0];
  if (!services.config.embeddedIssuer || listed === undefined) return;
  const user = userOfEntry(listed);
  await services.users.remember(user);
  try {
    await services.iTwins.create(
      {
        user,
        application: { id: 'offshoot-start', name: 'First start', tier: services.config.defaultTier },
        administeredOrganizationIds: [],
      },
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
        organizationId: user.organizationId,
      },
    );
  } catch (error) {
    if (!(error instanceof ApiError && error.code === 'iTwinExists')) throw error;
  }
}
