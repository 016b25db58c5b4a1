import { QueryClient } from '@tanstack/react-query';
import { ApiFault } from './api/fault.ts';

const mostRetries = 3;
/** Longest wait that a read accepts before it is sent again by itself, seconds. */
const longestWait = 20;

/** Reads are sent again when the server cannot answer just now, never when it refuses. */
function again(failures: number, error: Error): boolean {
  if (!(error instanceof ApiFault) || failures >= mostRetries) return false;
  if (error.status === 429) return (error.retryAfter ?? longestWait) <= longestWait;
  return error.status === 0 || error.status >= 500;
}

/** How often a page looks whether a server that did not answer is back, milliseconds. */
const goneMs = 5000;

/** Whether nothing answered: no server, or a proxy that does not reach it. */
const isGone = (error: Error | null): boolean => error instanceof ApiFault && [0, 502, 503, 504].includes(error.status);

export const queryClient = new QueryClient({
  defaultOptions: {
    queries: {
      // A server on this computer answers without a network, and otherwise the console says that nothing answers.
      networkMode: 'always',
      staleTime: 10_000,
      retry: again,
      refetchInterval: ({ state: { error } }) => (isGone(error) ? goneMs : false),
      retryDelay: (attempt, error) =>
        error instanceof ApiFault && error.retryAfter !== undefined
          ? error.retryAfter * 1000
          : Math.min(1000 * 2 ** attempt, 8000),
    },
    mutations: { retry: false, networkMode: 'always' },
  },
});
