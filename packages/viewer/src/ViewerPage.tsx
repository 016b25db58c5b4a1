import { IModelApp } from '@itwin/core-frontend';
import type { RealityDataAccess } from '@itwin/core-common';
import { ITwinLocalization } from '@itwin/core-i18n';
import { FrontendIModelsAccess } from '@itwin/imodels-access-frontend';
import { MeasurementActionToolbar, MeasureTools, MeasureToolsUiItemsProvider } from '@itwin/measure-tools-react';
import { createPropertyGrid, PropertyGridManager } from '@itwin/property-grid-react';
import { CategoriesTreeComponent, createTreeWidget, ModelsTreeComponent, TreeWidget } from '@itwin/tree-widget-react';
import { createStorage } from '@itwin/unified-selection';
import { Viewer } from '@itwin/web-viewer-react';
import { useMemo } from 'react';
import { consoleAddress, serverAddress } from './base.ts';
import type { Point } from './point.ts';
import type { Session, Settings } from './session.ts';

/** The official packages see the point of the address as the newest one, so that they never open another. */
class PinnedAccess extends FrontendIModelsAccess {
  readonly #changeset: { id: string; index: number };

  constructor({ changesetId, index }: Point) {
    super({ api: { baseUrl: `${serverAddress}/imodels` } });
    this.#changeset = { id: changesetId, index };
  }

  override readonly getLatestChangeset = async () => this.#changeset;
  override readonly getChangesetFromNamedVersion = async () => this.#changeset;
}

/** Reality data are services of the platform; nothing is requested from there. */
const noRealityData: RealityDataAccess = {
  getRealityData: () => Promise.reject(new Error('Reality data is not available.')),
  getRealityDataUrl: () => Promise.reject(new Error('Reality data is not available.')),
};

/** The packages have English texts only; asking for others would be a request without an answer for each of them. */
const localization = new ITwinLocalization({
  urlTemplate: 'locales/{{lng}}/{{ns}}.json',
  initOptions: { supportedLngs: ['en'], load: 'languageOnly', nonExplicitSupportedLngs: true },
});

const selectionStorage = createStorage();

const uiProviders = [
  {
    id: 'trees',
    getWidgets: () => [
      createTreeWidget({
        trees: [ModelsTreeComponent, CategoriesTreeComponent].map((Tree) => ({
          id: Tree.id,
          getLabel: () => Tree.getLabel(),
          render: () => (
            <Tree getSchemaContext={({ schemaContext }) => schemaContext} selectionStorage={selectionStorage} />
          ),
        })),
      }),
    ],
  },
  { id: 'properties', getWidgets: () => [createPropertyGrid({ selectionStorage })] },
  new MeasureToolsUiItemsProvider(),
];

async function startTools(): Promise<void> {
  // Background maps would be requested from servers on the internet.
  IModelApp.viewManager.onViewOpen.addListener((viewport) => {
    viewport.viewFlags = viewport.viewFlags.with('backgroundMap', false);
    // Browser tests and screenshots wait for it.
    viewport.onRender.addListener(() => {
      const isComplete =
        viewport.areAllTileTreesLoaded && viewport.numRequestedTiles === 0 && viewport.numReadyTiles > 0;
      viewport.canvas.dataset['state'] = isComplete ? 'complete' : 'loading';
    });
  });
  await Promise.all([
    TreeWidget.initialize(IModelApp.localization),
    PropertyGridManager.initialize(IModelApp.localization),
    MeasureTools.startup(),
  ]);
  MeasurementActionToolbar.setDefaultActionProvider();
}

export function ViewerPage({
  point,
  session,
  backend,
}: {
  point: Point;
  session: Session;
  backend: NonNullable<Settings['viewer']>;
}) {
  const hubAccess = useMemo(() => new PinnedAccess(point), [point]);
  const backendConfiguration = useMemo(
    () => ({
      defaultBackend: {
        config: {
          info: { title: backend.title, version: backend.version },
          uriPrefix: `${serverAddress}${backend.path}`,
        },
      },
    }),
    [backend],
  );
  const page = `${consoleAddress}imodels/${point.iModelId}`;
  return (
    <div className="page">
      <header>
        <h1>{point.name}</h1>
        <span>{point.index === 0 ? 'Baseline' : `Changeset ${point.index}`}</span>
        <a href={page}>Console</a>
      </header>
      <main>
        <Viewer
          authClient={session}
          iTwinId={point.iTwinId}
          iModelId={point.iModelId}
          changeSetId={point.changesetId}
          backendConfiguration={backendConfiguration}
          hubAccess={hubAccess}
          localization={localization}
          realityDataAccess={noRealityData}
          selectionStorage={selectionStorage}
          uiProviders={uiProviders}
          onIModelAppInit={startTools}
          enablePerformanceMonitors={false}
        />
      </main>
    </div>
  );
}
