import type { Adapter, AdapterPayload } from 'oidc-provider';
import type { SignInState } from '../../signIn/state.ts';

/** Kinds that belong to a grant, and end with it. */
const ofGrants: ReadonlySet<string> = new Set(['AccessToken', 'AuthorizationCode', 'RefreshToken', 'DeviceCode']);

/** The state of the provider in the database. */
export class StateAdapter implements Adapter {
  readonly #kind: string;
  readonly #state: SignInState;
  readonly #alreadyUsed: () => Error;

  /** @param alreadyUsed the error for a code or token that another request used at the same time */
  constructor(kind: string, state: SignInState, alreadyUsed: () => Error) {
    this.#kind = kind;
    this.#state = state;
    this.#alreadyUsed = alreadyUsed;
  }

  async upsert(id: string, payload: AdapterPayload, expiresIn: number): Promise<void> {
    await this.#state.put(this.#kind, id, {
      payload: payload,
      accountId: payload.accountId,
      grantId: ofGrants.has(this.#kind) ? payload.grantId : undefined,
      uid: payload.uid,
      userCode: payload.userCode,
      lifeSeconds: expiresIn,
    });
  }

  async find(id: string): Promise<AdapterPayload | undefined> {
    return this.#state.find(this.#kind, id);
  }

  async findByUserCode(userCode: string): Promise<AdapterPayload | undefined> {
    return this.#state.findBy(this.#kind, 'user_code', userCode);
  }

  async findByUid(uid: string): Promise<AdapterPayload | undefined> {
    return this.#state.findBy(this.#kind, 'uid', uid);
  }

  async consume(id: string): Promise<void> {
    if (!(await this.#state.consume(this.#kind, id))) throw this.#alreadyUsed();
  }

  async destroy(id: string): Promise<void> {
    await this.#state.delete(this.#kind, id);
  }

  async revokeByGrantId(grantId: string): Promise<void> {
    await this.#state.deleteAll('grant_id', grantId);
  }
}
