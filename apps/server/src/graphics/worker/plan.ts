import type { SnapshotDb } from '@itwin/core-backend';
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

/**
 * Draws two-dimensional elements one by one, because `exportGraphics` gives nothing for them. An element that cannot be drawn is
 * left without geometry.
 */
export async function drawPlan(db: ElementDrawer, batch: readonly Drawable[]): Promise<Map<string, TilePiece[]>> {
  const drawn = new Map<string, TilePiece[]>();
  for (let n = 0; n < batch.length; n += atOnce)
    await Promise.all(
      batch.slice(n, n + atOnce).map(async ({ id, box }) => {
        const pieces = await piecesOf(db, id, box).catch(() => undefined);
        if (pieces !== undefined) drawn.set(id, pieces);
      }),
    );
  return drawn;
}

async function piecesOf(db: ElementDrawer, elementId: string, box: Drawable['box']): Promise<TilePiece[]> {
  const size = Math.max(box[3] - box[0], box[4] - box[1], 1e-3);
  const first = Math.floor(Math.log10(size)) - finer;
  let tile: ElementTile | undefined;
  for (let n = 0; n <= tries; n++) {
    const content = await db.generateElementGraphics({
      id: `${elementId} ${n}`,
      elementId,
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
