/**
 * The operations that viewers may call. Everything that is not listed is refused: an operation of a later version of
 * iTwin.js is unknown here until somebody has read what it does.
 */

/** How an operation is answered. `read`: by the back end. The others also through the cache of tiles. */
export type OperationKind = 'read' | 'tileTree' | 'generateTile' | 'retrieveTile';

const readOperations = {
  IModelReadRpcInterface: [
    'getConnectionProps',
    'queryRows',
    'querySubCategories',
    'queryAllUsedSpatialSubCategories',
    'queryBlob',
    'getModelProps',
    'queryModelRanges',
    'queryModelExtents',
    'queryModelProps',
    'getElementProps',
    'queryElementProps',
    'queryEntityIds',
    'getClassHierarchy',
    'getAllCodeSpecs',
    'getViewStateData',
    'readFontJson',
    'getToolTipMessage',
    'getViewThumbnail',
    'getDefaultViewId',
    'getCustomViewState3dData',
    'hydrateViewState',
    'requestSnap',
    'cancelSnap',
    'getGeometryContainment',
    'getMassProperties',
    'getMassPropertiesPerCandidate',
    'getIModelCoordinatesFromGeoCoordinates',
    'getGeoCoordinatesFromIModelCoordinates',
    'getGeometrySummary',
    'queryTextureData',
    'loadElementProps',
    'generateElementMeshes',
  ],
  IModelTileRpcInterface: ['getTileCacheConfig', 'queryVersionInfo', 'requestElementGraphics'],
  ECSchemaRpcInterface: ['getSchemaKeys', 'getSchemaJSON'],
  PresentationRpcInterface: [
    'getNodesCount',
    'getPagedNodes',
    'getNodesDescriptor',
    'getNodePaths',
    'getFilteredNodePaths',
    'getContentSources',
    'getContentDescriptor',
    'getContentSetSize',
    'getPagedContent',
    'getPagedContentSet',
    'getElementProperties',
    'getPagedDistinctValues',
    'getContentInstanceKeys',
    'getDisplayLabelDefinition',
    'getPagedDisplayLabelDefinitions',
    'getSelectionScopes',
    'computeSelection',
  ],
} as const;

const tileOperations = new Map<string, OperationKind>([
  ['IModelTileRpcInterface.requestTileTreeProps', 'tileTree'],
  ['IModelTileRpcInterface.generateTileContent', 'generateTile'],
  ['IModelTileRpcInterface.retrieveTileContent', 'retrieveTile'],
]);

/**
 * Operations that are refused although viewers know them, and why. Snapshots name files of the server; the others change
 * something, or something that all viewers of a checkpoint share.
 */
export const refusedOperations: ReadonlyMap<string, string> = new Map([
  [
    'IModelReadRpcInterface.callViewStore',
    'It may write views into a store of their own, which this server does not have.',
  ],
  ['IModelTileRpcInterface.purgeTileTrees', 'It discards tiles that all viewers of a checkpoint share.'],
  ['SnapshotIModelRpcInterface.openFile', 'It opens a file of the server.'],
  ['SnapshotIModelRpcInterface.openRemote', 'It opens a file that the server knows by a key.'],
  ['SnapshotIModelRpcInterface.close', 'It closes an iModel that others may be viewing.'],
]);

const allowed = new Map<string, OperationKind>([
  ...Object.entries(readOperations).flatMap(([name, operations]) =>
    operations.map((operation): [string, OperationKind] => [`${name}.${operation}`, 'read']),
  ),
  ...tileOperations,
]);

/** How an operation is answered; undefined if it is refused. @param operation interface and operation, `A.b` */
export function kindOf(operation: string): OperationKind | undefined {
  return allowed.get(operation);
}
