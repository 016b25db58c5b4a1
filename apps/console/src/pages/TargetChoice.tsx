import { ComboBox, Label } from '@itwin/itwinui-react';
import { useInfiniteQuery, useQuery, type InfiniteData } from '@tanstack/react-query';
import { useMemo, useState } from 'react';
import { useTranslation } from 'react-i18next';
import type { Paged } from '../api/client.ts';
import { itemsOf, iTwinQuery, iTwinsQuery } from '../api/queries.ts';
import type { ITwin } from '../api/types.ts';

/** The iTwin that will hold the clone, found by its name or number. */
export function TargetChoice({ value, onChange }: { value: string; onChange: (iTwinId: string) => void }) {
  const { t } = useTranslation();
  const [search, setSearch] = useState('');
  const own = useQuery(iTwinQuery(value));
  const list = useInfiniteQuery(iTwinsQuery('all', search));
  const iTwins = useSeen(list.data, own.data);
  const options = useMemo(() => iTwins.map(({ id, displayName }) => ({ value: id, label: displayName })), [iTwins]);
  const matching = (all: typeof options, typed: string): typeof options => {
    const wanted = typed.trim().toLowerCase();
    return all.filter((_, index) => {
      const { displayName, number } = iTwins[index] as ITwin;
      return [displayName, number].some((text) => text.toLowerCase().includes(wanted));
    });
  };
  return (
    <div>
      <Label htmlFor="clone-target" required>
        {t('clone.target')}
      </Label>
      <ComboBox
        options={options}
        value={value}
        onChange={(chosen) => {
          if (chosen !== '') onChange(chosen);
        }}
        onHide={() => setSearch('')}
        filterFunction={matching}
        emptyStateMessage={t('lists.nothing')}
        inputProps={{
          id: 'clone-target',
          onChange: ({ currentTarget }) => setSearch(currentTarget.value.trim()),
        }}
      />
    </div>
  );
}

/**
 * All iTwins that were found so far. The list stays the same object until another iTwin is found: when its options change, the
 * combo box moves the focus back to the chosen one, and whoever has just moved it by an arrow key would choose the wrong iTwin.
 */
function useSeen(data: InfiniteData<Paged<ITwin>> | undefined, own: ITwin | undefined): readonly ITwin[] {
  const [seen, setSeen] = useState<readonly ITwin[]>([]);
  const found = own === undefined ? itemsOf(data) : [own, ...itemsOf(data)];
  const known = new Set(seen.map(({ id }) => id));
  const added = found.filter(({ id }) => !known.has(id));
  if (added.length === 0) return seen;
  const unique = new Map([...seen, ...added].map((each) => [each.id, each]));
  const all = [...unique.values()].sort((a, b) => a.displayName.localeCompare(b.displayName));
  setSeen(all);
  return all;
}
