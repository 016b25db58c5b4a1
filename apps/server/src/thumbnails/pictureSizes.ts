/** Rule of the API: two sizes, pixels. */
export const sizes = { small: { width: 400, height: 250 }, large: { width: 800, height: 500 } } as const;
export type ThumbnailSize = keyof typeof sizes;

/** Rule of the API: largest picture that is taken, bytes. */
export const maxThumbnailBytes = 5_242_880;

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
