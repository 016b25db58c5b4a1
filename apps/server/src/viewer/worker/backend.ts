import { timingSafeEqual } from 'node:crypto';
import http, { type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { CloudSqlite, IModelHost, V2CheckpointManager, type IModelHostOptions } from '@itwin/core-backend';
import { BentleyCloudRpcManager, IModelReadRpcInterface, IModelTileRpcInterface } from '@itwin/core-common';
import { ECSchemaRpcInterface } from '@itwin/ecschema-rpcinterface-common';
import { ECSchemaRpcImpl } from '@itwin/ecschema-rpcinterface-impl';
import { HierarchyCacheMode, Presentation } from '@itwin/presentation-backend';
import { PresentationRpcInterface } from '@itwin/presentation-common';
import { startITwinJs } from '../../checkpoints/itwinjs/itwinjs.ts';
import { readAtMost } from '../../http/readAtMost.ts';
import {
  checkpointHeader,
  healthPath,
  keyHeader,
  maxRequestBytes,
  misfitOf,
  pingPath,
  refusalHeader,
  release,
  releaseHeader,
  type BackendSettings,
  type Refusal,
  type ViewCheckpoint,
} from '../protocol.ts';
import { CheckpointsInUseError, OpenCheckpoints, ServerUnreachableError, unreachable } from './openCheckpoints.ts';
import { registerPresentation4, withPresentation4 } from './presentation4.ts';

/**
 * The version of IModelReadRpcInterface in core-common 5.9 to 5.13. iTwin.js refuses front ends with a later minor version
 * than its own, which is 3.7.0 in 5.1.9. The operations are the same in both; the server refuses every other one.
 */
const newestReadVersion = '3.8.0';

/** How long a call of Presentation may take before the answer says that it is pending, milliseconds. */
const presentationMs = 5000;

/** The log of a back end. */
export interface BackendLog {
  error(details: { err?: unknown }, message: string): void;
}

/** The same fault is logged once in this time, milliseconds: a page sends dozens of requests. */
const repeatMs = 60_000;

/** What the RPC protocol of core-common reads of a request. */
interface RpcRequest {
  body: string;
  url: string;
  method: string;
  ip: string;
  header(name: string): string | undefined;
}

/** The part of the RPC protocol of core-common that handles requests. */
interface Protocol {
  handleOperationPostRequest(request: RpcRequest, response: RpcResponse): Promise<void>;
}

/** A response with the three functions of Express that core-backend uses. */
type RpcResponse = ServerResponse & {
  set(name: string, value: string): void;
  status(code: number): void;
  send(body: string | Buffer): void;
};

/** The functions of core-backend that are replaced: they look up checkpoints at the hub of its publisher. */
interface CheckpointAddresses {
  toCloudContainerProps(from: { accountName: string; sasToken: string }): object;
}

/**
 * Runs iTwin.js and answers the calls of viewers that the server has checked and rewritten. It checks the key of the
 * server, and nothing else.
 * @param folder folder for the cache of blocks and temporary files
 */
export async function runBackend(
  folder: string,
  settings: BackendSettings,
  onOpen: (open: number) => void,
  log: BackendLog,
): Promise<{ port: number; close: () => Promise<void> }> {
  const checkpoints = new OpenCheckpoints(settings, onOpen);
  await startITwinJs({
    cacheDir: folder,
    hubAccess: {
      queryV2Checkpoint: async (asked: { iModelId: string; changeset: { id: string } }) => checkpoints.access(asked),
    } as unknown as NonNullable<IModelHostOptions['hubAccess']>,
  });
  const addresses = V2CheckpointManager as unknown as CheckpointAddresses;
  // The container that `OpenCheckpoints` returns has the address of the server already.
  addresses.toCloudContainerProps = (from) => ({ ...from, accessToken: from.sasToken, storageType: 'azure' });
  CloudSqlite.CloudCaches.getCache({ cacheName: 'Checkpoints', cacheSize: `${settings.cacheMiB}M` });
  ECSchemaRpcImpl.register();
  Presentation.initialize({
    requestTimeout: presentationMs,
    caching: { hierarchies: { mode: HierarchyCacheMode.Memory } },
  });
  IModelReadRpcInterface.interfaceVersion = newestReadVersion;
  const configuration = BentleyCloudRpcManager.initializeImpl({ info: { title: 'offshoot', version: '1' } }, [
    IModelReadRpcInterface,
    IModelTileRpcInterface,
    ECSchemaRpcInterface,
    PresentationRpcInterface,
    registerPresentation4(),
  ]);
  // Its types are those of Express, of which it uses what `RpcRequest` and `RpcResponse` have.
  const protocol = configuration.protocol as unknown as Protocol;
  const parts = { checkpoints, protocol, settings, faults: new Faults(log) };
  const server = http.createServer((request, response) => {
    answer(request, response, parts).catch((error: unknown) => {
      log.error({ err: error }, 'a request failed');
      if (response.headersSent) response.destroy();
      else response.writeHead(500, { 'content-type': 'text/plain' }).end('{"message":"The request failed."}');
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(settings.port, settings.host, resolve);
  });
  if (settings.server !== undefined)
    void unreachable(settings.server).then((fault) => {
      if (fault !== undefined) parts.faults.log('server', `${settings.server}: ${fault}`);
    });
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      server.close();
      server.closeAllConnections();
      await IModelHost.shutdown();
    },
  };
}

interface Parts {
  checkpoints: OpenCheckpoints;
  protocol: Protocol;
  settings: BackendSettings;
  faults: Faults;
}

/** Status and explanation of each refusal, for the log of this side. The server has words of its own for its users. */
const refusals: Record<Refusal, { status: number; message: string }> = {
  key: {
    status: 403,
    message: 'a request had another key: OFFSHOOT_VIEWER_KEY must be the same here and at the server',
  },
  release: { status: 409, message: 'this back end cannot answer the server: install the same version on both' },
  server: { status: 502, message: 'the server cannot be reached at the address of --server, so nothing can be shown' },
  busy: {
    status: 503,
    message: 'all checkpoints that may be open are in use, so a viewer has to try again: raise viewer.maxCheckpoints',
  },
};

/** Logs why nothing can be answered, each reason once a minute. */
class Faults {
  readonly #log: BackendLog;
  readonly #loggedAt = new Map<Refusal, number>();

  constructor(log: BackendLog) {
    this.#log = log;
  }

  log(refusal: Refusal, detail = ''): void {
    const now = performance.now();
    if (now - (this.#loggedAt.get(refusal) ?? -Infinity) < repeatMs) return;
    this.#loggedAt.set(refusal, now);
    this.#log.error({}, `${refusals[refusal].message}${detail === '' ? '' : ` (${detail})`}`);
  }

  refuse(response: ServerResponse, refusal: Refusal, detail?: string): void {
    this.log(refusal, detail);
    response.writeHead(refusals[refusal].status, { [refusalHeader]: refusal }).end();
  }
}

async function answer(request: IncomingMessage, response: ServerResponse, parts: Parts): Promise<void> {
  const { settings, faults } = parts;
  const isSeparate = settings.server !== undefined;
  if (isSeparate && request.method === 'GET' && request.url === healthPath)
    return void response.writeHead(200, { 'content-type': 'application/json' }).end('{"status":"ok"}');
  const { [keyHeader]: key, [releaseHeader]: theirs } = request.headers;
  // Without any key it is not the server that asks.
  if (key === undefined) return void response.writeHead(403).end();
  if (!isKey(key, settings.key)) return faults.refuse(response, 'key');
  response.setHeader(releaseHeader, release());
  const misfit = isSeparate ? misfitOf(typeof theirs === 'string' ? theirs : undefined) : undefined;
  if (misfit !== undefined) return faults.refuse(response, 'release', `the server ${misfit}`);
  if (request.url === pingPath) return void response.writeHead(204).end();
  const checkpoint = JSON.parse(
    Buffer.from(String(request.headers[checkpointHeader]), 'base64url').toString('utf8'),
  ) as ViewCheckpoint;
  const gone = new AbortController();
  response.once('close', () => gone.abort());
  try {
    await parts.checkpoints.use(checkpoint, gone.signal, async () => {
      // A request that waits for its checkpoint takes no memory for its body.
      const body = await readAtMost(request, maxRequestBytes, () => new Error('the request is too large'));
      const ended = new Promise<void>(
        (resolve) => void (response.closed ? resolve() : response.once('close', resolve)),
      );
      await parts.protocol.handleOperationPostRequest(requestOf(request, body.toString('utf8')), responseOf(response));
      await ended;
    });
  } catch (error) {
    if (error instanceof CheckpointsInUseError) return faults.refuse(response, 'busy');
    if (!(error instanceof ServerUnreachableError)) throw error;
    faults.refuse(response, 'server', error.message);
  }
}

function isKey(given: string | string[] | undefined, key: string): boolean {
  const [one, other] = [Buffer.from(String(given)), Buffer.from(key)];
  return key !== '' && one.length === other.length && timingSafeEqual(one, other);
}

function requestOf(request: IncomingMessage, body: string): RpcRequest {
  return {
    body,
    url: withPresentation4(request.url ?? ''),
    method: request.method ?? 'POST',
    ip: '',
    header: (name: string) => request.headers[name.toLowerCase()] as string | undefined,
  };
}

function responseOf(response: ServerResponse): RpcResponse {
  const rpc = response as RpcResponse;
  rpc.set = (name, value) => void response.setHeader(name, value);
  rpc.status = (code) => void (response.statusCode = code);
  rpc.send = (body) => void response.end(body);
  return rpc;
}
