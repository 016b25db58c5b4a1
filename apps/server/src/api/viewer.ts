import type { FastifyRequest } from 'fastify';
import { decodeUtf8 } from './text.ts';
import { Type } from '../jsonSchema.ts';
import { ApiError, detail, type ErrorDetail } from '../errors.ts';
import { maxRequestBytes } from '../viewer/protocol.ts';
import { CallFault, maxParametersInAddress, parseCall, type RpcCall } from '../viewer/rpcCall.ts';
import { imodelRoute, RawAnswer, type IModelCall, type Route } from './route.ts';

const path = '/viewer/rpc/:title/:version/mode/:mode/context/:iTwinId/imodel/:iModelId/changeset/:changeset/:operation';

/** Shared by both routes. The permission is checked before the call is read, as on every route. */
const view = {
  path,
  tag: 'Viewer',
  access: { on: 'imodel', permission: 'imodels_webview', level: 'iModel' },
  invalid: 'Cannot answer the viewer.',
  response: {
    status: 200,
    description: 'The result, in the form of the RPC protocol of iTwin.js.',
    binary: 'text/plain',
  },
  errors: [
    'ChangesetNotFound',
    'CheckpointNotUsable',
    'ViewerNotAvailable',
    'ViewerBackendUnusable',
    'ViewerTimeout',
    'Unavailable',
  ],
  reads: true,
} as const;

/** Headers of the RPC protocol that the back end reads, with the longest values. Names of users and tokens are not passed on. */
const passedOn = { 'x-correlation-id': 100, 'x-protocol-version': 10 } as const;

async function answer(call: IModelCall<unknown, unknown>, text: string): Promise<RawAnswer> {
  const { access, caller, params, services, reply, invalid } = call;
  const rpc = readCall(params, text, invalid);
  if (rpc.iTwinId !== access.imodel.itwin_id)
    throw invalid([detail.invalidValue('iTwinId', 'It must be the iTwin of the iModel.')]);
  const { request } = reply;
  const gone = new AbortController();
  const onClose = (): void => {
    if (!reply.raw.writableFinished) gone.abort(new Error('the client has gone'));
  };
  reply.raw.once('close', onClose);
  const memory = services.viewer.memory.hold(caller.user.id);
  const end = (): void => memory.end();
  reply.raw.once('close', end);
  if (reply.raw.closed) {
    onClose();
    end();
  }
  try {
    const { status, headers, body } = await services.viewer.answer({
      caller,
      imodel: access.imodel,
      store: services.blobs.stores.ofDataCenter(access.onITwin.itwin.data_center).id,
      call: rpc,
      headers: headersOf(request),
      acceptsGzip: /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? '')),
      signal: gone.signal,
      memory,
    });
    return new RawAnswer(
      status,
      { ...headers, vary: 'accept-encoding', 'access-control-expose-headers': exposed },
      body,
    );
  } catch (error) {
    if (!(error instanceof ApiError) || error.code !== 'ViewerBackendUnusable') throw error;
    request.log.error({ err: error.cause }, 'the view back end cannot be used');
    return unusable(error);
  } finally {
    reply.raw.off('close', onClose);
  }
}

/** Front ends of iTwin.js show the message of an error only in the form of their protocol: name and message at the top. */
function unusable(error: ApiError): RawAnswer {
  const body = JSON.stringify({ ...error.toBody(), isError: true, name: error.code, message: error.message });
  return new RawAnswer(error.status, { 'content-type': 'application/json; charset=utf-8' }, body);
}

const exposed = 'X-Protocol-Version, Retry-After';

function readCall(params: Record<string, string>, text: string, invalid: (details: ErrorDetail[]) => Error): RpcCall {
  try {
    return parseCall(params, text);
  } catch (error) {
    throw error instanceof CallFault ? invalid(error.details) : error;
  }
}

function headersOf({ headers, id }: FastifyRequest): Record<string, string> {
  const passed: Record<string, string> = { 'x-correlation-id': id };
  for (const [name, longest] of Object.entries(passedOn)) {
    const value = headers[name];
    if (typeof value === 'string' && value.length <= longest && /^[\w.:-]+$/.test(value)) passed[name] = value;
  }
  return passed;
}

const readViewer = imodelRoute({
  ...view,
  operationId: 'read-viewer',
  method: 'GET',
  summary: 'Answer a call of a viewer whose parameters are in the address',
  description:
    'An extension of this server: the RPC protocol of iTwin.js, for viewers that are built on its front end. The path names the iModel and the changeset (`0` is the baseline), and ends with interface, version and operation. See the document on viewers.',
  query: Type.Object({ parameters: Type.String({ maxLength: maxParametersInAddress }) }),
  handler: (call) => answer(call, Buffer.from(call.query.parameters, 'base64').toString('utf8')),
});

const callViewer = imodelRoute({
  ...view,
  operationId: 'call-viewer',
  method: 'POST',
  summary: 'Answer a call of a viewer',
  description:
    'As `read-viewer`, with the parameters as JSON in a body of type `text/plain`. Changes nothing, so the holder of a share may call it.',
  file: { types: ['text/plain'], limit: maxRequestBytes },
  async handler(call) {
    const text = decodeUtf8(call.body as Buffer);
    if (text === undefined) throw call.invalid([detail.invalidBody()]);
    return answer(call, text);
  },
});

export const viewerRoutes: Route[] = [readViewer, callViewer];
