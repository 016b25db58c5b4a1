import { useMutation, type UseMutationOptions, type UseMutationResult } from '@tanstack/react-query';
import { useEffect, useRef } from 'react';

/**
 * A change that is sent once. The page shows that a request is under way only after it has rendered, so a second click can come
 * before the button is disabled; it does nothing here.
 */
export function useSubmit<TData, TVariables = void>(options: UseMutationOptions<TData, Error, TVariables>) {
  const mutation: UseMutationResult<TData, Error, TVariables> = useMutation(options);
  const underWay = useRef(false);
  const mutate = (variables: TVariables): void => {
    if (underWay.current) return;
    underWay.current = true;
    mutation
      .mutateAsync(variables)
      // The mutation holds the error, and the page shows it.
      .catch(() => undefined)
      .finally(() => (underWay.current = false));
  };
  return { data: mutation.data, error: mutation.error, isPending: mutation.isPending, mutate };
}

/** Tells whether the component is still shown: an answer that comes later must not lead the user away from another page. */
export function useIsShown(): () => boolean {
  const shown = useRef(false);
  useEffect(() => {
    shown.current = true;
    return () => {
      shown.current = false;
    };
  }, []);
  return () => shown.current;
}
