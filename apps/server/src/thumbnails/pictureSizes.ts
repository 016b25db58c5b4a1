/** Rule of the API: two sizes, pixels. */
export const sizes = { small: { width: 400, height: 250 }, large: { width: 800, height: 500 } } as const;
export type ThumbnailSize = keyof typeof sizes;

/** Rule of the API: maximum size of an uploaded picture, bytes. */
export const maxThumbnailBytes = 5_242_880;

/** Why a picture cannot be scaled. */
export type PictureFault = 'notAPicture' | 'proportions' | 'tooManyPixels' | 'notInstalled';

/** First line of the answer of the process, as JSON. The pictures follow, the small one first. */
export interface ScaledHead {
  fault?: PictureFault;
  /** For the log. */
  cause?: string;
  /** Length of each picture. */
  bytes: number[];
}
