import { useQuery } from '@tanstack/react-query';
import { useMemo } from 'react';
import { elementsQuery, graphicsQuery, type ElementTable, type Graphics } from './graphics.ts';
import type { Point } from './search.ts';

export interface LoadedPoint extends Point {
  graphics: Graphics | undefined;
  table: ElementTable | undefined;
  /** The index of each element in the table. */
  indexes: ReadonlyMap<string, number>;
  fault: unknown;
  retry: () => void;
}

/** The graphics and the elements of a point. */
export function usePoint({ iModelId, index }: Point, enabled = true): LoadedPoint {
  const graphics = useQuery({ ...graphicsQuery(iModelId, index), enabled });
  const elements = elementsQuery(iModelId, index, graphics.data);
  const table = useQuery({ ...elements, enabled: enabled && elements.enabled === true });
  const indexes = useMemo(() => new Map((table.data?.elements.id ?? []).map((id, n) => [id, n])), [table.data]);
  return {
    iModelId,
    index,
    graphics: enabled ? graphics.data : undefined,
    table: enabled ? table.data : undefined,
    indexes,
    fault: graphics.error ?? table.error,
    retry: () => void (graphics.isError ? graphics.refetch() : table.refetch()),
  };
}
