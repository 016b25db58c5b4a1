import { queryOptions } from '@tanstack/react-query';
import { api, fetchLink } from '../api/client.ts';

export interface Bounds {
  low: [number, number, number];
  high: [number, number, number];
}

export interface GraphicsChunk {
  href: string;
  size: number;
  triangles: number;
  bounds: Bounds;
}

/** What is drawn at one changeset, as `GET …/graphics` answers it. */
export interface Graphics {
  changesetId: string;
  changesetIndex: number;
  state: 'scheduled' | 'successful' | 'failed' | 'none';
  error: { code: string; message: string } | null;
  summary: {
    /** Drawn by an earlier version of the server, which drew less. */
    outdated: boolean;
    elements: number;
    triangles: number;
    omittedElements: number;
    omittedTriangles: number;
    omittedTextures: number;
    is2d: boolean;
    bounds: Bounds | null;
  } | null;
  chunks: GraphicsChunk[];
  elements: { href: string; size: number } | null;
}

/** The elements of a drawing, in columns; their index is what the graphics refer to. */
export interface ElementTable {
  models: { id: string; label: string }[];
  categories: { id: string; label: string }[];
  /** Missing in tables of the first format. `category` is an index; `hidden` ones are off at first. */
  subCategories?: { id: string; label: string; category: number; hidden: boolean; elements: number }[];
  classes: string[];
  elements: {
    id: string[];
    class: number[];
    label: (string | null)[];
    model: number[];
    category: number[];
    box: (number[] | null)[];
    /** Of everything that is drawn of the element; null if it was left out. */
    hash: (string | null)[];
  };
}

/** What is drawn, from corner to corner: that of all chunks, which may be less than the boxes of the elements. */
export function boundsOf(graphics: Graphics | undefined): Bounds | undefined {
  const [first, ...others] = graphics?.chunks ?? [];
  if (first === undefined) return graphics?.summary?.bounds ?? undefined;
  const corner = (which: keyof Bounds, choose: (...values: number[]) => number) =>
    [0, 1, 2].map((n) => choose(...[first, ...others].map(({ bounds }) => bounds[which][n] ?? 0))) as Bounds['low'];
  return { low: corner('low', Math.min), high: corner('high', Math.max) };
}

/** How often graphics that are being made are asked for, milliseconds. */
const pollMs = 2000;
/** Signed links are good for longer than this, milliseconds. */
const linksMs = 60_000;

export const graphicsQuery = (iModelId: string, index: number) =>
  queryOptions({
    queryKey: ['iModel', iModelId, 'graphics', index],
    queryFn: async ({ signal }) =>
      (await api<{ graphics: Graphics }>(`/imodels/${iModelId}/changesets/${index}/graphics`, { signal })).graphics,
    refetchInterval: ({ state: { data } }) => (data?.state === 'scheduled' ? pollMs : false),
    refetchOnWindowFocus: false,
    staleTime: linksMs,
  });

/** Has a changeset drawn, or drawn again after a failure. */
export function drawGraphics(iModelId: string, index: number): Promise<unknown> {
  return api(`/imodels/${iModelId}/changesets/${index}/graphics`, { method: 'PUT' });
}

export const elementsQuery = (iModelId: string, index: number, graphics: Graphics | undefined) => {
  const href = graphics?.elements?.href;
  return queryOptions({
    // Graphics that are drawn anew have another table.
    queryKey: ['iModel', iModelId, 'graphics', index, 'elements', graphics?.summary?.outdated],
    queryFn: async ({ signal }) => (await (await fetchLink(href ?? '', signal)).json()) as ElementTable,
    enabled: href !== undefined,
    staleTime: Infinity,
    refetchOnWindowFocus: false,
  });
};

export async function chunkBytes(chunk: GraphicsChunk, signal: AbortSignal): Promise<ArrayBuffer> {
  return (await fetchLink(chunk.href, signal)).arrayBuffer();
}
