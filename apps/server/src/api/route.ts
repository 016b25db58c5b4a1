import type { FastifyReply } from 'fastify';
import type { Static, TSchema } from 'typebox';
import type { IModelAccess, IModelRequirement, ITwinAccess, ITwinRequirement } from '../access/permissions.ts';
import type { Caller, IModelPermission, Permission } from '../domain.ts';
import type { ErrorCode, ErrorDetail } from '../errors.ts';
import type { ApiError } from '../errors.ts';
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
      /** A further rule that the handler checks, in words for the document. */
      also?: string;
      /**
       * Why the route answers for an iModel that is not initialized (yet, or ever). Absent: it answers 409
       * `iModelNotInitialized` then, because until that moment an iModel may refer to the files of its source.
       */
      beforeInitialized?: string;
      /** Tells who works on the iModel and how, which is nothing for holders of a share. */
      personal?: true;
    }
  /** The iTwin named in the path, in the query or in the body. `member` = everyone who can access it. */
  | { on: 'itwin'; permission: Permission | 'member'; from: 'path' | 'query' | 'body' }
  /** Anyone with a valid token. */
  | { on: 'caller' };

interface RouteResponse {
  status: 200 | 201 | 202 | 204;
  description: string;
  schema?: TSchema;
  /** Media type of an answer that is no JSON. */
  binary?: string;
  headers?: Record<string, string>;
}

/** Requires something of the caller besides the route's own access. It is judged at once, and again in each transaction of the request. @throws ApiError */
export interface RequireAccess {
  (requirement: ITwinRequirement): Promise<ITwinAccess>;
  (requirement: IModelRequirement): Promise<IModelAccess>;
}

/** What a handler is given. */
export interface Call<Body, Query> {
  caller: Caller;
  params: Record<string, string>;
  body: Body;
  query: Query;
  /** The query as it came, for links that lead to other pages. */
  rawQuery: Record<string, unknown>;
  /** Rule of the API: lists answer their short form unless `Prefer: return=representation` is sent. */
  representation: boolean;
  links: Links;
  services: Services;
  requireAccess: RequireAccess;
  reply: FastifyReply;
  /** Makes the operation's own 422 out of details. */
  invalid: (details: ErrorDetail[]) => ApiError;
}
export type IModelCall<Body, Query> = Call<Body, Query> & { access: IModelAccess };
export type ITwinCall<Body, Query> = Call<Body, Query> & { access: ITwinAccess };

interface RouteBase<Body extends TSchema, Query extends TSchema> {
  /** The API's own name of the operation. */
  operationId: string;
  method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  path: string;
  tag: string;
  summary: string;
  description?: string;
  /** Message of the operation's 422. */
  invalid: string;
  body?: Body;
  /** The body is a file of one of these media types, at most `limit` bytes; the handler gets it as a Buffer. `tooLarge` is the message of its 413. */
  file?: { types: readonly string[]; limit: number; tooLarge?: string };
  /** Media types that the JSON body may come as; `application/json` by default. */
  bodyTypes?: readonly string[];
  /** An empty body counts as `{}`. */
  bodyOptional?: boolean;
  query?: Query;
  /** Takes `Prefer: return=minimal|representation`. */
  prefer?: boolean;
  response: RouteResponse;
  /** POST: the kind of the created object, if it has a name or address by which a repeated request can find it. */
  made?: { table: MadeTable; idIn: (body: unknown, headers: Readonly<Record<string, string>>) => string };
  /** Code of the 404 for an iTwin that the caller cannot access, if it differs from the usual one. */
  iTwinNotFound?: ErrorCode;
  /** Refusals besides those that follow from access, body and query. */
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

/** Any route, its types of body and query checked where it was declared and no longer needed. */
export type Route = RouteBase<TSchema, TSchema> & {
  access: Access;
  handler(call: Call<unknown, unknown> & { access?: IModelAccess | ITwinAccess }): Promise<unknown>;
};

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
