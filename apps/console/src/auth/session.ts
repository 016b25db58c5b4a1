import { ErrorResponse, UserManager, WebStorageStateStore, type User } from 'oidc-client-ts';
import { useTokens } from '../api/client.ts';
import { ApiFault } from '../api/fault.ts';
import { consoleAddress, serverAddress } from '../base.ts';
import type { ConsoleIssuer, ConsoleSettings } from './settings.ts';

/** The issuer at which this browser signed in last: a new tab signs in there without a question. */
const rememberedKey = 'offshoot.console.issuer';
/** Set while this tab is on its way to the issuer, so that a refused sign-in is not repeated at once. */
const underWayKey = 'offshoot.console.signing-in';
const callbackPath = 'signin-callback';

export interface SignedIn {
  id: string;
  name: string;
  email: string;
}

/** What went wrong with a sign-in, by key of a text. */
export type SignInProblem = 'ended' | 'failed' | 'insecure' | 'unreachable';

interface SessionState {
  user: SignedIn | undefined;
  problem: SignInProblem | undefined;
}

/** The session of this tab. Tokens are kept in the storage of the tab, which no other tab reads. */
export class Session {
  readonly settings: ConsoleSettings;
  #manager: UserManager | undefined;
  #state: SessionState = { user: undefined, problem: undefined };
  #renewal: Promise<User | null> | undefined;
  readonly #listeners = new Set<() => void>();

  constructor(settings: ConsoleSettings) {
    this.settings = settings;
    useTokens(
      () => this.#token(),
      () => this.#end('ended'),
    );
  }

  readonly subscribe = (listener: () => void): (() => void) => {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  };
  readonly state = (): SessionState => this.#state;

  /** Continues the session of this tab, or the sign-in that led here. @returns false while the browser leaves for the issuer */
  async start(): Promise<boolean> {
    const issuer = this.settings.issuers.find(({ authority }) => authority === localStorage.getItem(rememberedKey));
    if (issuer === undefined) return true;
    const manager = this.#managerOf(issuer);
    const { pathname, search } = globalThis.location;
    try {
      if (pathname.endsWith(`/${callbackPath}`)) {
        sessionStorage.removeItem(underWayKey);
        const user = await manager.signinCallback();
        const back = returnAddress(user?.state);
        // The viewer, a page of its own, signs in with the client of the console.
        if (back.startsWith(viewerAddress)) {
          globalThis.location.replace(back);
          return false;
        }
        history.replaceState(null, '', back);
        this.#take(user ?? null);
        return true;
      }
      const user = await manager.getUser();
      if (user !== null && user.expired !== true) {
        this.#take(user);
        return true;
      }
      if (user?.refresh_token !== undefined) {
        this.#take(await manager.signinSilent());
        return true;
      }
    } catch (error) {
      console.warn('sign-in failed', error);
      await manager.removeUser();
      if (pathname.endsWith(`/${callbackPath}`)) history.replaceState(null, '', consoleAddress);
      this.#set({ user: undefined, problem: 'failed' });
      return true;
    }
    // The issuer knows the browser: it answers without a question, or asks for the password.
    if (sessionStorage.getItem(underWayKey) !== null || search.includes('signed-out')) return true;
    return !(await this.signIn(issuer));
  }

  /** Leaves for the issuer. @returns whether the browser leaves */
  async signIn(issuer: ConsoleIssuer): Promise<boolean> {
    // Browsers offer the functions that sign-in needs to secure pages only.
    if (globalThis.crypto.subtle === undefined) {
      this.#set({ user: undefined, problem: 'insecure' });
      return false;
    }
    localStorage.setItem(rememberedKey, issuer.authority);
    sessionStorage.setItem(underWayKey, '1');
    try {
      await this.#managerOf(issuer).signinRedirect({ state: globalThis.location.href });
      return true;
    } catch (error) {
      console.warn('sign-in failed', error);
      sessionStorage.removeItem(underWayKey);
      this.#set({ user: undefined, problem: 'unreachable' });
      return false;
    }
  }

  async signOut(): Promise<void> {
    localStorage.removeItem(rememberedKey);
    const manager = this.#manager;
    try {
      await manager?.signoutRedirect();
    } catch {
      // The issuer has no page for it: what this browser holds is removed.
      await manager?.removeUser();
      this.#set({ user: undefined, problem: undefined });
    }
  }

  #managerOf(issuer: ConsoleIssuer): UserManager {
    if (this.#manager?.settings.authority === issuer.authority) return this.#manager;
    const manager = new UserManager({
      authority: issuer.authority,
      client_id: issuer.clientId,
      scope: issuer.scope,
      redirect_uri: `${consoleAddress}${callbackPath}`,
      post_logout_redirect_uri: consoleAddress,
      response_type: 'code',
      // The library would renew beside the requests that find the token expired, and a refresh token can be used once.
      automaticSilentRenew: false,
      // The shortest life of a token of this server is a minute: with the default of a minute it would be renewed all the time.
      accessTokenExpiringNotificationTimeInSeconds: 20,
      userStore: new WebStorageStateStore({ store: sessionStorage }),
      stateStore: new WebStorageStateStore({ store: sessionStorage }),
    });
    manager.events.addUserLoaded((user) => this.#take(user));
    manager.events.addAccessTokenExpiring(() => void this.#renew(manager).catch(() => undefined));
    manager.events.addAccessTokenExpired(() => void this.#token().catch(() => undefined));
    this.#manager = manager;
    return manager;
  }

  async #token(): Promise<string | undefined> {
    const manager = this.#manager;
    const user = await manager?.getUser();
    if (manager === undefined || user == null) return undefined;
    if (user.expired !== true) return user.access_token;
    try {
      return (await this.#renew(manager))?.access_token;
    } catch (error) {
      // An issuer that does not answer has not ended the session.
      if (!(error instanceof ErrorResponse)) throw new ApiFault(0, 'NoAnswer', 'The sign-in server does not answer.');
      this.#end('ended');
      return undefined;
    }
  }

  /** Everything that needs a new token at the same time shares one renewal, because a refresh token can be used once. */
  #renew(manager: UserManager): Promise<User | null> {
    this.#renewal ??= manager.signinSilent().finally(() => (this.#renewal = undefined));
    return this.#renewal;
  }

  #take(user: User | null): void {
    if (user === null) return;
    const { sub, name, email, given_name: given, family_name: family } = user.profile;
    const full = name ?? [given, family].filter((part) => part !== undefined).join(' ');
    this.#set({
      user: { id: sub, name: full === '' ? (email ?? sub) : full, email: email ?? '' },
      problem: undefined,
    });
  }

  #end(problem: SignInProblem): void {
    if (this.#state.user === undefined) return;
    void this.#manager?.removeUser();
    this.#set({ user: undefined, problem });
  }

  #set(state: SessionState): void {
    this.#state = state;
    this.#listeners.forEach((listener) => listener());
  }
}

const viewerAddress = `${serverAddress}/viewer/`;

/** Where the user was before signing in: a page of the console or the viewer only. */
function returnAddress(state: unknown): string {
  const isOwn =
    typeof state === 'string' && [consoleAddress, viewerAddress].some((address) => state.startsWith(address));
  return isOwn && !state.includes(`/${callbackPath}`) ? state : consoleAddress;
}
