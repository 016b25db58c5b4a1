/** Rule of the API: two sizes, pixels. */
export const sizes = { small: { width: 400, height: 250 }, large: { width: 800, height: 500 } } as const;
export type ThumbnailSize = keyof typeof sizes;

/** Rule of the API: largest picture that is taken, bytes. */
export const maxThumbnailBytes = 5_242_880;

/**
 * Most pixels of a picture. A PNG is decoded as a whole, four bytes a pixel: 4096 × 4096 is 40 times what a thumbnail has, and more
 * than a screen. A JPEG is decoded at a fraction of its size, so photographs of 50 megapixels cost less than that.
 */
export const maxPixels = { png: 4096 * 4096, jpeg: 50_000_000 } as const;

/** Why a picture is not scaled. */
export type PictureFault = 'notAPicture' | 'proportions' | 'tooManyPixels' | 'notInstalled';

/** First line of what the process answers; the pictures follow, the small one first. */
export interface ScaledHead {
  fault?: PictureFault;
  /** For the log. */
  cause?: string;
  /** Length of each picture. */
  bytes: number[];
}
