import { accessControlRoutes } from './accessControl.ts';
import { accountRoutes } from './accounts.ts';
import { baselineRoutes } from './baseline.ts';
import { briefcaseRoutes } from './briefcases.ts';
import { changesetRoutes } from './changesets.ts';
import { checkpointRoutes } from './checkpoints.ts';
import { cloneRoutes } from './clone.ts';
import { extendedDataRoutes } from './extendedData.ts';
import { changesetGroupRoutes } from './changesetGroups.ts';
import { graphicsRoutes } from './graphics.ts';
import { groupRoutes } from './groups.ts';
import { imodelRoutes } from './imodels.ts';
import { itwinRoutes } from './itwins.ts';
import { invitationRoutes } from './invitations.ts';
import { iTwinImageRoutes } from './iTwinImages.ts';
import { ownerRoutes } from './owners.ts';
import { repositoryRoutes } from './repositories.ts';
import { permissionRoutes } from './permissions.ts';
import { lineageRoutes } from './lineage.ts';
import { lockRoutes } from './locks.ts';
import { favoriteRoutes } from './favorites.ts';
import { namedVersionRoutes } from './namedVersions.ts';
import type { Route } from './route.ts';
import { shareRoutes } from './shares.ts';
import { thumbnailRoutes } from './thumbnails.ts';
import { userProfileRoutes } from './userProfiles.ts';
import { userRoutes } from './users.ts';
import { usageRoutes } from './usage.ts';
import { viewerRoutes } from './viewer.ts';
import { webhookRoutes } from './webhooks.ts';

/** Every route of the API: the source for the server, the OpenAPI document and the permission matrix test. */
export const routes: readonly Route[] = [
  ...cloneRoutes,
  ...imodelRoutes,
  ...lineageRoutes,
  ...baselineRoutes,
  ...changesetRoutes,
  ...changesetGroupRoutes,
  ...extendedDataRoutes,
  ...namedVersionRoutes,
  ...checkpointRoutes,
  ...graphicsRoutes,
  ...viewerRoutes,
  ...briefcaseRoutes,
  ...lockRoutes,
  ...userRoutes,
  ...userProfileRoutes,
  ...thumbnailRoutes,
  ...shareRoutes,
  ...favoriteRoutes,
  ...permissionRoutes,
  ...itwinRoutes,
  ...accountRoutes,
  ...iTwinImageRoutes,
  ...repositoryRoutes,
  ...usageRoutes,
  ...webhookRoutes,
  ...accessControlRoutes,
  ...groupRoutes,
  ...ownerRoutes,
  ...invitationRoutes,
];
