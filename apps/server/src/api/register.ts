import { setImmediate as nextTurn } from 'node:timers/promises';
import type { FastifyError, FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import secureJson from 'secure-json-parse';
import { Type } from '../jsonSchema.ts';
import { TooManyError } from '../access/addressLimits.ts';
import {
  Permissions,
  requireMet,
  type IModelAccess,
  type ITwinAccess,
  type ITwinOfIModel,
  type ITwinRequirement,
  type MetRequirement,
  type Requirement,
} from '../access/permissions.ts';
import { limitExceeded } from '../access/rateLimits.ts';
import { RefusedToken, type RefusalLog } from '../access/refusedToken.ts';
import type { Tx } from '../db/database.ts';
import { withGuard } from '../db/guards.ts';
import { onBehalfOf, type Party } from '../db/postgres/connectionLimits.ts';
import { parseGuid, type Caller, type HeldShare } from '../domain.ts';
import { ApiError, detail, type ErrorCode, type ErrorDetail } from '../errors.ts';
import { outageError, outageOf } from '../outages.ts';
import { timedBody } from '../http/timedBody.ts';
import { continueIfExpected, hasBody } from '../http/unreadBodies.ts';
import { QuotaExceededError } from '../quotas/quotas.ts';
import type { Services } from '../services.ts';
import { registerAbsent } from './absent.ts';
import { baseUrlOf } from './baseUrl.ts';
import { shapeOf, type JsonShape } from './jsonShape.ts';
import { linkClientOf, Links } from './links.ts';
import { answerAgain, answerUnlessLost, answerWithKey, faultOfKey, idempotencyKeyOf, keptAnswer } from './repeats.ts';
import {
  isPersonal,
  iTwinNotFoundOf,
  needsInitialized,
  onlyReads,
  RawAnswer,
  validationErrorOf,
  type Call,
  type RequireAccess,
  type Route,
} from './route.ts';
import { decodeUtf8, isUtf8Type, undecodable } from './text.ts';
import { answerCheck, bodyCheck, parameterCheck, parameterNames } from './validation.ts';

/** State that the hooks of a request pass to its handler. */
interface RequestState {
  caller: Caller;
  access: IModelAccess | ITwinAccess | undefined;
  /** The permissions checked so far. Each transaction of the request checks them again. */
  met: MetRequirement[];
  body: unknown;
  /** The body was still being received when the permissions were checked. */
  cameLate?: boolean;
  /** Why the caller is refused, if the request may repeat one that was accepted. */
  refusal?: ApiError;
}
const states = new WeakMap<FastifyRequest, RequestState>();

/** Maximum nesting depth of a body; bodies of the API have at most 5 levels. */
const maxDepth = 32;
/** Maximum number of values in a body: the largest one of the API has 1,000 entries of 7 values. */
const maxValues = 20_000;

/** Options for embedders and tests. */
export interface RegisterOptions {
  /** Validates every response against its declared schema; used by the tests. */
  checkResponses?: boolean;
}

/**
 * Registers the declared routes. The order of refusals is the same everywhere: token (401), rate limit (429), what the
 * path names (404, then 403), body and parameters (422), an iModel that is not initialized (409), what body and
 * parameters name (404, 403), and then the rules of the handler. A caller without access therefore learns nothing about
 * an iModel from the validation of a body.
 */
export function registerRoutes(
  app: FastifyInstance,
  services: Services,
  routes: readonly Route[],
  options: RegisterOptions,
): void {
  app.removeAllContentTypeParsers();
  // Bodies are read as raw bytes and parsed per route, because the API words its errors per operation.
  app.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => done(null, body));
  app.addHook('preParsing', (request, reply, _payload, done) => {
    // A body that is too long is refused before the client sends it.
    if (!(Number(request.headers['content-length']) > request.routeOptions.bodyLimit))
      continueIfExpected(request.raw, reply.raw);
    if (request.raw.complete || !hasBody(request.raw)) done();
    else done(null, timedBody(request.raw, reply.raw, services.config.requests.bodySeconds * 1000));
  });
  app.setErrorHandler((error, request, reply) => sendError(error as Error, request, reply));
  for (const route of routes) registerRoute(app, services, route, options);
  registerAbsent(app);
}

function registerRoute(app: FastifyInstance, services: Services, route: Route, options: RegisterOptions): void {
  const invalid = (details: ErrorDetail[]): ApiError =>
    new ApiError(validationErrorOf(route), { message: route.invalid, details });
  // On SQLite nothing waits for a connection.
  const attributed: Attributed =
    services.database.engine === 'postgres'
      ? (state, work) => onBehalfOf(partyOf(state), work)
      : (_state, work) => work();
  const checkNames = parameterNames(route.query);
  const checkQuery = parameterCheck(route.query ?? Type.Object({}));
  const checkBody = route.body === undefined ? undefined : bodyCheck(route.body);
  const checkAnswer =
    options.checkResponses === true && route.response.schema !== undefined
      ? answerCheck(route.response.schema)
      : undefined;

  /**
   * Defers a refusal if the request has a known idempotency key: whether it repeats the original request depends on its
   * body.
   */
  const unlessRepeated = async (
    request: FastifyRequest,
    state: RequestState,
    check: () => Promise<void>,
  ): Promise<void> => {
    try {
      await check();
    } catch (error) {
      const key = idempotencyKeyOf(request, route);
      if (
        !(error instanceof ApiError) ||
        key === undefined ||
        !(await services.repeatableRequests.knows(key, state.caller))
      )
        throw error;
      state.refusal = error;
    }
  };

  /** Checks access to the resource in the path before the body is read, and again if receiving the body took long. */
  const judge = async (request: FastifyRequest, state: RequestState): Promise<void> => {
    // The parser calls this with the headers. A short body has usually arrived with them, and is parsed before the next turn:
    // then nothing is checked twice, and no timer is needed for the body.
    if (hasBody(request.raw) && !request.raw.complete) await nextTurn();
    // Before the permissions are read: a body that ends during the read may end after they were revoked.
    state.cameLate = hasBody(request.raw) && !request.raw.complete;
    if (route.method === 'POST')
      await unlessRepeated(request, state, async () => {
        state.access = await accessByPath(services, route, state, request);
      });
    else state.access = await accessByPath(services, route, state, request);
  };

  const admit = async (request: FastifyRequest, state: RequestState): Promise<void> => {
    const { caller } = state;
    if (caller.share === undefined) {
      if (!services.users.isRemembered(caller.user)) await services.users.remember(caller.user);
    }
    // Rule of shares: a share permits reading the model. Changes, and data about people, require a user.
    else if (!onlyReads(route) || isPersonal(route.access))
      throw await refusalOfHolder(services, route, caller, caller.share);
    await judge(request, state);
  };

  /** Checks parameters and body. @throws ApiError */
  const validate = (request: FastifyRequest, state: RequestState): void => {
    const details = [
      ...faultOfKey(idempotencyKeyOf(request, route)),
      ...faultsOfEncoding(request.query),
      ...checkNames(request.query as Record<string, unknown>),
      ...checkQuery(request.query),
    ];
    if (route.body !== undefined) {
      state.body = parseBody(request, route, invalid);
      details.push(...(checkBody?.(state.body) ?? []));
    }
    if (route.file !== undefined) state.body = parseFile(request, route.file, invalid);
    if (details.length > 0) throw invalid(details);
    if (needsInitialized(route.access) && (state.access as IModelAccess).imodel.state !== 'initialized')
      throw new ApiError('iModelNotInitialized');
  };

  const prepare = async (request: FastifyRequest, state: RequestState): Promise<void> => {
    // The caller may have lost the token or permissions while the body was received.
    if (state.cameLate === true) {
      state.caller = await authenticated(services, request, route);
      state.met = [];
      delete state.refusal;
      await attributed(state, () => judge(request, state));
    }
    if (state.refusal !== undefined) return;
    validate(request, state);
    if (route.access.on === 'itwin' && route.access.from !== 'path') {
      const { from, permission } = route.access;
      const named = (from === 'query' ? request.query : state.body) as { iTwinId: string };
      await attributed(state, () =>
        unlessRepeated(request, state, async () => {
          state.access = await meetOrNote(services, route, state, {
            on: 'itwin',
            id: named.iTwinId,
            permission,
            notFound: iTwinNotFoundOf(route),
          });
        }),
      );
    }
    if (!onlyReads(route)) await requireSpace(services, route);
  };

  app.route({
    method: route.method,
    url: route.path,
    ...(route.file !== undefined && { bodyLimit: route.file.limit }),
    // Without a schema: the server validates separately, with the error messages of the API (`document.ts` describes the routes).
    config: { operationId: route.operationId },

    // The HTTP layer refuses a malformed content type, but the error must be the one of the operation.
    errorHandler: (error, request, reply) => {
      const malformed = error.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE';
      const types = route.file?.types ?? route.bodyTypes ?? ['application/json'];
      const tooLarge = error.statusCode === 413 ? route.file?.tooLarge : undefined;
      if (tooLarge !== undefined) sendError(new ApiError('RequestTooLarge', { message: tooLarge }), request, reply);
      else
        sendError(
          malformed
            ? invalid([detail.contentType((request.headers['content-type'] ?? '').slice(0, 100), ...types)])
            : error,
          request,
          reply,
        );
    },

    onRequest: async (request) => {
      const caller =
        services.tokens.known(request.headers.authorization) ?? (await authenticated(services, request, route));
      const counting = route.reads === true ? undefined : services.rateLimits.count(caller, route.operationId);
      if (counting !== undefined) await counting;
      const state: RequestState = { caller, access: undefined, met: [], body: undefined };
      states.set(request, state);
      await attributed(state, () => admit(request, state));
    },

    preHandler: (request, _reply, done) => {
      const state = states.get(request) as RequestState;
      const isNamedLater = route.access.on === 'itwin' && route.access.from !== 'path';
      // Most reads have nothing to wait for here.
      if (state.cameLate === true || isNamedLater || route.method !== 'GET')
        prepare(request, state).then(() => done(), done);
      else {
        validate(request, state);
        done();
      }
    },

    handler: onItsBehalf(attributed, async (request, reply, state) => {
      const { caller, access, body, refusal } = state;
      const rawQuery = request.query as Record<string, unknown>;
      const links = new Links(
        baseUrlOf(request, services.config),
        linkClientOf(request),
        services.signedLinks,
        services.blobs,
        caller.share,
      );
      const call: Call<unknown, unknown> & { access?: IModelAccess | ITwinAccess } = {
        caller,
        params: request.params as Record<string, string>,
        body,
        query: rawQuery,
        rawQuery,
        representation:
          request.headers['prefer'] !== undefined &&
          /\breturn=representation\b/.test(String(request.headers['prefer'])),
        links,
        services,
        requireAccess: ((requirement: Requirement) => meet(services, state, requirement)) as RequireAccess,
        requireTarget: (requirement) => meetTarget(services, state, requirement),
        reply,
        invalid,
        ...(access !== undefined && { access }),
      };
      const handle = async (): Promise<unknown> => {
        // A request that waited in a queue or for a lock is subject to the permissions at the time of execution.
        const guard = (tx: Tx): Promise<void> => new Permissions(tx).requireStill(caller, state.met);
        let answer: unknown;
        try {
          answer = await withGuard(guard, () => route.handler(call));
        } catch (error) {
          if (error instanceof ApiError && refusingCodes.includes(error.code))
            await noteRefusal(services, route, caller, access, error);
          throw error instanceof QuotaExceededError ? invalid([error.detail]) : error;
        }
        const faults = checkAnswer?.(answer) ?? [];
        if (faults.length > 0)
          throw new Error(`${route.operationId} answers against its own schema: ${JSON.stringify(faults)}`);
        return answer;
      };
      const key = idempotencyKeyOf(request, route);
      // The answers to other requests are not kept, so nothing is prepared for that.
      if (key !== undefined || route.made !== undefined) {
        const identity = {
          caller,
          operationId: route.operationId,
          url: request.url,
          body: (request.body as Buffer | undefined) ?? Buffer.alloc(0),
        };
        const repeatable = {
          services,
          route,
          request,
          reply,
          links,
          identity,
          invalid,
          handle: async () => keptAnswer(route, reply, await handle(), links),
        };
        if (key !== undefined && refusal !== undefined) return answerAgain(key, refusal, repeatable);
        if (key !== undefined) return answerWithKey(key, repeatable);
        if (route.made !== undefined) return answerUnlessLost(route.made, repeatable);
      }
      const answer = await handle();
      if (answer instanceof RawAnswer) return reply.code(answer.status).headers(answer.headers).send(answer.body);
      reply.code(route.response.status);
      if (route.response.binary !== undefined) reply.type(route.response.binary);
      return answer === undefined ? reply.send() : reply.send(answer);
    }),
  });
}

/** Authenticates the caller. Refused tokens count against the client's address; after too many, tokens are not checked at all. */
async function authenticated(
  { tokens, addressLimits, refusalLog }: Services,
  request: FastifyRequest,
  route: Route,
): Promise<Caller> {
  const { authorization } = request.headers;
  try {
    if (!tokens.isKnown(authorization)) await addressLimits.requireFew(request.ip);
    return await tokens.authenticate(authorization);
  } catch (error) {
    if (error instanceof TooManyError) throw limitExceeded(error.waitSeconds, route.operationId);
    if (error instanceof ApiError && error.status === 401) {
      if (error.cause instanceof RefusedToken) logRefusal(refusalLog, error.cause, request);
      await addressLimits.countRefused(request.ip);
    }
    throw error;
  }
}

/** Logs why a token is refused, for the operator. The caller is not told, and the token is never logged. */
function logRefusal(log: RefusalLog, refused: RefusedToken, { log: requestLog, ip }: FastifyRequest): void {
  const { logged, suppressed } = log.next(refused);
  if (!logged) return;
  const { code, issuer, message, remedy } = refused;
  // Every token expires: usually nothing is wrong.
  requestLog[code === 'expired' ? 'info' : 'warn'](
    { reason: code, issuer, remoteAddress: ip, remedy, ...(suppressed > 0 && { notLogged: suppressed }) },
    `token refused: ${message}`,
  );
}

/** Runs database work on behalf of the caller of a request. */
type Attributed = <T>(state: RequestState, work: () => T) => T;

/** Attributes the database work of a handler to the caller, and to the iTwin or iModel of the request. */
function onItsBehalf<T>(
  attributed: Attributed,
  handler: (request: FastifyRequest, reply: FastifyReply, state: RequestState) => Promise<T>,
): (request: FastifyRequest, reply: FastifyReply) => Promise<T> {
  return (request, reply) => {
    const state = states.get(request) as RequestState;
    return attributed(state, () => handler(request, reply, state));
  };
}

/**
 * An iModel or iTwin is charged only if the caller has access to it, so that nobody can exhaust the connections of
 * others. All shares of one creator count as one party, because anyone can create shares.
 */
function partyOf({ caller: { user, share }, access }: RequestState): Party {
  const subject = access === undefined ? undefined : 'imodel' in access ? access.imodel.id : access.itwin.id;
  return {
    organizationId: user.organizationId,
    userId: share === undefined ? user.id : `shares of ${share.creator.id}`,
    subject,
  };
}

/**
 * Disk space of the embedded database: reads need none, deletes may use the reserve, and other requests must leave the
 * minimum free.
 */
async function requireSpace({ database, space }: Services, { method }: Route): Promise<void> {
  if (database.engine !== 'sqlite') return;
  if (method === 'DELETE') await space.makeRoom();
  else if (method !== 'GET') await space.require();
}

/**
 * Checks access to the resource in the path. If the iTwin is in the query or body, access is checked after their
 * validation.
 */
async function accessByPath(
  services: Services,
  route: Route,
  state: RequestState,
  request: FastifyRequest,
): Promise<IModelAccess | ITwinAccess | undefined> {
  const { access } = route;
  const params = request.params as Record<string, string>;
  if (access.on === 'itwin')
    return access.from === 'path'
      ? meetOrNote(services, route, state, {
          on: 'itwin',
          id: params['iTwinId'] ?? '',
          permission: access.permission,
          notFound: iTwinNotFoundOf(route),
        })
      : undefined;
  if (access.on === 'caller') return undefined;
  const found = await meetOrNote(services, route, state, {
    on: 'imodel',
    id: params['iModelId'] ?? '',
    permission: access.permission,
    level: access.level,
  });
  const { caller } = state;
  const { id } = (found as IModelAccess).imodel;
  if (caller.share === undefined && !services.users.isConnected(id, caller.user.id))
    await services.users.connect(id, caller.user.id);
  return found;
}

/** Checks a requirement and records that it is met. @throws ApiError */
async function meet(
  { permissions }: Services,
  { caller, met }: RequestState,
  requirement: Requirement,
): Promise<IModelAccess | ITwinAccess> {
  const access = await permissions.require(caller, requirement);
  met.push({ requirement, access });
  return access;
}

/** Like `meet`; the iTwin of the iModel in the path was read together with that. @throws ApiError */
async function meetTarget(
  services: Services,
  state: RequestState,
  requirement: ITwinRequirement,
): Promise<ITwinAccess<ITwinOfIModel>> {
  const { access, met } = state;
  if (access === undefined || !('onITwin' in access) || access.onITwin.itwin.id !== parseGuid(requirement.id))
    return meet(services, state, requirement) as Promise<ITwinAccess>;
  const target = requireMet(access.onITwin, requirement);
  met.push({ requirement, access: target });
  return target;
}

/** Like `meet`, for the requirement of the route; a refusal is written to the audit log. @throws ApiError */
async function meetOrNote(
  services: Services,
  route: Route,
  { caller, met }: RequestState,
  requirement: Requirement,
): Promise<IModelAccess | ITwinAccess> {
  const found = await services.permissions.find(caller, requirement);
  try {
    const access = requireMet(found, requirement);
    met.push({ requirement, access });
    return access;
  } catch (error) {
    if (error instanceof ApiError) await noteRefusal(services, route, caller, found, error);
    throw error;
  }
}

/**
 * Codes with which handlers refuse missing permissions: on a part of the resource in the path, or on an iTwin or iModel
 * in the body.
 */
const refusingCodes: readonly ErrorCode[] = [
  'InsufficientPermissions',
  'iTwinNotFound',
  'ItwinNotFound',
  'iModelNotFound',
];

/**
 * Writes a refusal to the audit log.
 * @param subject the iModel or iTwin of the request if it exists, whether or not the caller may see it
 */
async function noteRefusal(
  services: Services,
  route: Route,
  caller: Caller,
  subject: IModelAccess | ITwinAccess | undefined,
  { code }: ApiError,
): Promise<void> {
  if (subject === undefined) return;
  const { iTwinId, iModelId } =
    'imodel' in subject
      ? { iTwinId: subject.imodel.itwin_id, iModelId: subject.imodel.id }
      : { iTwinId: subject.itwin.id, iModelId: undefined };
  await services.refusals.note(caller, { operationId: route.operationId, code, iTwinId, iModelId });
}

/** Refuses an operation that no share permits, and writes the refusal to the audit log of its iModel. */
async function refusalOfHolder(services: Services, route: Route, caller: Caller, share: HeldShare): Promise<ApiError> {
  const refusal = new ApiError('InsufficientPermissions');
  await noteRefusal(services, route, caller, await services.permissions.byShare(share, share.iModelId), refusal);
  return refusal;
}

function parseFile(
  request: FastifyRequest,
  { types }: NonNullable<Route['file']>,
  invalid: (details: ErrorDetail[]) => ApiError,
): Buffer {
  const given = request.headers['content-type'];
  if (given === undefined)
    throw invalid([{ code: 'MissingRequiredHeader', message: 'Required header is missing.', target: 'content-type' }]);
  if (!types.includes(given.split(';')[0]?.trim().toLowerCase() ?? ''))
    throw invalid([detail.contentType(given.slice(0, 100), ...types)]);
  return (request.body as Buffer | undefined) ?? Buffer.alloc(0);
}

function parseBody(request: FastifyRequest, route: Route, invalid: (details: ErrorDetail[]) => ApiError): unknown {
  const body = request.body as Buffer | undefined;
  const empty = body === undefined || body.length === 0;
  if (empty && route.bodyOptional === true) return {};
  if (empty) throw new ApiError('MissingRequestBody');
  const given = request.headers['content-type'] ?? '';
  const types = route.bodyTypes ?? ['application/json'];
  if (!types.includes(given.split(';')[0]?.trim().toLowerCase() ?? ''))
    throw invalid([detail.contentType(given.slice(0, 100), ...types)]);
  let value: unknown;
  try {
    // Rule of JSON: the encoding is UTF-8. Lenient decoding of other bytes would silently store different names.
    const text = isUtf8Type(given) ? decodeUtf8(body) : undefined;
    if (text === undefined) throw new SyntaxError('the body is not UTF-8');
    requireShape(shapeOf(text), invalid);
    value = secureJson.parse(text);
  } catch (error) {
    if (error instanceof ApiError) throw error;
    throw invalid([isUtf8Type(given) ? detail.invalidBody() : detail.contentType(given.slice(0, 100), ...types)]);
  }
  const isList = (route.body as { type?: string } | undefined)?.type === 'array';
  if (typeof value !== 'object' || value === null || Array.isArray(value) !== isList)
    throw invalid([detail.invalidBody()]);
  return value;
}

/** Refuses a body with deeper nesting or more values than any request of the API has. @throws ApiError */
function requireShape({ depth, values }: JsonShape, invalid: (details: ErrorDetail[]) => ApiError): void {
  if (depth > maxDepth) throw invalid([detail.bodyTooDeep(maxDepth)]);
  if (values > maxValues)
    throw new ApiError('RequestTooLarge', {
      message: `The request body holds too many values. Maximum allowed number of values is ${maxValues}.`,
    });
}

/** Errors for parameters that are not valid UTF-8: lenient decoding would change their values. */
function faultsOfEncoding(query: unknown): ErrorDetail[] {
  const names = (query as { [undecodable]?: string[] })[undecodable] ?? [];
  return names.map((name) =>
    detail.invalidValue(name, `Provided '${name}' value is not valid. It must be UTF-8 in percent-encoding.`),
  );
}

/**
 * Answers an error. API errors are sent unchanged, errors of the HTTP layer in the API's envelope. Anything else is a
 * server error: it is logged, and the response contains no internal details.
 */
export function sendError(error: Error, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const outage = error instanceof ApiError ? undefined : outageOf(error);
  const known =
    error instanceof ApiError
      ? error
      : outage !== undefined
        ? outageError(outage, error)
        : fromHttpLayer(error, request);
  if (known.status >= 500)
    request.log.error({ err: known.cause ?? error, url: request.url.split('?')[0] }, 'request failed');
  return reply
    .code(known.status)
    .headers(known.headers)
    .type('application/json; charset=utf-8')
    .send(JSON.stringify(known.toBody()));
}

function fromHttpLayer(error: Error, request: FastifyRequest): ApiError {
  const { statusCode } = error as FastifyError;
  if (statusCode === 413)
    return new ApiError('RequestTooLarge', {
      message: `Request body is too large. Maximum allowed request body size is ${request.routeOptions.bodyLimit} bytes.`,
    });
  if (statusCode !== undefined && statusCode >= 400 && statusCode < 500)
    return new ApiError('BadRequest', { cause: error });
  return new ApiError('Unknown', { cause: error });
}
