import { ThemeProvider } from '@itwin/itwinui-react';
import { QueryClientProvider } from '@tanstack/react-query';
import { RouterProvider } from '@tanstack/react-router';
import { useEffect, useState, useSyncExternalStore } from 'react';
import { SessionContext } from './auth/context.ts';
import { Session } from './auth/session.ts';
import { readSettings } from './auth/settings.ts';
import { serverAddress } from './base.ts';
import { FaultPage } from './components/FaultState.tsx';
import { Waiting } from './components/Waiting.tsx';
import { SignInPage } from './pages/SignInPage.tsx';
import { queryClient } from './queryClient.ts';
import { router } from './router.tsx';

export function App() {
  return (
    <ThemeProvider theme="os" future={{ themeBridge: false, synchronizeThemeToRoot: true }} className="theme">
      <Started />
    </ThemeProvider>
  );
}

/** Shows the console once the settings of the server are known. */
function Started() {
  const [session, setSession] = useState<Session>();
  const [fault, setFault] = useState<unknown>();
  const [attempt, setAttempt] = useState(0);
  useEffect(() => {
    let current = true;
    start().then(
      (started) => current && started !== undefined && setSession(started),
      (error: unknown) => current && setFault(error),
    );
    return () => {
      current = false;
    };
  }, [attempt]);
  if (fault !== undefined)
    return (
      <main className="centered">
        <FaultPage
          fault={fault}
          onRetry={() => {
            setFault(undefined);
            setAttempt(attempt + 1);
          }}
        />
      </main>
    );
  if (session === undefined) return <Waiting />;
  return (
    <SessionContext value={session}>
      <SignedInOnly session={session} />
    </SessionContext>
  );
}

function SignedInOnly({ session }: { session: Session }) {
  const { user } = useSyncExternalStore(session.subscribe, session.state);
  const id = user?.id;
  // Nothing of one user is shown to the next.
  useEffect(() => () => queryClient.clear(), [id]);
  if (id === undefined) return <SignInPage />;
  return (
    <QueryClientProvider client={queryClient}>
      <RouterProvider router={router} />
    </QueryClientProvider>
  );
}

let starting: Promise<Session | undefined> | undefined;

/** @returns undefined while the browser leaves for another address */
async function start(): Promise<Session | undefined> {
  // React starts effects twice in development; the answer of the issuer can be used once.
  starting ??= begin().finally(() => (starting = undefined));
  return starting;
}

async function begin(): Promise<Session | undefined> {
  const settings = await readSettings();
  const wanted = new URL(settings.address);
  if (settings.issuers.length > 0 && wanted.origin !== globalThis.location.origin) {
    // Sign-in returns to the configured address only.
    globalThis.location.replace(`${settings.address}${globalThis.location.href.slice(serverAddress.length)}`);
    return undefined;
  }
  const session = new Session(settings);
  return (await session.start()) ? session : undefined;
}
