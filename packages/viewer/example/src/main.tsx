/** A viewer application of one's own on an Offshoot server: sign-in, a list of iModels, and the official viewer component. */
import { BrowserAuthorizationClient } from '@itwin/browser-authorization';
import { FrontendIModelsAccess } from '@itwin/imodels-access-frontend';
import { IModelsClient, toArray, type MinimalIModel } from '@itwin/imodels-client-management';
import { Viewer } from '@itwin/web-viewer-react';
import { useEffect, useState } from 'react';
import { createRoot } from 'react-dom/client';
import './main.css';

/** Address of the server, without a slash at the end, and the id under which the application is registered there. */
const server = import.meta.env.VITE_SERVER ?? 'http://localhost:4700';
const clientId = import.meta.env.VITE_CLIENT_ID ?? 'my-viewer';

const authorization = new BrowserAuthorizationClient({
  authority: `${server}/auth`,
  clientId,
  redirectUri: `${location.origin}/signin-callback`,
  postSignoutRedirectUri: location.origin,
  scope: 'openid profile email offline_access itwin-platform',
  responseType: 'code',
});

const iModels = new IModelsClient({ api: { baseUrl: `${server}/imodels` } });
const hubAccess = new FrontendIModelsAccess(iModels);

/** The only difference to the vendor's platform: where the back end of the viewer is. */
const backendConfiguration = {
  defaultBackend: { config: { info: { title: 'offshoot', version: '1' }, uriPrefix: `${server}/viewer/rpc` } },
};

interface ITwin {
  id: string;
  displayName: string;
}

async function iTwinsOfUser(): Promise<ITwin[]> {
  const response = await fetch(`${server}/itwins`, {
    headers: {
      authorization: await authorization.getAccessToken(),
      accept: 'application/vnd.bentley.itwin-platform.v1+json',
    },
  });
  if (!response.ok) throw new Error(`the server answered ${response.status}`);
  return ((await response.json()) as { iTwins: ITwin[] }).iTwins;
}

async function iModelsIn(iTwinId: string): Promise<MinimalIModel[]> {
  return toArray(
    iModels.iModels.getMinimalList({
      authorization: async () => {
        const [scheme = '', token = ''] = (await authorization.getAccessToken()).split(' ');
        return { scheme, token };
      },
      urlParams: { iTwinId },
    }),
  );
}

function List({ onOpen }: { onOpen: (iTwinId: string, iModelId: string) => void }) {
  const [found, setFound] = useState<{ iTwin: ITwin; iModels: MinimalIModel[] }[]>();
  const [fault, setFault] = useState<string>();
  useEffect(() => {
    const read = async () => {
      const iTwins = await iTwinsOfUser();
      setFound(await Promise.all(iTwins.map(async (iTwin) => ({ iTwin, iModels: await iModelsIn(iTwin.id) }))));
    };
    read().catch((error: unknown) => setFault(String(error)));
  }, []);
  if (fault !== undefined) return <p role="alert">{fault}</p>;
  if (found === undefined) return <p>Loading…</p>;
  return (
    <main className="list">
      <button onClick={() => void authorization.signOutRedirect()}>Sign out</button>
      {found.map(({ iTwin, iModels: listed }) => (
        <section key={iTwin.id}>
          <h2>{iTwin.displayName}</h2>
          {listed.map(({ id, displayName }) => (
            <button key={id} onClick={() => onOpen(iTwin.id, id)}>
              {displayName}
            </button>
          ))}
        </section>
      ))}
    </main>
  );
}

function App() {
  const [opened, setOpened] = useState<{ iTwinId: string; iModelId: string }>();
  if (opened === undefined) return <List onOpen={(iTwinId, iModelId) => setOpened({ iTwinId, iModelId })} />;
  return (
    <Viewer
      authClient={authorization}
      iTwinId={opened.iTwinId}
      iModelId={opened.iModelId}
      hubAccess={hubAccess}
      backendConfiguration={backendConfiguration}
      enablePerformanceMonitors={false}
    />
  );
}

async function start(): Promise<void> {
  if (location.pathname === '/signin-callback') return authorization.handleSigninCallback();
  try {
    await authorization.signInSilent();
  } catch {
    await authorization.signInRedirect('/');
  }
  createRoot(document.getElementById('root') as HTMLElement).render(<App />);
}

await start();
