import { maxPixels } from './domain.ts';

/** One detail of an error response, as defined by the API. */
export interface ErrorDetail {
  code: string;
  message: string;
  target?: string;
  innerError?: { code: string };
}

/**
 * Every error that a client can receive: status and message by wire code. Clients compare several of these messages
 * literally, so they only change with the API. `InvalidiModelsRequest` and `InvalidiTwinsRequest` take their message from the
 * operation.
 */
export const errorTable = {
  // 400
  BadRequest: [400, 'The request could not be understood.'],
  // 401
  HeaderNotFound: [401, 'Header Authorization was not found in the request. Access denied.'],
  InvalidHeaderValue: [401, 'Authorization header is empty.'],
  InvalidAuthorizationScheme: [401, 'Authorization scheme is not valid.'],
  RequiredScopeMissing: [
    401,
    'Access denied due to invalid access_token. One or more required scopes are missing. Make sure to provide a valid token for this API endpoint.',
  ],
  Unauthorized: [
    401,
    'Access denied due to invalid access_token. Make sure that issuer is correct, the token is not expired and is not corrupted.',
  ],
  InvalidApplicationTier: [401, 'The application is not allowed to access this API.'],
  // 403
  InsufficientPermissions: [403, 'The user has insufficient permissions for the requested operation.'],
  // 404
  NotFound: [404, 'There is nothing at this address.'],
  iTwinNotFound: [404, 'Requested iTwin is not available.'],
  // Spelling of the access control API.
  ItwinNotFound: [404, 'Requested iTwin is not available.'],
  iModelNotFound: [404, 'Requested iModel is not available.'],
  ChangesetNotFound: [404, 'Requested Changeset is not available.'],
  ChangesetGroupNotFound: [404, 'Requested Changeset Group is not available.'],
  ChangesetExtendedDataNotFound: [404, 'Requested Changeset Extended Data is not available.'],
  BaselineFileNotFound: [404, 'Requested Baseline File is not available.'],
  FileNotFound: [404, 'Requested file is not available. File was not uploaded to file storage.'],
  BriefcaseNotFound: [404, 'Requested Briefcase is not available.'],
  NamedVersionNotFound: [404, 'Requested Named Version is not available.'],
  LockNotFound: [404, 'Requested Lock(s) is not available.'],
  ShareNotFound: [404, 'Requested Share is not available.'],
  UserNotFound: [404, 'Requested User is not available.'],
  RoleNotFound: [404, 'Requested Role is not available.'],
  TeamMemberNotFound: [404, 'Requested Team Member is not available.'],
  InvitationNotFound: [404, 'Requested invitation is not available.'],
  GroupNotFound: [404, 'Requested Group is not available.'],
  OwnerNotFound: [404, 'Requested Owner is not available.'],
  WebhookNotFound: [404, 'Requested Webhook is not available.'],
  DeliveryNotFound: [404, 'Requested message is not available.'],
  ImageNotFound: [404, 'Requested image is not available.'],
  iTwinRepositoryNotFound: [404, 'Requested iTwin Repository is not available.'],
  // 409
  iModelExists: [409, 'iModel with the same name already exists within the iTwin.'],
  iModelNotInitialized: [409, 'iModel is not initialized.'],
  CheckpointsNotMade: [409, 'This installation makes no checkpoints.'],
  GraphicsNotMade: [409, 'This installation draws no iModels.'],
  ViewerNotAvailable: [409, 'This server answers no viewers.'],
  CheckpointNotUsable: [409, 'There is no checkpoint of this changeset. Make one first.'],
  ChangesetExists: [409, 'Changeset with the same id already exists within the iModel.'],
  ChangesetGroupIsClosed: [409, 'Requested Changeset Group is closed.'],
  ChangesetExtendedDataExists: [409, 'Changeset Extended Data for specified Changeset exists within the iModel.'],
  ConflictWithAnotherUser: [409, 'Another user is pushing a Changeset.'],
  NewerChangesExist: [409, "'parentId' does not match latest Changeset."],
  NamedVersionExists: [409, 'Named Version with the same name already exists within the iModel.'],
  NamedVersionOnChangesetExists: [409, 'Named Version for specified Changeset already exists.'],
  DataConflict: [409, 'File size provided during iModel creation does not match actual file size.'],
  iTwinRepositoryExists: [409, 'The specified iTwin Repository already exists.'],
  LastOwner: [409, 'An iTwin keeps at least one owner.'],
  RequestInProgress: [409, 'A request with the same Idempotency-Key is still being carried out.'],
  iTwinExists: [409, 'An iTwin with the specified number or displayName already exists.'],
  // 408
  RequestTimeout: [408, 'The request did not arrive in time.'],
  // 413
  RequestTooLarge: [413, 'The request body is larger than this operation accepts.'],
  // 417
  ExpectationFailed: [417, "Only the expectation '100-continue' is supported."],
  // 422
  InvalidiModelsRequest: [422, 'The request is not valid.'],
  InvalidiTwinsRequest: [422, 'The request is not valid.'],
  InvalidAccessControlRequest: [422, 'The request is not valid.'],
  InvalidUsersRequest: [422, 'The request is not valid.'],
  InvalidiTwinsGroupRequest: [422, 'The request is not valid.'],
  MissingRequestBody: [422, 'Request body was not provided.'],
  // 429
  RateLimitExceeded: [
    429,
    'The client sent more requests than allowed by this API for the current tier of the client.',
  ],
  // 431
  RequestHeadersTooLarge: [431, 'The headers of the request are larger than the server accepts.'],
  // 5xx
  Unknown: [500, 'The server met an unexpected error. The request was not carried out.'],
  ViewerBackendUnusable: [500, 'The view back end of this server cannot be used.'],
  ViewerTimeout: [504, 'The view back end did not answer in time.'],
  Unavailable: [503, 'The server cannot answer just now. Try again.'],
  InsufficientStorage: [507, 'The server has no storage space left for this. Reading and deleting still work.'],
} as const satisfies Record<string, readonly [status: number, message: string]>;

export type ErrorCode = keyof typeof errorTable;

/** An error response with the status, code and message of the table; the only error class that reaches clients. */
export class ApiError extends Error {
  readonly code: ErrorCode;
  readonly status: number;
  readonly target: string | undefined;
  readonly details: readonly ErrorDetail[] | undefined;
  /** Additional response headers, such as `retry-after` (seconds, an integer). */
  readonly headers: Readonly<Record<string, string>>;
  /** Siblings of `code` on the wire: `objectIds` or `conflictingLocks` of lock errors. */
  readonly siblings: Readonly<Record<string, unknown>>;

  constructor(
    code: ErrorCode,
    more: {
      message?: string;
      target?: string;
      details?: readonly ErrorDetail[];
      headers?: Record<string, string>;
      siblings?: Record<string, unknown>;
      cause?: unknown;
    } = {},
  ) {
    const [status, message] = errorTable[code];
    super(more.message ?? message, { cause: more.cause });
    this.name = 'ApiError';
    this.code = code;
    this.status = status;
    this.target = more.target;
    this.details = more.details;
    this.headers = more.headers ?? {};
    this.siblings = more.siblings ?? {};
  }

  /** The body on the wire. Rule of the API: simple errors carry no `details` at all, not an empty list. */
  toBody(): { error: { code: string; message: string; target?: string; details?: readonly ErrorDetail[] } } {
    return {
      error: {
        code: this.code,
        message: this.message,
        ...(this.target !== undefined && { target: this.target }),
        ...(this.details !== undefined && { details: this.details }),
        ...this.siblings,
      },
    };
  }
}

/** Details of errors in bodies and parameters, in the wording that clients expect. */
export const detail = {
  missingProperty: (target: string, message = 'Required property is missing.'): ErrorDetail => ({
    code: 'MissingRequiredProperty',
    message,
    target,
  }),
  missingParameter: (target: string): ErrorDetail => ({
    code: 'MissingRequiredParameter',
    message: 'Required parameter is missing.',
    target,
  }),
  invalidValue: (target: string, message: string): ErrorDetail => ({ code: 'InvalidValue', message, target }),
  unknownOption: (name: string): ErrorDetail => ({
    code: 'InvalidParameter',
    message: `'${name}' is not a query option of this operation.`,
    target: name,
  }),
  invalidBody: (): ErrorDetail => ({
    code: 'InvalidRequestBody',
    message: 'Failed to parse request body. Make sure it is a valid JSON.',
  }),
  bodyTooDeep: (limit: number): ErrorDetail => ({
    code: 'InvalidRequestBody',
    message: `The request body is nested more than ${limit} levels deep.`,
  }),
  tooManyPixels: (target?: string): ErrorDetail => ({
    code: 'InvalidRequestBody',
    message: `The picture has too many pixels. A PNG may have ${maxPixels.png}, a JPEG ${maxPixels.jpeg}.`,
    ...(target !== undefined && { target }),
  }),
  contentType: (given: string, ...supported: string[]): ErrorDetail => ({
    code: 'InvalidHeaderValue',
    message: `'${given}' is not supported 'content-type'. Supported media ${supported.length === 1 ? 'type is' : 'types are'} ${supported.map((type) => `'${type}'`).join(', ')}.`,
    target: 'content-type',
  }),
  idempotencyKey: (message: string): ErrorDetail => ({
    code: 'InvalidHeaderValue',
    message,
    target: 'Idempotency-Key',
  }),
  exclusiveProperties: (names: readonly string[]): ErrorDetail => ({
    code: 'MutuallyExclusivePropertiesProvided',
    message: `Only one of the following properties can be provided: ${names.map((name) => `'${name}'`).join(', ')}.`,
  }),
  exclusiveParameters: (names: readonly string[]): ErrorDetail => ({
    code: 'MutuallyExclusiveParametersProvided',
    message: `Only one of the following parameters can be provided: ${names.map((name) => `'${name}'`).join(', ')}.`,
  }),
};
