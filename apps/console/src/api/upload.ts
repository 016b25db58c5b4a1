import { ApiFault } from './fault.ts';

/** Files are uploaded in parts of this many bytes, as the clients of the API do. */
const partBytes = 16 * 1024 * 1024;
/** Longest time in which a part makes no progress, milliseconds. */
const stallMs = 120_000;

interface UploadOptions {
  signal: AbortSignal;
  onProgress: (sentBytes: number) => void;
}

/** Uploads a file through a signed link, by the protocol of Azure Blob. */
export async function upload(href: string, file: File, options: UploadOptions): Promise<void> {
  if (file.size <= partBytes) {
    await put(href, file, { ...options, headers: { 'x-ms-blob-type': 'BlockBlob' } });
    return;
  }
  const ids: string[] = [];
  for (let start = 0; start < file.size; start += partBytes) {
    const id = btoa(String(ids.length).padStart(6, '0'));
    await put(`${href}&comp=block&blockid=${encodeURIComponent(id)}`, file.slice(start, start + partBytes), {
      signal: options.signal,
      onProgress: (sent) => options.onProgress(start + sent),
    });
    ids.push(id);
  }
  const list = `<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.map((id) => `<Latest>${id}</Latest>`).join('')}</BlockList>`;
  await put(`${href}&comp=blocklist`, new Blob([list], { type: 'application/xml' }), {
    signal: options.signal,
    onProgress: () => undefined,
  });
}

/** One request. `fetch` does not tell how much of a body was sent. */
function put(
  href: string,
  body: Blob,
  { signal, onProgress, headers = {} }: UploadOptions & { headers?: Record<string, string> },
): Promise<void> {
  // Between two parts nothing listens for the end.
  signal.throwIfAborted();
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const request = new XMLHttpRequest();
  let timer: ReturnType<typeof setTimeout> | undefined;
  const watch = () => {
    clearTimeout(timer);
    timer = setTimeout(() => request.abort(), stallMs);
  };
  const abort = () => request.abort();
  signal.addEventListener('abort', abort, { once: true });
  request.open('PUT', href);
  for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
  request.upload.onprogress = ({ loaded }) => {
    watch();
    onProgress(loaded);
  };
  request.onload = () =>
    request.status < 300
      ? resolve()
      : reject(new ApiFault(request.status, refusal(request.status), request.statusText));
  request.onerror = () => reject(new ApiFault(0, 'NoAnswer', 'The upload broke off.'));
  request.onabort = () =>
    reject(signal.aborted ? (signal.reason as Error) : new ApiFault(0, 'NoAnswer', 'The upload made no progress.'));
  request.onloadend = () => {
    clearTimeout(timer);
    signal.removeEventListener('abort', abort);
  };
  watch();
  request.send(body);
  return promise;
}

/** The store answers in words of its own. */
function refusal(status: number): string {
  if (status === 507) return 'InsufficientStorage';
  return status >= 500 ? 'Unavailable' : 'UploadRefused';
}
