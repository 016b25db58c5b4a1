import { Agent, request as httpRequest, validateHeaderValue } from 'node:http';
import fc from 'fast-check';
import { clientsOf } from '../../../scripts/clients.ts';
import { Api } from '../api.ts';
import { makeIModel } from '../clients.ts';
import { people, type PersonName, type Setup } from '../server.ts';
import { faultOfAnswer, operationsOf, type ApiDocument, type Operation } from './document.ts';
import { blockMs, MeasuredServer, type Block } from './server.ts';
import { bodyOf, hostileText, Known, parameterOf, type Payload } from './values.ts';
import { IdRegistry } from './idRegistry.ts';

/** Concurrent requests, and requests of each operation per round, after which new iModels are created. */
const parallel = 16;
const perRound = 8;
/** Longest time for an answer, milliseconds. Generous: the machine may be busy. */
const answerMs = 60_000;
/** An event loop turn with this much processor time is a fault even if it does not recur, milliseconds. */
const onceMs = 1000;
const mostFaults = 10;

/** What a run found. */
export interface FuzzReport {
  /** Requests that got an answer. */
  requests: number;
  /** The faults, each with its request. */
  faults: string[];
  /** Number of operations in the document, and those that were never answered with 2xx. */
  operations: number;
  unreached: string[];
  statuses: Record<number, number>;
  /** Heap growth from the end of the first third to the end, bytes. */
  growth: number;
}

type Caller = PersonName | 'share' | 'nobody' | 'forger';
/** Mostly users with permissions, so that requests get past the access check. */
const callers: readonly Caller[] = [
  'olivia',
  'olivia',
  'olivia',
  'olivia',
  'olivia',
  'olivia',
  'admin',
  'admin',
  'max',
  'max',
  'eve',
  'foreignAdmin',
  'consultant',
  'share',
  'nobody',
  'forger',
];
/** Callers who have permissions on resources of each tenant. */
const tenants: Partial<Record<Caller, string>> = {
  olivia: 'home',
  admin: 'home',
  max: 'guest',
  share: 'guest',
  eve: 'elsewhere',
  foreignAdmin: 'elsewhere',
  consultant: 'elsewhere',
};

/** A request before its ids are chosen. */
interface Draft {
  operation: Operation;
  caller: Caller;
  picks: number[];
  /** Replaces the last id of the path. */
  hostilePart: string | undefined;
  query: Record<string, unknown>;
  unknownOption: string | undefined;
  headers: Record<string, unknown>;
  payload: Payload | undefined;
}

interface Request {
  operation: Operation;
  params: Record<string, string>;
  /** Whether it reaches the operation: a hostile path segment may lead anywhere. */
  declared: boolean;
  caller: Caller;
  path: string;
  headers: Record<string, string>;
  body: Buffer | undefined;
}

interface Answered {
  status: number;
  type: string | undefined;
  body: Buffer;
  /** Milliseconds since the epoch. */
  from: number;
  to: number;
}

/**
 * Sends requests generated from the server's own API document, with ids that the server returned, as several users.
 * The same seed chooses the same requests, as long as the server answers the same.
 */
export async function fuzz(setup: Setup, seed: number, requests: number): Promise<FuzzReport> {
  const server = await MeasuredServer.start(setup);
  try {
    return await new Fuzzer(server, seed).run(requests);
  } finally {
    await server.end();
  }
}

class Fuzzer {
  readonly #server: MeasuredServer;
  readonly #seed: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: parallel });
  readonly #ids = new IdRegistry(Object.values(people).map(({ email }) => email));
  readonly #faults = new Map<string, string>();
  readonly #statuses: Record<number, number> = {};
  readonly #reached = new Set<string>();
  #operations: Operation[] = [];
  #templates: string[] = [];
  #shareKey = 'none';
  #sent = 0;

  constructor(server: MeasuredServer, seed: number) {
    this.#server = server;
    this.#seed = seed;
  }

  async run(requests: number): Promise<FuzzReport> {
    const document = (await new Api(this.#server.origin).get('/openapi.json')).body as ApiDocument;
    this.#operations = operationsOf(document);
    this.#templates = [...new Set(this.#operations.map(({ path }) => path))];
    const drafts = this.#operations.map((operation) => draftOf(operation));
    let heap: number | undefined;
    try {
      for (let round = 0; this.#sent < requests && this.#faults.size < mostFaults; round++) {
        await this.#prepare();
        const samples = drafts.flatMap((draft, n) =>
          fc.sample(draft, { seed: this.#seed + round * drafts.length + n, numRuns: perRound }),
        );
        // Operations that delete everything else come last, and not in every round.
        const [kept] = fc.sample(fc.shuffledSubarray(samples, { minLength: samples.length }), {
          seed: this.#seed + round,
          numRuns: 1,
        }) as [Draft[]];
        const last = kept.filter(({ operation }) => isDestructive(operation));
        const order = [...kept.filter(({ operation }) => !isDestructive(operation)), ...last].slice(
          0,
          requests - this.#sent,
        );
        for (let start = 0; start < order.length && this.#faults.size < mostFaults; start += parallel)
          await this.#batch(order.slice(start, start + parallel), round === 0);
        if (heap === undefined && this.#sent >= requests / 3) heap = await this.#server.heap();
      }
    } finally {
      this.#agent.destroy();
    }
    return {
      requests: this.#sent,
      faults: [...this.#faults.values()],
      operations: this.#operations.length,
      unreached: this.#operations.map(({ operationId }) => operationId).filter((id) => !this.#reached.has(id)),
      statuses: this.#statuses,
      growth: (await this.#server.heap()) - (heap ?? 0),
    };
  }

  /** Resources that generated requests cannot create because they need files, and users with permissions on them. */
  async #prepare(): Promise<void> {
    const { origin, tokens } = this.#server;
    for (const owner of ['olivia', 'eve'] as const) {
      const api = new Api(origin, tokens[owner]);
      const call = async (
        method: 'GET' | 'POST',
        template: string,
        params: Record<string, string>,
        body?: unknown,
        query = '',
      ): Promise<Record<string, { id?: string; shareKey?: string }>> => {
        const answer = await api.send(
          method,
          template.replace(/\{(\w+)\}/g, (_, name: string) => params[name] ?? '') + query,
          body,
        );
        if (answer.status > 201)
          throw new Error(`cannot prepare ${template}: ${answer.status} ${JSON.stringify(answer.body)}`);
        const operation = this.#operations.find((each) => each.method === method && each.path === template);
        if (operation !== undefined)
          for (const tenant of owner === 'olivia' ? ['home', 'guest'] : ['elsewhere'])
            this.#ids.learn(tenant, operation, params, answer.body, this.#templates);
        return answer.body as Record<string, { id?: string; shareKey?: string }>;
      };
      const { iTwin } = await call(
        'POST',
        '/itwins',
        {},
        { displayName: `iTwin ${this.#sent}`, class: 'Endeavor', subClass: 'Project' },
      );
      const iTwinId = iTwin?.id ?? '';
      const { role } = await call(
        'POST',
        '/accesscontrol/itwins/{iTwinId}/roles',
        { iTwinId },
        { displayName: 'writer', permissions: ['imodels_write', 'administration_manage_roles'] },
      );
      await call(
        'POST',
        '/accesscontrol/itwins/{iTwinId}/members/users',
        { iTwinId },
        { members: [{ email: people.max.email, roleIds: [role?.id] }] },
      );
      const { id: iModelId } = await makeIModel(clientsOf(origin, tokens[owner]), iTwinId, { changesets: 2 });
      const { share } = await call(
        'POST',
        '/imodels/{iModelId}/shares',
        { iModelId },
        { name: 'guests', permission: 'imodels_read', expiresAt: new Date(Date.now() + 86_400_000).toISOString() },
      );
      this.#shareKey = share?.shareKey ?? this.#shareKey;
      await call(
        'POST',
        '/itwins/{iTwinId}/webhooks',
        { iTwinId },
        { callbackUrl: 'https://receiver.invalid/', eventTypes: ['iModels.iModelCreated.v1'] },
      );
      await call(
        'POST',
        '/itwins/{iTwinId}/repositories',
        { iTwinId },
        { class: 'Forms', uri: 'https://receiver.invalid/' },
      );
      await call(
        'POST',
        '/accesscontrol/itwins/{iTwinId}/groups',
        { iTwinId },
        { name: 'crew', description: 'd', members: [] },
      );
      await call('POST', '/imodels/{iModelId}/changesetgroups', { iModelId }, { description: 'work' });
      // Lists contain the others.
      await call('GET', '/imodels', {}, undefined, `?iTwinId=${iTwinId}`);
      for (const list of ['changesets', 'briefcases', 'users'])
        await call('GET', `/imodels/{iModelId}/${list}`, { iModelId });
      await call('GET', '/accesscontrol/itwins/{iTwinId}/members/users', { iTwinId });
    }
  }

  /** @param warming whether loading and compiling at the first use may take longer */
  async #batch(drafts: readonly Draft[], warming: boolean): Promise<void> {
    const requests = drafts.map((draft) => this.#requestOf(draft));
    const answers = await Promise.all(requests.map((request) => this.#send(request)));
    for (const [n, request] of requests.entries()) this.#judge(request, answers[n]);
    const blocks = await this.#server.blocks();
    if (!warming)
      for (const block of blocks)
        await this.#judgeBlock(
          block,
          requests.filter((_, n) => (answers[n]?.from ?? 0) <= block.to && (answers[n]?.to ?? 0) >= block.from),
        );
  }

  /**
   * A long event loop turn counts if it used processor time and recurs when one of the concurrent requests is sent alone: on a
   * busy machine a turn takes long although the server does little.
   */
  async #judgeBlock(block: Block, suspects: readonly Request[]): Promise<void> {
    for (const request of suspects) {
      await this.#send(request);
      const again = (await this.#server.blocks()).find(({ cpuMs }) => cpuMs > blockMs);
      if (again !== undefined)
        return this.#fault(request, 'blocks the loop', `keeps the loop busy for ${Math.round(again.cpuMs)} ms`);
    }
    if (block.cpuMs > onceMs)
      this.#faults.set(
        `loop ${block.from}`,
        `the loop computed for ${Math.round(block.cpuMs)} ms while these were under way:\n${suspects.map(describe).join('\n')}`,
      );
  }

  #judge(request: Request, answer: Answered | undefined): void {
    const { operation } = request;
    if (answer === undefined) return this.#fault(request, 'is not answered');
    const { status, type, body } = answer;
    this.#statuses[status] = (this.#statuses[status] ?? 0) + 1;
    if (status >= 500)
      return this.#fault(
        request,
        `${status}`,
        `answers ${status} ${body.toString().slice(0, 500)}\n${this.#server.takeLog()}`,
      );
    if (!request.declared) return;
    const fault = faultOfAnswer(operation, status, type, body);
    if (fault !== undefined)
      return this.#fault(request, `${status}`, `answers ${status}, but ${fault}: ${body.toString().slice(0, 500)}`);
    if (status >= 300) return;
    this.#reached.add(operation.operationId);
    if (operation.method === 'DELETE') this.#ids.forget(operation.path, request.params);
    if (type?.startsWith('application/json') === true)
      this.#ids.learn(
        tenants[request.caller] ?? '',
        operation,
        request.params,
        JSON.parse(body.toString()),
        this.#templates,
      );
  }

  /** @param kind of the fault: only one of each kind and operation is reported */
  #fault(request: Request, kind: string, what = kind): void {
    const key = `${request.operation.operationId} ${kind}`;
    if (this.#faults.has(key) || this.#faults.size >= mostFaults) return;
    this.#faults.set(key, `${describe(request)}\n  ${what}`);
  }

  #requestOf({ operation, caller, picks, hostilePart, query, unknownOption, headers, payload }: Draft): Request {
    const tenant = tenants[caller] ?? 'home';
    const params = this.#ids.params(tenant, operation.path, picks);
    const names = Object.keys(params);
    const declared = hostilePart === undefined || names.length === 0;
    const resolve = (value: unknown): unknown => {
      if (value instanceof Known) return this.#ids.value(tenant, value, params);
      if (Array.isArray(value)) return value.map(resolve);
      if (typeof value !== 'object' || value === null) return value;
      return Object.fromEntries(Object.entries(value).map(([key, each]) => [key, resolve(each)]));
    };
    const path = operation.path.replace(/\{(\w+)\}/g, (_, name: string) =>
      encode(declared || name !== names.at(-1) ? (params[name] ?? '') : hostilePart),
    );
    const search = Object.entries(query)
      .filter(([, value]) => value !== undefined)
      .map(([name, value]) => `${name}=${encode(asText(resolve(value)))}`);
    if (unknownOption !== undefined) search.push(`${encode(unknownOption)}=${encode(unknownOption)}`);
    const body =
      payload === undefined
        ? undefined
        : Buffer.isBuffer(payload.body)
          ? payload.body
          : Buffer.from(JSON.stringify(resolve(payload.body)) ?? '');
    return {
      operation,
      params,
      declared,
      caller,
      path: search.length === 0 ? path : `${path}?${search.join('&')}`,
      headers: {
        ...this.#authorization(caller),
        ...Object.fromEntries(
          Object.entries(headers).filter(([name, value]) => typeof value === 'string' && isHeader(name, value)) as [
            string,
            string,
          ][],
        ),
        ...(payload !== undefined && payload.contentType !== '' && { 'content-type': payload.contentType }),
      },
      body,
    };
  }

  #authorization(caller: Caller): Record<string, string> {
    if (caller === 'nobody') return {};
    if (caller === 'share') return { authorization: `Basic ${this.#shareKey}` };
    const token = caller === 'forger' ? `${this.#server.tokens.olivia.slice(0, -4)}AAAA` : this.#server.tokens[caller];
    return { authorization: `Bearer ${token}` };
  }

  /** @returns undefined if there is no answer */
  #send({ operation, path, headers, body }: Request): Promise<Answered | undefined> {
    this.#sent++;
    const from = Date.now();
    return new Promise((resolve) => {
      const { hostname, port } = new URL(this.#server.origin);
      const request = httpRequest({
        agent: this.#agent,
        hostname,
        port,
        method: operation.method,
        path,
        headers: { ...headers, 'content-length': body?.length ?? 0 },
        signal: AbortSignal.timeout(answerMs),
      });
      request.once('error', () => resolve(undefined));
      request.once('response', (response) => {
        const chunks: Buffer[] = [];
        response.on('data', (chunk: Buffer) => chunks.push(chunk));
        response.once('error', () => resolve(undefined));
        response.once('end', () =>
          resolve({
            status: response.statusCode ?? 0,
            type: response.headers['content-type'],
            body: Buffer.concat(chunks),
            from,
            to: Date.now(),
          }),
        );
      });
      request.end(body);
    });
  }
}

function draftOf(operation: Operation): fc.Arbitrary<Draft> {
  /** @param weight of omitting it */
  const rarely = <T>(arbitrary: fc.Arbitrary<T>, weight: number): fc.Arbitrary<T | undefined> =>
    fc.oneof({ weight, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary });
  const some = (place: 'query' | 'header'): fc.Arbitrary<Record<string, unknown>> => {
    const parameters = (operation.parameters ?? []).filter((parameter) => parameter.in === place);
    return fc.record(
      Object.fromEntries(
        parameters.map(({ name, schema, required }) => [
          name,
          required ? parameterOf(schema, name) : rarely(parameterOf(schema, name), 3),
        ]),
      ),
    );
  };
  return fc.record({
    operation: fc.constant(operation),
    // Without fast-check's bias for the first and the last.
    caller: fc.noBias(fc.constantFrom(...callers)),
    picks: fc.noBias(fc.array(fc.nat(1000), { minLength: 3, maxLength: 3 })),
    hostilePart: rarely(hostileText, 20),
    query: some('query'),
    unknownOption: rarely(hostileText, 20),
    headers: some('header'),
    payload:
      operation.requestBody?.content === undefined ? fc.constant(undefined) : bodyOf(operation.requestBody.content),
  });
}

/** Whether it deletes what other requests need. */
function isDestructive({ operationId }: Operation): boolean {
  return operationId === 'delete-itwin' || operationId === 'delete-imodel';
}

function encode(text: string): string {
  return encodeURIComponent(text.toWellFormed());
}

/** Encoded as a query parameter. */
function asText(value: unknown): string {
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Whether Node's HTTP client sends it at all. */
function isHeader(name: string, value: string): boolean {
  try {
    validateHeaderValue(name, value);
    return true;
  } catch {
    return false;
  }
}

function describe({ operation, caller, path, headers: { authorization: _, ...headers }, body }: Request): string {
  return `${operation.operationId} as ${caller}: ${operation.method} ${shortened(path)} ${JSON.stringify(headers)} ${shortened(body?.toString() ?? '')}`;
}

function shortened(text: string): string {
  return text.length <= 600 ? text : `${text.slice(0, 600)}… (${text.length} characters)`;
}
