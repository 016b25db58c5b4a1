import { Type } from '../jsonSchema.ts';
import { ApiError } from '../errors.ts';
import { FullITwin, MinimalITwin } from './itwins.ts';
import { callerRoute, itwinRoute, type Call, type Route } from './route.ts';
import { time } from './schemas.ts';

const tag = 'iTwins';

const AccountResponse = Type.Object({ iTwin: Type.Union([FullITwin, MinimalITwin]) });

/** Rule of the API: an account is represented as an iTwin; here it is the organization. */
async function accountOf(
  { services, representation }: Pick<Call<unknown, unknown>, 'services' | 'representation'>,
  organizationId: string | null,
) {
  if (organizationId === null) throw new ApiError('iTwinNotFound');
  const name = services.directory.organizationName(organizationId);
  const account = {
    id: organizationId,
    class: 'Account',
    subClass: 'Account',
    type: null,
    number: name,
    displayName: name,
  };
  if (!representation) return { iTwin: account };
  return {
    iTwin: {
      ...account,
      geographicLocation: null,
      dataCenterLocation: services.config.dataCenter,
      status: 'Active',
      parentId: null,
      iTwinAccountId: organizationId,
      imageName: null,
      image: null,
      // The users file records no creation time of an organization, so that of its first iTwin is returned.
      createdDateTime: time(await services.iTwins.firstOf(organizationId)),
      createdBy: null,
    },
  };
}

const getAccount = itwinRoute({
  operationId: 'get-itwin-account',
  method: 'GET',
  path: '/itwins/:iTwinId/account',
  tag,
  summary: 'Get the account (organization) that an iTwin belongs to',
  access: { on: 'itwin', permission: 'member', from: 'path' },
  invalid: 'Cannot get Account.',
  prefer: true,
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  handler: (call) => accountOf(call, call.access.itwin.organization_id),
});

const getPrimaryAccount = callerRoute({
  operationId: 'get-my-primary-account',
  method: 'GET',
  path: '/itwins/myprimaryaccount',
  tag,
  summary: "Get the account of the caller's organization",
  access: { on: 'caller' },
  invalid: 'Cannot get Account.',
  prefer: true,
  response: { status: 200, description: 'The account.', schema: AccountResponse },
  errors: ['iTwinNotFound'],
  handler: (call) => accountOf(call, call.caller.user.organizationId),
});

export const accountRoutes: Route[] = [getPrimaryAccount, getAccount];
