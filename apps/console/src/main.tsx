import { createRoot } from 'react-dom/client';
import { StrictMode } from 'react';
import '@itwin/itwinui-react/styles.css';
import './styles.css';
import { App } from './App.tsx';
import { startTexts } from './i18n.ts';

const root = document.getElementById('root');
if (root === null) throw new Error('the page has no root');
// Relative links of the page change their meaning with its path, which the router changes.
for (const link of document.querySelectorAll<HTMLLinkElement>('link[rel=icon]')) link.href = new URL(link.href).href;
await startTexts();
createRoot(root).render(
  <StrictMode>
    <App />
  </StrictMode>,
);
