import { useQueries, useQuery } from '@tanstack/react-query';
import { useEffect, useState } from 'react';
import { changesetsQuery, nameOf, peopleQuery, timelinePage, type Person } from '../../api/queries.ts';
import type { Changeset } from '../../api/types.ts';

/** How long the rows in view stay the same before they are read, milliseconds: what only passes by is not read. */
const restMs = 80;

/** Indexes at which the pages begin that hold the changesets from `first` to `last`. */
function pagesOf(first: number, last: number): number[] {
  const pages: number[] = [];
  const begin = (index: number) => Math.floor((index - 1) / timelinePage) * timelinePage + 1;
  for (let start = begin(Math.max(1, first)); start <= last; start += timelinePage) pages.push(start);
  return pages;
}

/** A changeset with the name of its author. */
export type ShownChangeset = Changeset & { author: string | undefined };

/** The changesets in view, by index; those that are not there yet are missing. Pages are addressed by index, so any of them costs the same. */
export function useChangesets(iModelId: string, first: number, last: number): ReadonlyMap<number, ShownChangeset> {
  const [range, setRange] = useState({ first, last });
  useEffect(() => {
    const timer = setTimeout(() => setRange({ first, last }), restMs);
    return () => clearTimeout(timer);
  }, [first, last]);
  const pages = useQueries({
    queries: pagesOf(range.first, range.last).map((start) => changesetsQuery(iModelId, start)),
    combine: (results) => results.flatMap(({ data }) => data ?? []),
  });
  const authors = useQuery(peopleQuery(pages.flatMap((page) => [...page.values()].map(({ creatorId }) => creatorId))));
  const people: ReadonlyMap<string, Person> = authors.data ?? new Map<string, Person>();
  const found = new Map<number, ShownChangeset>();
  for (const page of pages)
    for (const [index, changeset] of page) {
      const author = people.get(changeset.creatorId);
      found.set(index, { ...changeset, author: author === undefined ? undefined : nameOf(author) });
    }
  return found;
}
