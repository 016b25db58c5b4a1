import type { Generated } from 'kysely';

/* Tables of users and iTwins, as `schema.ts` describes them. */

export interface UserAccountTable {
  id: string;
  /** `iss` and `sub` claims; both null for a user of an earlier version until the next sign-in. */
  issuer: string | null;
  subject: string | null;
  /** For display; empty if no verified address is known. */
  email: string;
  /** In lower case; users are looked up by it. */
  verified_email: string | null;
  given_name: string;
  surname: string;
  organization_id: string | null;
  created_at: number;
}

export interface ITwinTable {
  id: string;
  organization_id: string | null;
  /** Who made it; who owns it stands in `owner`. */
  owner_id: string;
  class: string;
  sub_class: string;
  type: string | null;
  number: string;
  display_name: string;
  search_text: string;
  geographic_location: string | null;
  data_center: string;
  status: string;
  parent_id: string | null;
  created_at: number;
  deleted_at: number | null;
}

/** Users with every permission on an iTwin; initially its creator. */
export interface ITwinOwnerTable {
  itwin_id: string;
  user_id: string;
  email: Generated<string>;
}

/** A group of users that can be given roles together. */
export interface UserGroupTable {
  id: string;
  itwin_id: string;
  name: string;
  description: string | null;
}

export interface GroupUserTable {
  group_id: string;
  user_id: string;
}

/** One row for each role that a group has on an iTwin. */
export interface GroupMemberTable {
  itwin_id: string;
  group_id: string;
  role_id: string;
}

/** An external location with further data of an iTwin. */
export interface RepositoryTable {
  id: string;
  itwin_id: string;
  class: string;
  sub_class: string | null;
  uri: string;
  /** If null, the URI is shown. */
  display_name: string | null;
  /** JSON that clients interpret; the server does not. */
  options: string | null;
  /** JSON: the key or password that members use it with. */
  authentication: string | null;
}

export interface ITwinImageTable {
  itwin_id: string;
  id: string;
  small_blob_id: string;
  large_blob_id: string;
}

/** A URL that receives the events of an iTwin. */
export interface WebhookTable {
  id: string;
  itwin_id: string;
  callback_url: string;
  /** Signing key, stored unhashed because the server needs it to sign. */
  secret: string;
  /** JSON list. */
  event_types: string;
  is_active: 0 | 1;
  creator_id: string;
  created_at: number;
  /** Consecutive failed deliveries. */
  failures: number;
  /** No delivery before this time; null unless deliveries fail. */
  paused_until: number | null;
}

export interface RoleTable {
  id: string;
  itwin_id: string;
  display_name: string;
  description: string | null;
  /** JSON list of permission names. */
  permissions: string;
}

/** One row for each role that a user has on an iTwin. */
export interface MemberTable {
  itwin_id: string;
  user_id: string;
  role_id: string;
  /** That of the account, kept by triggers: the order of the list. */
  email: Generated<string>;
}
