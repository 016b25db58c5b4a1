import type { Look, Section, Triple } from './engine/Viewer.ts';

/** What the address of a view says beside the point that it shows. */
export interface ViewSearch {
  /** Another point to compare with: the id of an iModel and the index of a changeset. */
  with?: string;
  /** Where the camera is. */
  look?: string;
  section?: string;
  /** Id of the selected element. */
  element?: string;
}

const text = (value: unknown): string | undefined =>
  typeof value === 'string' && value !== '' && value.length < 300 ? value : undefined;

export function viewSearch(search: Record<string, unknown>): ViewSearch {
  return Object.fromEntries(
    (['with', 'look', 'section', 'element'] as const).flatMap((name) => {
      const value = text(search[name]);
      return value === undefined ? [] : [[name, value]];
    }),
  );
}

const numbers = (value: string): number[] => value.split('_').map(Number);

export function lookText({ eye, target, height }: Look): string {
  return [...eye, ...target, ...(height === undefined ? [] : [height])].map((value) => +value.toFixed(3)).join('_');
}

export function lookIn(value: string | undefined): Look | undefined {
  const found = numbers(value ?? '');
  if ((found.length !== 6 && found.length !== 7) || !found.every(Number.isFinite)) return undefined;
  return {
    eye: found.slice(0, 3) as Triple,
    target: found.slice(3, 6) as Triple,
    ...(found[6] !== undefined && { height: found[6] }),
  };
}

export const sectionText = ({ axis, at, keep }: Section): string => `${axis}_${+at.toFixed(3)}_${keep}`;

export function sectionIn(value: string | undefined): Section | undefined {
  const [, axis, at, keep] = /^([xyz])_(-?[\d.]+)_(below|above)$/.exec(value ?? '') ?? [];
  return axis === undefined || !Number.isFinite(Number(at))
    ? undefined
    : { axis: axis as Section['axis'], at: Number(at), keep: keep as Section['keep'] };
}

/** A point of the history of an iModel. */
export interface Point {
  iModelId: string;
  index: number;
}

export function pointIn(value: string | undefined): Point | undefined {
  const [, iModelId, index] = /^([0-9a-f-]{36})_(\d{1,9})$/.exec(value ?? '') ?? [];
  return iModelId === undefined ? undefined : { iModelId, index: Number(index) };
}

export const pointText = ({ iModelId, index }: Point): string => `${iModelId}_${index}`;
