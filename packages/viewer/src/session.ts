import { BeEvent, type AccessToken } from '@itwin/core-bentley';
import type { ViewerAuthorizationClient } from '@itwin/web-viewer-react';
import { UserManager, WebStorageStateStore, type User } from 'oidc-client-ts';
import { consoleAddress, serverAddress } from './base.ts';

/** The issuer at which this browser signed in last, as the console notes it. */
const rememberedKey = 'offshoot.console.issuer';
/** Set while this tab is on its way to the issuer, so that a refused sign-in is not repeated at once. */
const underWayKey = 'offshoot.viewer.signing-in';

export interface Issuer {
  name: string;
  authority: string;
  clientId: string;
  scope: string;
}

/** `/console.json`, as far as the viewer needs it. */
export interface Settings {
  issuers: Issuer[];
  viewer?: { title: string; version: string; path: string } | null;
}

/** The session of this tab. The viewer signs in as the console does: with its client, and through its callback address. */
export class Session implements ViewerAuthorizationClient {
  readonly onAccessTokenChanged = new BeEvent<(token: AccessToken) => void>();
  readonly #manager: UserManager;
  #renewal: Promise<User | null> | undefined;

  private constructor(issuer: Issuer) {
    this.#manager = new UserManager({
      authority: issuer.authority,
      client_id: issuer.clientId,
      scope: issuer.scope,
      redirect_uri: `${consoleAddress}signin-callback`,
      response_type: 'code',
      automaticSilentRenew: true,
      userStore: new WebStorageStateStore({ store: sessionStorage }),
      stateStore: new WebStorageStateStore({ store: sessionStorage }),
    });
    this.#manager.events.addUserLoaded((user) => this.onAccessTokenChanged.raiseEvent(headerOf(user)));
  }

  /** @returns undefined while the browser leaves for the issuer */
  static async start({ issuers }: Settings): Promise<Session | undefined> {
    const [first] = issuers;
    const issuer = issuers.find(({ authority }) => authority === localStorage.getItem(rememberedKey)) ?? first;
    if (issuer === undefined) throw new Error('Nobody can sign in at this server with a browser.');
    const session = new Session(issuer);
    if ((await session.getAccessToken()) !== '') {
      sessionStorage.removeItem(underWayKey);
      return session;
    }
    if (sessionStorage.getItem(underWayKey) !== null) {
      sessionStorage.removeItem(underWayKey);
      throw new Error('The sign-in did not succeed.');
    }
    localStorage.setItem(rememberedKey, issuer.authority);
    sessionStorage.setItem(underWayKey, '1');
    await session.#manager.signinRedirect({ state: globalThis.location.href });
    return undefined;
  }

  async getAccessToken(): Promise<AccessToken> {
    const user = await this.#manager.getUser();
    if (user === null) return '';
    if (user.expired !== true) return headerOf(user);
    // Requests that start together share one renewal, because a refresh token can be used once.
    this.#renewal ??= this.#manager
      .signinSilent()
      .catch(() => null)
      .finally(() => (this.#renewal = undefined));
    const renewed = await this.#renewal;
    return renewed === null ? '' : headerOf(renewed);
  }
}

const headerOf = ({ access_token: token }: User): AccessToken => `Bearer ${token}`;

export async function readSettings(): Promise<Settings> {
  const response = await fetch(`${serverAddress}/console.json`, { signal: AbortSignal.timeout(20_000) });
  if (!response.ok) throw new Error('The server does not answer.');
  return (await response.json()) as Settings;
}
