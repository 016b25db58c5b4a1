import { createRoot } from 'react-dom/client';
import { ThemeProvider } from '@itwin/itwinui-react';
import '@itwin/itwinui-react/styles.css';
import { pointOf } from './point.ts';
import { readSettings, Session } from './session.ts';
import { ViewerPage } from './ViewerPage.tsx';
import './styles.css';

const root = createRoot(document.getElementById('root') as HTMLElement);

try {
  const settings = await readSettings();
  const session = await Session.start(settings);
  if (session !== undefined) {
    if (settings.viewer == null) throw new Error('The back end of the viewer is switched off at this server.');
    const point = await pointOf(new URLSearchParams(globalThis.location.search), await session.getAccessToken());
    document.title = point.name;
    root.render(
      <ThemeProvider theme="os" className="page">
        <ViewerPage point={point} session={session} backend={settings.viewer} />
      </ThemeProvider>,
    );
  }
} catch (error) {
  root.render(
    <main className="message" role="alert">
      <h1>The viewer cannot open this iModel</h1>
      <p>{error instanceof Error ? error.message : String(error)}</p>
    </main>,
  );
}
