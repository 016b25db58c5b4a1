import { IconButton, Tile, useToaster } from '@itwin/itwinui-react';
import { SvgStar, SvgStarHollow } from '@itwin/itwinui-icons-react';
import { useMutation, useQuery, useQueryClient } from '@tanstack/react-query';
import { useTranslation } from 'react-i18next';
import { api } from '../api/client.ts';
import { favoritesQuery, refresh } from '../api/queries.ts';
import { faultText } from '../faultText.ts';

interface FavoriteProps {
  kind: 'iTwin' | 'iModel';
  id: string;
  /** The iTwin of an iModel. */
  iTwinId?: string;
  name: string;
  /** On a card. */
  onTile?: boolean;
}

/** The star that makes an iTwin or iModel a favorite. */
export function Favorite({ kind, id, iTwinId, name, onTile = false }: FavoriteProps) {
  const { t } = useTranslation();
  const toaster = useToaster();
  const client = useQueryClient();
  const query = favoritesQuery(kind === 'iTwin' ? undefined : iTwinId);
  const { data } = useQuery(query);
  const isFavorite = data?.has(id) ?? false;
  const change = useMutation({
    // One after the other: two requests at once could arrive in the other order.
    scope: { id: `favorite ${id}` },
    mutationKey: ['favorite', id],
    mutationFn: (wanted: boolean) =>
      api<undefined>(`/${kind === 'iTwin' ? 'itwins' : 'imodels'}/favorites/${id}`, {
        method: wanted ? (kind === 'iTwin' ? 'POST' : 'PUT') : 'DELETE',
      }),
    onMutate: async (wanted) => {
      // An answer from before the change would undo it on the page.
      await client.cancelQueries({ queryKey: query.queryKey });
      client.setQueryData(query.queryKey, (before) => {
        const ids = new Set(before);
        if (wanted) ids.add(id);
        else ids.delete(id);
        return ids;
      });
    },
    onError: (error) => toaster.negative(faultText(error, t).title),
    onSettled: async () => {
      // The last one of several reads it again.
      if (client.isMutating({ mutationKey: ['favorite', id] }) > 1) return;
      await refresh(
        client,
        query.queryKey,
        kind === 'iTwin' ? ['iTwins', 'favorites'] : ['iModels', iTwinId ?? '', 'favorites'],
      );
    },
  });
  const label = t(isFavorite ? 'favorites.remove' : 'favorites.add', { name });
  const icon = isFavorite ? <SvgStar className="star" /> : <SvgStarHollow />;
  const toggle = () => change.mutate(!isFavorite);
  if (onTile)
    return (
      <Tile.QuickAction>
        <Tile.IconButton label={label} aria-pressed={isFavorite} onClick={toggle}>
          {icon}
        </Tile.IconButton>
      </Tile.QuickAction>
    );
  return (
    <IconButton styleType="borderless" label={label} aria-pressed={isFavorite} onClick={toggle}>
      {icon}
    </IconButton>
  );
}
