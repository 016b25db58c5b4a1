import { ApiError } from '../errors.ts';
import {
  BackendLostError,
  ping,
  sendTo,
  type Backend,
  type BackendAddress,
  type BackendAnswer,
  type BackendRequest,
} from './backend.ts';
import { misfitOf, refusalHeader, releaseHeader } from './protocol.ts';

/** A back end that runs elsewhere (`offshoot view-backend`), where something else starts it again when it ends. */
export class RemoteBackend implements Backend {
  readonly #address: BackendAddress;
  #iTwinJs: string | undefined;

  constructor({ url, key }: { url: string; key: string }) {
    this.#address = { url: new URL(url), key };
  }

  /** That of the last answer: the back end may be started again with another one while this server runs. */
  get iTwinJs(): string | undefined {
    return this.#iTwinJs;
  }

  /** @throws also ApiError ViewerBackendUnusable */
  async call(request: BackendRequest, signal: AbortSignal): Promise<BackendAnswer> {
    const answer = await sendTo(this.#address, undefined, request, signal);
    this.#requireUsable(answer);
    this.#iTwinJs = answer.iTwinJs;
    return answer;
  }

  /** Asks the back end whether it can answer this server. @throws ApiError ViewerBackendUnusable, BackendLostError, or a timeout */
  async check(): Promise<void> {
    const answer = await ping(this.#address);
    this.#requireUsable(answer);
    if (answer.status !== 204) throw new BackendLostError(new Error(`it answered ${answer.status}`));
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }

  /** What nobody but the operator can mend is said at once, and not tried again. */
  #requireUsable({ headers, iTwinJs }: BackendAnswer): void {
    const { [refusalHeader]: refusal, [releaseHeader]: theirs } = headers;
    const unusable = (message: string, cause: string): ApiError =>
      new ApiError('ViewerBackendUnusable', {
        message,
        cause: new Error(`the view back end at ${this.#address.url.origin} ${cause}`),
      });
    if (refusal === 'key')
      throw unusable(
        'The view back end does not accept the key of this server.',
        'has another OFFSHOOT_VIEWER_KEY than this server',
      );
    const misfit = misfitOf(typeof theirs === 'string' ? theirs : undefined);
    if (misfit !== undefined || refusal === 'release')
      throw unusable(
        'The view back end and this server have different versions.',
        misfit ?? 'does not accept the version of this server',
      );
    if (refusal === 'server')
      throw unusable(
        'The view back end cannot reach this server.',
        'cannot reach this server at the address of its option --server',
      );
    // Tiles are kept under the version that made them.
    if (iTwinJs === undefined)
      throw unusable('The view back end and this server have different versions.', 'names no version of iTwin.js');
  }
}
