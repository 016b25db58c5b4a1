import type { Caller } from '../domain.ts';
import { ApiError, detail } from '../errors.ts';
import { Type } from '../jsonSchema.ts';
import type { UserProfile } from '../users/users.ts';
import { callerRoute, type Call, type Route } from './route.ts';
import { Nullable, time, TimeSchema } from './schemas.ts';

const tag = 'Users';

/** Rule of the Users API: at most this many users by one request. */
const maxUsers = 1000;

const UserSchema = Type.Object({
  id: Type.String(),
  email: Type.String({ description: 'Empty if the user has no verified e-mail address.' }),
  givenName: Type.String(),
  surname: Type.String(),
  organizationName: Nullable(Type.String()),
});

/** What this server does not know of a user, but the Users API has. */
const unknown = { alternateEmail: null, phone: null, city: null, country: null, language: null };
const Unknown = Type.Null({ description: 'This server does not know it.' });

const MeSchema = Type.Object({
  ...UserSchema.properties,
  displayName: Type.String(),
  alternateEmail: Unknown,
  phone: Unknown,
  city: Unknown,
  country: Unknown,
  language: Unknown,
  createdDateTime: TimeSchema,
});

/** The wording of the Users API. */
const userNotFound = () => new ApiError('UserNotFound', { message: 'Requested user is not available.' });

type Services = Call<unknown, unknown>['services'];

function toUser({ directory }: Services, { id, email, givenName, surname, organizationId }: UserProfile) {
  return {
    id,
    email,
    givenName,
    surname,
    organizationName: organizationId === null ? null : directory.organizationName(organizationId),
  };
}

/** Rule of the Users API: users of the caller's organization. Here also of those that the caller administers, and the caller. */
async function visible(services: Services, caller: Caller, ids: readonly string[]): Promise<UserProfile[]> {
  const organizations = new Set([caller.user.organizationId, ...caller.administeredOrganizationIds]);
  organizations.delete(null);
  const found = await services.users.profiles(ids, services.directory);
  return found.filter(({ id, organizationId }) => id === caller.user.id || organizations.has(organizationId));
}

const getMe = callerRoute({
  operationId: 'get-me',
  method: 'GET',
  path: '/users/me',
  tag,
  summary: 'Get the profile of the caller',
  access: { on: 'caller' },
  invalid: 'Cannot get User.',
  response: { status: 200, description: 'The caller.', schema: Type.Object({ user: MeSchema }) },
  errors: ['UserNotFound'],
  async handler({ caller, services }) {
    const { user } = caller;
    // The holder of a share is no user.
    const account = caller.share === undefined ? await services.users.find(user.id) : undefined;
    if (account === undefined) throw userNotFound();
    return {
      user: {
        ...toUser(services, user),
        displayName: user.email === '' ? user.id : user.email,
        ...unknown,
        createdDateTime: time(account.created_at),
      },
    };
  },
});

const getUser = callerRoute({
  operationId: 'get-user',
  method: 'GET',
  path: '/users/:userId',
  tag,
  summary: "Get a user of the caller's organization",
  access: { on: 'caller' },
  invalid: 'Cannot get User.',
  response: { status: 200, description: 'The user.', schema: Type.Object({ user: UserSchema }) },
  errors: ['UserNotFound'],
  async handler({ caller, params, services }) {
    const userId = params['userId'] ?? '';
    const [user] = userId.includes('\0') || caller.share !== undefined ? [] : await visible(services, caller, [userId]);
    if (user === undefined) throw userNotFound();
    return { user: toUser(services, user) };
  },
});

const getUsers = callerRoute({
  operationId: 'get-users-by-id-list',
  method: 'POST',
  path: '/users/getbyidlist',
  tag,
  summary: "Get users of the caller's organization by their ids",
  description: `The body is a list of at most ${maxUsers} ids. Ids of unknown users, and of users of other organizations, are left out.`,
  access: { on: 'caller' },
  invalid: 'Cannot query users.',
  // A bound of this server; up to it, the message names the limit of the platform.
  body: Type.Array(Type.String({ maxLength: 255 }), { maxItems: 10 * maxUsers }),
  response: { status: 200, description: 'The users.', schema: Type.Object({ users: Type.Array(UserSchema) }) },
  async handler({ caller, body, services, invalid }) {
    if (body.length > maxUsers)
      throw invalid([
        detail.invalidValue('request', `The request body cannot contain more than ${maxUsers} user Ids.`),
      ]);
    const users = await visible(services, caller, [...new Set(body)]);
    return { users: users.map((user) => toUser(services, user)) };
  },
});

/** The Users API of the platform, as its command line calls it. */
export const userProfileRoutes: Route[] = [getMe, getUser, getUsers];
