import type { FastifyReply, FastifyRequest } from 'fastify';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import { stateOfMade } from '../idempotency/made.ts';
import {
  KeyReusedError,
  type KeptAnswer,
  type RequestIdentity,
  type UploadPlace,
} from '../idempotency/repeatableRequests.ts';
import type { Services } from '../services.ts';
import type { Links } from './links.ts';
import type { Made, Route } from './route.ts';

/** Visible ASCII characters, so that a key is the same in every client and log. */
const keyPattern = /^[\x21-\x7e]{1,255}$/;
export const keyDescription =
  'Makes the request safe to repeat: for 24 hours the same key with the same request gets the first answer again. 1 to 255 visible ASCII characters; a new UUID for each request.';

/** The idempotency key of a request; undefined if it has none or must not have one. */
export function idempotencyKeyOf(request: FastifyRequest, route: Route): string | undefined {
  const key = request.headers['idempotency-key'];
  return route.method !== 'POST' || route.reads === true || key === undefined ? undefined : String(key);
}

/** Why a key is invalid. */
export function faultOfKey(key: string | undefined): ErrorDetail[] {
  if (key === undefined || keyPattern.test(key)) return [];
  return [
    detail.idempotencyKey(
      "Provided 'Idempotency-Key' value is not valid. It must have 1 to 255 visible ASCII characters.",
    ),
  ];
}

const keyReused = detail.idempotencyKey(
  "Provided 'Idempotency-Key' value is not valid. It was sent with another request before.",
);

export interface Repeatable {
  services: Services;
  route: Route;
  request: FastifyRequest;
  reply: FastifyReply;
  links: Links;
  identity: RequestIdentity;
  invalid: (details: ErrorDetail[]) => ApiError;
  /** Executes the request. */
  handle: () => Promise<KeptAnswer>;
}

/** Answers a request with a key: executes it, or returns its stored answer. */
export async function answerWithKey(
  key: string,
  { services, route, reply, links, identity, invalid, handle }: Repeatable,
): Promise<FastifyReply> {
  const refusable = async (): Promise<KeptAnswer> => {
    try {
      return await handle();
    } catch (error) {
      // Refusals are stored too; server errors are not, so repeating the request is a new attempt.
      if (error instanceof ApiError && error.status < 500)
        return { status: error.status, headers: { ...error.headers }, body: error.toBody(), uploads: [] };
      throw error;
    }
  };
  try {
    const { answer, repeated } = await services.repeatableRequests.once(
      key,
      identity,
      refusable,
      ({ status }) => status !== 401 && status !== 429,
    );
    return await send(reply, route, links, answer, repeated);
  } catch (error) {
    throw error instanceof KeyReusedError ? invalid([keyReused]) : error;
  }
}

/**
 * Answers a repeated request with a key whose caller has lost permission since. The stored answer reveals nothing new,
 * unless it contains upload links, which would grant access.
 * @throws the refusal
 */
export async function answerAgain(
  key: string,
  refusal: ApiError,
  { services, route, reply, links, identity }: Omit<Repeatable, 'handle'>,
): Promise<FastifyReply> {
  const answer = await services.repeatableRequests.answerTo(key, identity).catch((error: unknown) => {
    if (error instanceof KeyReusedError) return undefined;
    throw error;
  });
  if (answer === undefined || answer.uploads.length > 0) throw refusal;
  return send(reply, route, links, answer, true);
}

/**
 * Answers a request without a key. If the connection closes before the answer is sent, the answer is stored for a
 * repeated request, which would otherwise fail with a name conflict with the object that the first request created.
 */
export async function answerUnlessLost(
  made: Made,
  { services, route, request, reply, links, identity, handle }: Repeatable,
): Promise<FastifyReply> {
  const { repeatableRequests, database } = services;
  const stateOf = (answer: KeptAnswer) =>
    stateOfMade(
      database,
      made.table,
      made.idIn(answer.body, answer.headers),
      answer.uploads.map(({ blobId }) => blobId),
    );
  let answer: KeptAnswer | undefined;
  let announced: Promise<void> | undefined;
  const keep = async (lost: KeptAnswer): Promise<void> => {
    const state = await stateOf(lost);
    if (state !== undefined) await repeatableRequests.keepLost(identity, lost, state);
  };
  const failed = (error: unknown): void =>
    request.log.warn({ err: error }, 'cannot keep the answer to a request whose client has gone');
  const onClose = (): void => {
    if (reply.raw.writableFinished) return;
    if (answer === undefined) announced = repeatableRequests.announceLost(identity).catch(failed);
    else void keep(answer).catch(failed);
  };
  // The connection may have closed while the request was read and checked.
  if (reply.raw.destroyed) onClose();
  else reply.raw.once('close', onClose);
  let repeated = false;
  try {
    answer = await handle();
  } catch (error) {
    const lost =
      error instanceof ApiError && error.status === 409
        ? await repeatableRequests.takeLost(identity, stateOf)
        : undefined;
    if (lost === undefined) {
      if (announced !== undefined) await announced.then(() => repeatableRequests.withdrawLost(identity)).catch(failed);
      throw error;
    }
    answer = lost;
    repeated = true;
  }
  const known = answer;
  if (announced !== undefined) await announced.then(() => keep(known)).catch(failed);
  return send(reply, route, links, known, repeated);
}

/** Builds the answer from the result of a handler. */
export function keptAnswer(route: Route, reply: FastifyReply, body: unknown, links: Links): KeptAnswer {
  const headers: Record<string, string> = {};
  for (const name of Object.keys(route.response.headers ?? {})) {
    const value = reply.getHeader(name);
    if (value !== undefined) headers[name.toLowerCase()] = String(value);
  }
  const uploads: UploadPlace[] = [];
  return { status: route.response.status, headers, body: withoutUploads(body, links, [], uploads), uploads };
}

/** Copies the body of an answer without its upload links, and records those in `uploads`. */
function withoutUploads(value: unknown, links: Links, path: readonly string[], uploads: UploadPlace[]): unknown {
  if (typeof value === 'string') {
    const upload = links.uploadAt(value);
    if (upload === undefined) return value;
    uploads.push({ path, ...upload });
    return '';
  }
  if (Array.isArray(value)) return value.map((inner, n) => withoutUploads(inner, links, [...path, String(n)], uploads));
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [key, withoutUploads(inner, links, [...path, key], uploads)]),
  );
}

async function send(
  reply: FastifyReply,
  route: Route,
  links: Links,
  { status, headers, body, uploads }: KeptAnswer,
  repeated: boolean,
): Promise<FastifyReply> {
  const full = uploads.length === 0 ? body : structuredClone(body);
  for (const { path, blobId, fileName } of uploads) {
    const { href } = await links.upload(blobId, fileName);
    const holder = path
      .slice(0, -1)
      .reduce((inner, key) => inner[key] as Record<string, unknown>, full as Record<string, unknown>);
    holder[path.at(-1) as string] = href;
  }
  reply.code(status).headers(headers);
  if (repeated) reply.header('idempotent-replayed', 'true');
  if (route.response.binary !== undefined) reply.type(route.response.binary);
  return full === undefined || full === null ? reply.send() : reply.send(full);
}
