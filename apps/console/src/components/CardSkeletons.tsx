import { Tile } from '@itwin/itwinui-react';
import { useTranslation } from 'react-i18next';

const places = [1, 2, 3, 4, 5, 6];

/** Cards in the places where those of the list will be. */
export function CardSkeletons({ variant = 'default' }: { variant?: 'default' | 'folder' }) {
  const { t } = useTranslation();
  return (
    <div className="cards" role="status" aria-label={t('common.loading')}>
      {places.map((place) => (
        <Tile.Wrapper key={place} variant={variant} aria-hidden className="card skeleton">
          <Tile.ThumbnailArea />
          <Tile.ContentArea>
            <span className="bone" />
            <span className="bone short" />
          </Tile.ContentArea>
        </Tile.Wrapper>
      ))}
    </div>
  );
}
