/**
 * Version of what is drawn. 1 (without a number in the summary): no subcategories, no textures, and neither fillings nor texts of plans.
 * 2: no textures in the thumbnail, and no texts of three-dimensional elements.
 * Graphics of an earlier version are shown as they are and drawn anew on request.
 */
export const graphicsFormat = 3;

/** Limits of one drawing. */
export interface DrawingLimits {
  /** Triangles that are drawn; the smallest elements are left out beyond it. */
  maxTriangles: number;
  /** Elements that are listed and drawn; the smallest ones are left out beyond it. */
  maxElements: number;
}

/** A box, metres. */
export interface Box {
  low: [number, number, number];
  high: [number, number, number];
}

/** What the graphics of an iModel contain, and what had to be left out. */
export interface GraphicsSummary {
  /** `graphicsFormat` of the server that drew; undefined for 1. */
  format?: number;
  /** Elements with geometry, drawn or not. */
  elements: number;
  triangles: number;
  omittedElements: number;
  /** Triangles of the omitted elements that were counted before drawing stopped: the least that is missing. */
  omittedTriangles: number;
  /** Textures that are too many, too large or not readable; their surfaces have the colour of the material. Undefined in format 1. */
  omittedTextures?: number;
  /** Whether the iModel has two-dimensional elements only, which are drawn in plan. */
  is2d: boolean;
  /** Extents of what is drawn; null for an iModel without geometry. */
  bounds: Box | null;
}

/** A chunk of the graphics. */
export interface ChunkDetail {
  triangles: number;
  bounds: Box;
}

/** Part of a drawing: a chunk of geometry, the table of elements, or a picture in one of two sizes. */
export type GraphicsFileKind = 'chunk' | 'elements' | 'small' | 'large';

/** A file that the graphics process wrote to its folder. */
export interface DrawnFile {
  kind: GraphicsFileKind;
  name: string;
  /** Of a chunk. */
  detail?: ChunkDetail;
}

/** What the graphics process is asked for. It writes its files beside the model file. */
export interface DrawingRequest extends DrawingLimits {
  file: string;
}

export interface DrawingResult {
  summary: GraphicsSummary;
  files: DrawnFile[];
}
