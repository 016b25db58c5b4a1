import { useEffect } from 'react';

/** Names the page in the tab of the browser and in its history, what is special about it first. */
export function useTitle(...parts: readonly (string | undefined)[]): void {
  const title = [...parts, 'Offshoot'].filter((part) => part !== undefined).join(' - ');
  useEffect(() => {
    document.title = title;
  }, [title]);
}
