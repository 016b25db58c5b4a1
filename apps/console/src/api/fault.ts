/** One detail of an error answer. */
export interface FaultDetail {
  code: string;
  message: string;
  target?: string;
}

/** An answer of the server that is an error, or no answer at all (`status` 0). */
export class ApiFault extends Error {
  readonly status: number;
  readonly code: string;
  readonly details: readonly FaultDetail[];
  /** Seconds after which the server accepts the request, where it says so. */
  readonly retryAfter: number | undefined;

  constructor(
    status: number,
    code: string,
    message: string,
    { details = [], retryAfter }: { details?: readonly FaultDetail[]; retryAfter?: number | undefined } = {},
  ) {
    super(message);
    this.name = 'ApiFault';
    this.status = status;
    this.code = code;
    this.details = details;
    this.retryAfter = retryAfter;
  }
}

interface ErrorBody {
  error?: { code?: string; message?: string; details?: FaultDetail[] };
}

export async function faultOf(response: Response): Promise<ApiFault> {
  const body = (await response.json().catch(() => undefined)) as ErrorBody | undefined;
  const retryAfter = Number(response.headers.get('retry-after') ?? Number.NaN);
  return new ApiFault(response.status, body?.error?.code ?? 'Unknown', body?.error?.message ?? response.statusText, {
    ...(body?.error?.details !== undefined && { details: body.error.details }),
    ...(Number.isFinite(retryAfter) && { retryAfter }),
  });
}
