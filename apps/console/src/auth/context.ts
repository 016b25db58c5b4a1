import { createContext, use, useSyncExternalStore } from 'react';
import type { Session, SignedIn } from './session.ts';

export const SessionContext = createContext<Session | undefined>(undefined);

export function useSession(): Session {
  const session = use(SessionContext);
  if (session === undefined) throw new Error('there is no session');
  return session;
}

/** The user; only for what is shown to signed-in users. */
export function useUser(): SignedIn {
  const session = useSession();
  const { user } = useSyncExternalStore(session.subscribe, session.state);
  return user ?? { id: '', name: '', email: '' };
}
