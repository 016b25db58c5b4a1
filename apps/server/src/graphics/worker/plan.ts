import type { SnapshotDb } from '@itwin/core-backend';
import type { DynamicGraphicsRequest3dProps, PersistentGraphicsRequestProps } from '@itwin/core-common';
import type { Drawable } from './elements.ts';
import { ElementTile, type TilePiece } from './elementTile.ts';

/** The part of iTwin.js that draws single elements. */
export type ElementDrawer = Pick<SnapshotDb, 'generateElementGraphics'>;

/** Elements that are drawn at once, each on a thread of iTwin.js. */
const atOnce = 16;
/** Tolerance of curves, as a power of ten below the size of the element: at least one part in a thousand. */
const finer = 3;
/** An element whose graphics take more bytes than this, about 400,000 triangles, is not drawn so finely. */
const mostBytes = 16_000_000;
/** Letters are outlines from a tolerance that depends on their height, and pictures before: it is made finer this often. */
const tries = 4;

/** What one element shows: the whole of it, or some of its geometry. */
export type Subject = OmitId<PersistentGraphicsRequestProps> | OmitId<DynamicGraphicsRequest3dProps>;
type OmitId<T> = Omit<T, 'id' | 'toleranceLog10'>;

/** Draws two-dimensional elements one by one, because `exportGraphics` gives nothing for them. */
export function drawPlan(db: ElementDrawer, batch: readonly Drawable[]): Promise<Map<string, TilePiece[]>> {
  return drawEach(db, batch, ({ id }) => ({ elementId: id }));
}

/**
 * Draws elements one by one. One that cannot be drawn is left without geometry.
 * @param subjectOf what is drawn of an element; undefined for nothing
 */
export async function drawEach(
  db: ElementDrawer,
  batch: readonly Drawable[],
  subjectOf: (element: Drawable) => Subject | undefined,
): Promise<Map<string, TilePiece[]>> {
  const drawn = new Map<string, TilePiece[]>();
  for (let n = 0; n < batch.length; n += atOnce)
    await Promise.all(
      batch.slice(n, n + atOnce).map(async (element) => {
        const pieces = await piecesOf(db, subjectOf, element).catch((): TilePiece[] => []);
        if (pieces.length > 0) drawn.set(element.id, pieces);
      }),
    );
  return drawn;
}

async function piecesOf(
  db: ElementDrawer,
  subjectOf: (element: Drawable) => Subject | undefined,
  element: Drawable,
): Promise<TilePiece[]> {
  const subject = subjectOf(element);
  if (subject === undefined) return [];
  const { id, box } = element;
  const size = Math.max(box[3] - box[0], box[4] - box[1], box[5] - box[2], 1e-3);
  const first = Math.floor(Math.log10(size)) - finer;
  let tile: ElementTile | undefined;
  for (let n = 0; n <= tries; n++) {
    const content = await db.generateElementGraphics({
      ...subject,
      id: `${id} ${n}`,
      toleranceLog10: first - n,
      edgeType: 1,
      quantizePositions: true,
    });
    if (content === undefined || content.length > mostBytes) break;
    tile = new ElementTile(content);
    if (!tile.hasPicturesOfLetters) break;
  }
  return tile?.pieces() ?? [];
}
