import { randomUUID } from 'node:crypto';
import { openAsBlob, statSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { emailOf, type Installation } from './installation.ts';
import { runCommand, type ServerProcess } from './serverProcess.ts';

/** What to clone. */
export interface CloneOptions {
  /** Id of the last changeset that the clone has; '' for the baseline alone. By default the clone has all changesets. */
  changesetId?: string;
  /** The same by index; 0 for the baseline alone. */
  changesetIndex?: number;
  /** By default a new name. */
  name?: string;
}

/** Limits of a request, of an upload, and of the preparation of a baseline by the server, milliseconds. */
const requestMs = 60_000;
const uploadMs = 600_000;
const preparationMs = 600_000;
/** Interval between two looks at the preparation, milliseconds; it doubles up to the second value. */
const firstLookMs = 5;
const longestLookMs = 250;

/** A running server for tests, made by `startOffshoot`. */
export class Hub {
  /** `http://localhost:PORT`: the `server` of `startOnOffshoot` in `@offshoot/itwinjs`. */
  readonly origin: string;
  /** Base URL of the iModels API: the `api.baseUrl` of the official clients. */
  readonly baseUrl: string;
  /** The iTwin of `createIModel` and `clone`, owned by the first user. */
  readonly iTwinId: string;
  readonly #server: ServerProcess;
  readonly #installation: Installation;
  readonly #tokens = new Map<string, Promise<string>>();
  #stopped: Promise<void> | undefined;

  constructor(server: ServerProcess, installation: Installation) {
    const { origin, iTwinId, token } = server.ready;
    this.origin = origin;
    this.baseUrl = `${origin}/imodels`;
    this.iTwinId = iTwinId;
    this.#server = server;
    this.#installation = installation;
    this.#tokens.set(installation.users[0] as string, Promise.resolve(token));
  }

  /**
   * An access token of a user, valid for a day, without `Bearer`.
   * @param user `admin` by default, or one of the `users` of `startOffshoot`
   * @throws Error if there is no such user
   */
  async token(user = 'admin'): Promise<string> {
    const email = emailOf(user);
    if (!this.#installation.users.includes(email))
      throw new Error(
        `There is no user '${user}': name it in the option users of startOffshoot. The users are ${this.#installation.users.join(', ')}.`,
      );
    let token = this.#tokens.get(email);
    if (token === undefined) {
      token = runCommand(['token', '--data', this.#installation.dataDir, '--user', email]).then((text) => text.trim());
      this.#tokens.set(email, token);
    }
    return token;
  }

  /**
   * Creates an iModel and waits until it can be used.
   * @param file the iModel file that becomes its baseline; without one the iModel is empty
   * @returns its id
   * @throws Error with the reason of the server
   */
  async createIModel(file?: string, { name = newName() }: { name?: string } = {}): Promise<string> {
    if (file === undefined) return (await this.#create({ name, creationMode: 'empty' })).id;
    const size = sizeOf(file);
    const { id, _links } = await this.#create({ name, creationMode: 'fromBaseline', baselineFile: { size } });
    const upload = await fetch(_links.upload?.href ?? '', {
      method: 'PUT',
      headers: { 'content-type': 'application/octet-stream', 'x-ms-blob-type': 'BlockBlob' },
      body: await openAsBlob(file),
      signal: AbortSignal.timeout(uploadMs),
    });
    if (upload.status !== 201)
      throw new Error(`The upload of ${file} failed with status ${upload.status}: ${await upload.text()}`);
    await this.#request('POST', _links.complete?.href ?? '', {});
    await this.#prepared(id, file);
    return id;
  }

  /**
   * Clones an iModel into the iTwin of the hub, in about 2 ms whatever its size. The clone can be used at once, and nothing
   * that is done to it changes another iModel.
   * @returns the id of the clone
   * @throws Error with the reason of the server
   */
  async clone(iModelId: string, { name = newName(), ...until }: CloneOptions = {}): Promise<string> {
    const { headers } = await this.#request('POST', `/${encodeURIComponent(iModelId)}/clone`, {
      iTwinId: this.iTwinId,
      name,
      ...until,
    });
    // The answer names the clone only in this header. Within one data center there is nothing to wait for.
    const location = headers.get('location') ?? '';
    return location.slice(location.lastIndexOf('/') + 1);
  }

  /** Ends the server and removes its data. Further calls do nothing. */
  async stop(): Promise<void> {
    this.#stopped ??= this.#server.stop().then(() => this.#installation.remove());
    return this.#stopped;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #create(properties: object): Promise<CreatedIModel> {
    const response = await this.#request('POST', '', { iTwinId: this.iTwinId, ...properties });
    return ((await response.json()) as { iModel: CreatedIModel }).iModel;
  }

  /** Waits until the server has read the baseline. @throws Error if it rejects the file */
  async #prepared(iModelId: string, file: string): Promise<void> {
    const until = performance.now() + preparationMs;
    for (let waitMs = firstLookMs; ; waitMs = Math.min(waitMs * 2, longestLookMs)) {
      const response = await this.#request('GET', `/${iModelId}/operations/create`);
      const { state, failureReason } = ((await response.json()) as { createOperation: CreateOperation })
        .createOperation;
      if (state === 'successful') return;
      if (state !== 'scheduled')
        throw new Error(`The server rejected ${file}: ${failureReason ?? `the operation is ${state}`}`);
      if (performance.now() > until)
        throw new Error(`The server has not prepared the baseline ${file} within ${preparationMs} ms.`);
      await pause(waitMs);
    }
  }

  /** @param place path below `baseUrl`, or a whole address. @throws Error with the message of the server */
  async #request(method: string, place: string, body?: object): Promise<Response> {
    const address = place.startsWith('http') ? place : `${this.baseUrl}${place}`;
    let response: Response;
    try {
      response = await fetch(address, {
        method,
        headers: {
          authorization: `Bearer ${await this.token()}`,
          accept: 'application/vnd.bentley.itwin-platform.v2+json',
          'content-type': 'application/json',
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: AbortSignal.timeout(requestMs),
      });
    } catch (error) {
      throw new Error(
        `The Offshoot server at ${this.origin} does not answer${this.#stopped === undefined ? '' : ': it was stopped'}.`,
        { cause: error },
      );
    }
    if (response.ok) return response;
    throw new Error(`${method} ${address} failed with status ${response.status}: ${await response.text()}`);
  }
}

interface CreatedIModel {
  id: string;
  _links: { upload?: { href: string } | null; complete?: { href: string } | null };
}

interface CreateOperation {
  state: string;
  failureReason?: string | null;
}

function newName(): string {
  return `Test ${randomUUID()}`;
}

/** @throws Error if the file alone does not hold the whole iModel */
function sizeOf(file: string): number {
  for (const ending of ['-wal', '-journal'])
    if ((statSync(file + ending, { throwIfNoEntry: false })?.size ?? 0) > 0)
      throw new Error(
        `${path.resolve(file)} has changes in ${path.basename(file)}${ending}: close the iModel before it is used as a baseline.`,
      );
  return statSync(file).size;
}
