import { sendTo, type Backend, type BackendAddress, type BackendAnswer, type BackendRequest } from './backend.ts';

/** A back end that runs elsewhere (`offshoot view-backend`), where something else starts it again when it ends. */
export class RemoteBackend implements Backend {
  readonly #address: BackendAddress;

  constructor({ url, key }: { url: string; key: string }) {
    this.#address = { url: new URL(url), key };
  }

  async call(request: BackendRequest, signal: AbortSignal): Promise<BackendAnswer> {
    return sendTo(this.#address, undefined, request, signal);
  }

  stop(): Promise<void> {
    return Promise.resolve();
  }
}
