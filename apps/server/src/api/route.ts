import type { Readable } from 'node:stream';
import type { FastifyReply } from 'fastify';
import type { Static, TSchema } from '../jsonSchema.ts';
import type {
  IModelAccess,
  IModelRequirement,
  ITwinAccess,
  ITwinOfIModel,
  ITwinRequirement,
} from '../access/permissions.ts';
import type { Caller, IModelPermission, Permission } from '../domain.ts';
import type { ErrorCode, ErrorDetail, ApiError } from '../errors.ts';
import type { Services } from '../services.ts';
import type { MadeTable } from '../idempotency/made.ts';
import type { Links } from './links.ts';

/**
 * Who may call a route. Declared beside it; the server checks it before the handler runs, and the permission matrix test
 * and the API document are generated from it.
 */
export type Access =
  /** The iModel in the path. `level: 'iTwin'`: rule of the API that iModel-level permissions do not count here. */
  | {
      on: 'imodel';
      permission: IModelPermission;
      level: 'iModel' | 'iTwin';
      /** A further rule that the handler checks, described for the API document. */
      also?: string;
      /**
       * Why the route accepts an iModel that is not initialized. If absent, the answer is 409 `iModelNotInitialized`,
       * because until then an iModel may refer to the files of its source.
       */
      beforeInitialized?: string;
      /** The answer contains data about the users of the iModel, which holders of a share must not see. */
      personal?: true;
    }
  /** The iTwin in the path, the query or the body. `member`: everyone who can access it. */
  | { on: 'itwin'; permission: Permission | 'member'; from: 'path' | 'query' | 'body' }
  /** Anyone with a valid token. */
  | { on: 'caller' };

interface RouteResponse {
  status: 200 | 201 | 202 | 204;
  description: string;
  schema?: TSchema;
  /** Media type of an answer that is not JSON. */
  binary?: string;
  headers?: Record<string, string>;
}

/**
 * Requires a permission in addition to the access of the route. It is checked immediately, and again in each
 * transaction of the request.
 * @throws ApiError
 */
export interface RequireAccess {
  (requirement: ITwinRequirement): Promise<ITwinAccess>;
  (requirement: IModelRequirement): Promise<IModelAccess>;
}

/** The argument of a handler. */
export interface Call<Body, Query> {
  caller: Caller;
  params: Record<string, string>;
  body: Body;
  query: Query;
  /** The query as received, for links to other pages. */
  rawQuery: Record<string, unknown>;
  /** Rule of the API: lists return minimal representations unless the request has `Prefer: return=representation`. */
  representation: boolean;
  links: Links;
  services: Services;
  requireAccess: RequireAccess;
  /** Like `requireAccess`, for an iTwin that may be the one of the iModel in the path, which is not read twice. */
  requireTarget: (requirement: ITwinRequirement) => Promise<ITwinAccess<ITwinOfIModel>>;
  reply: FastifyReply;
  /** Creates the 422 of the operation from details. */
  invalid: (details: ErrorDetail[]) => ApiError;
}
export type IModelCall<Body, Query> = Call<Body, Query> & { access: IModelAccess };
export type ITwinCall<Body, Query> = Call<Body, Query> & { access: ITwinAccess };

/** The kind of an object that a request creates, and where the answer has its id. */
export interface Made {
  table: MadeTable;
  idIn: (body: unknown, headers: Readonly<Record<string, string>>) => string;
}

interface RouteBase<Body extends TSchema, Query extends TSchema> {
  /** The name of the operation in the API's documentation. */
  operationId: string;
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  tag: string;
  summary: string;
  description?: string;
  /** Message of the operation's 422. */
  invalid: string;
  body?: Body;
  /**
   * The body is a file of one of these media types with at most `limit` bytes. The handler receives it as a Buffer.
   * `tooLarge` is the message of the 413.
   */
  file?: { types: readonly string[]; limit: number; tooLarge?: string };
  /** Accepted media types of the JSON body; `application/json` by default. */
  bodyTypes?: readonly string[];
  /** An empty body counts as `{}`. */
  bodyOptional?: boolean;
  query?: Query;
  /** Accepts `Prefer: return=minimal|representation`. */
  prefer?: boolean;
  /**
   * A call that only reads, whatever its method: shares may use it, no space is needed, no idempotency key counts, and the
   * rate limits do not count it, because one view takes hundreds of calls. The handler limits them itself.
   */
  reads?: true;
  response: RouteResponse;
  /** POST: the kind of the created object, if it has a name or address by which a repeated request can find it. */
  made?: Made;
  /** Code of the 404 for an iTwin that the caller cannot access, if it differs from the usual one. */
  iTwinNotFound?: ErrorCode;
  /** Error codes in addition to those that follow from access, body and query. */
  errors?: readonly ErrorCode[];
}

export interface IModelRoute<Body extends TSchema = TSchema, Query extends TSchema = TSchema> extends RouteBase<
  Body,
  Query
> {
  access: Extract<Access, { on: 'imodel' }>;
  handler(call: IModelCall<Static<Body>, Static<Query>>): Promise<unknown>;
}
export interface ITwinRoute<Body extends TSchema = TSchema, Query extends TSchema = TSchema> extends RouteBase<
  Body,
  Query
> {
  access: Extract<Access, { on: 'itwin' }>;
  handler(call: ITwinCall<Static<Body>, Static<Query>>): Promise<unknown>;
}
export interface CallerRoute<Body extends TSchema = TSchema, Query extends TSchema = TSchema> extends RouteBase<
  Body,
  Query
> {
  access: Extract<Access, { on: 'caller' }>;
  handler(call: Call<Static<Body>, Static<Query>>): Promise<unknown>;
}

/** Any route. The types of its body and query are checked at its declaration and erased here. */
export type Route = RouteBase<TSchema, TSchema> & {
  access: Access;
  handler(call: Call<unknown, unknown> & { access?: IModelAccess | ITwinAccess }): Promise<unknown>;
};

/** An answer with a status, headers and a body of its own, for routes that speak another protocol. */
export class RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: Buffer | string | Readable;

  constructor(status: number, headers: Readonly<Record<string, string>>, body: Buffer | string | Readable) {
    this.status = status;
    this.headers = headers;
    this.body = body;
  }
}

/** Whether a route changes nothing. */
export function onlyReads({ method, reads }: Pick<Route, 'method' | 'reads'>): boolean {
  return method === 'GET' || reads === true;
}

/** Declares a route on an iModel: `/imodels/:iModelId…`. */
export function imodelRoute<Body extends TSchema, Query extends TSchema>(route: IModelRoute<Body, Query>): Route {
  return route;
}

/** Declares a route on an iTwin. */
export function itwinRoute<Body extends TSchema, Query extends TSchema>(route: ITwinRoute<Body, Query>): Route {
  return route;
}

/** Declares a route for anyone with a valid token. */
export function callerRoute<Body extends TSchema, Query extends TSchema>(route: CallerRoute<Body, Query>): Route {
  return route;
}

/** Whether a route requires an initialized iModel. This is the default; each exception declares its reason. */
export function needsInitialized(access: Access): boolean {
  return access.on === 'imodel' && access.beforeInitialized === undefined;
}

/** Whether a route refuses shares although it only reads. */
export function isPersonal(access: Access): boolean {
  return access.on === 'imodel' && access.personal === true;
}

/**
 * Code of the 404 if the caller may not see the iTwin. Rule of the API: the code of the requested resource, if it has
 * one.
 */
export function iTwinNotFoundOf(route: Route): ErrorCode {
  return route.iTwinNotFound ?? (route.path.startsWith('/accesscontrol') ? 'ItwinNotFound' : 'iTwinNotFound');
}

export function validationErrorOf(route: Route): ErrorCode {
  if (route.path.startsWith('/users')) return 'InvalidUsersRequest';
  if (route.path.startsWith('/itwins')) return 'InvalidiTwinsRequest';
  if (/^\/accesscontrol\/itwins\/:iTwinId\/groups\b/.test(route.path)) return 'InvalidiTwinsGroupRequest';
  return route.path.startsWith('/accesscontrol') ? 'InvalidAccessControlRequest' : 'InvalidiModelsRequest';
}
