import {
  createRootRoute,
  createRoute,
  createRouter,
  lazyRouteComponent,
  type ErrorComponentProps,
} from '@tanstack/react-router';
import { basePath } from './base.ts';
import { FaultState } from './components/FaultState.tsx';
import { NotFound, Shell } from './components/Shell.tsx';
import { Waiting } from './components/Waiting.tsx';
import { ITwinPage } from './pages/ITwinPage.tsx';
import { ITwinsPage } from './pages/ITwinsPage.tsx';
import { viewSearch } from './view/search.ts';

const text = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);

/**
 * What the addresses of all pages of an iModel may say. `clone` opens the dialogue: up to the changeset with this index, or up to
 * the head.
 */
interface IModelSearch {
  clone?: number | 'head';
  /** Index of the changeset whose details the timeline shows. */
  at?: number;
}

function indexIn(value: unknown): number | undefined {
  const index = Number(value);
  return value !== undefined && value !== '' && Number.isSafeInteger(index) && index >= 0 ? index : undefined;
}

const root = createRootRoute({ component: Shell, notFoundComponent: NotFound });

const iTwins = createRoute({
  getParentRoute: () => root,
  path: '/',
  component: ITwinsPage,
  validateSearch: (search): { show?: string; q?: string } => ({
    ...(text(search.show) !== undefined && { show: text(search.show) }),
    ...(text(search.q) !== undefined && { q: text(search.q) }),
  }),
});

const iTwin = createRoute({
  getParentRoute: () => root,
  path: '/itwins/$iTwinId',
  component: ITwinPage,
  validateSearch: (search): { tab?: string; show?: string; q?: string; order?: string; as?: string } =>
    Object.fromEntries(
      ['tab', 'show', 'q', 'order', 'as'].flatMap((name) => {
        const value = text(search[name]);
        return value === undefined ? [] : [[name, value]];
      }),
    ),
});

const iModel = createRoute({
  getParentRoute: () => root,
  path: '/imodels/$iModelId',
  component: lazyRouteComponent(() => import('./pages/IModelPage.tsx'), 'IModelPage'),
  validateSearch: (search): IModelSearch => {
    const clone = search.clone === 'head' ? 'head' : indexIn(search.clone);
    const at = indexIn(search.at);
    return { ...(clone !== undefined && { clone }), ...(at !== undefined && { at }) };
  },
});

const ofIModel = { getParentRoute: () => iModel } as const;
const overview = createRoute({
  ...ofIModel,
  path: '/',
  component: lazyRouteComponent(() => import('./pages/OverviewPage.tsx'), 'OverviewPage'),
});
const timeline = createRoute({
  ...ofIModel,
  path: 'timeline',
  component: lazyRouteComponent(() => import('./pages/TimelinePage.tsx'), 'TimelinePage'),
});

const versions = createRoute({
  ...ofIModel,
  path: 'versions',
  component: lazyRouteComponent(() => import('./pages/VersionsPage.tsx'), 'VersionsPage'),
});
const access = createRoute({
  ...ofIModel,
  path: 'access',
  component: lazyRouteComponent(() => import('./pages/AccessPage.tsx'), 'AccessPage'),
});
const shares = createRoute({
  ...ofIModel,
  path: 'shares',
  component: lazyRouteComponent(() => import('./pages/SharesPage.tsx'), 'SharesPage'),
});
const family = createRoute({
  ...ofIModel,
  path: 'family',
  component: lazyRouteComponent(() => import('./family/FamilyPage.tsx'), 'FamilyPage'),
});
const view = createRoute({
  ...ofIModel,
  path: 'view',
  component: lazyRouteComponent(() => import('./view/ViewPage.tsx'), 'ViewPage'),
  validateSearch: viewSearch,
});
const work = createRoute({
  ...ofIModel,
  path: 'work',
  component: lazyRouteComponent(() => import('./pages/WorkPage.tsx'), 'WorkPage'),
});

const creation = createRoute({
  getParentRoute: () => root,
  path: '/imodels/$iModelId/creation',
  component: lazyRouteComponent(() => import('./pages/CreationPage.tsx'), 'CreationPage'),
});

function RouteFault({ error, reset }: ErrorComponentProps) {
  return <FaultState fault={error} onRetry={reset} />;
}

export const router = createRouter({
  routeTree: root.addChildren([
    iTwins,
    iTwin,
    creation,
    iModel.addChildren([overview, view, timeline, versions, family, access, shares, work]),
  ]),
  basepath: basePath === '' ? '/' : basePath,
  defaultPendingComponent: Waiting,
  defaultErrorComponent: RouteFault,
  defaultPreload: 'intent',
  scrollRestoration: true,
});

declare module '@tanstack/react-router' {
  interface Register {
    router: typeof router;
  }
}
