import { Button } from '@itwin/itwinui-react';
import { useEffect, useRef } from 'react';
import { useTranslation } from 'react-i18next';
import { FaultAlert } from './FaultState.tsx';

interface MoreProps {
  hasNextPage: boolean;
  isFetchingNextPage: boolean;
  fetchNextPage: () => unknown;
  error?: unknown;
  /** Reads only when the button is pressed: the list itself tells when its end comes into view. */
  onDemand?: boolean;
}

/** The end of a list: reads the next page when it comes into view, or when the button is pressed. */
export function More({ hasNextPage, isFetchingNextPage, fetchNextPage, error, onDemand = false }: MoreProps) {
  const { t } = useTranslation();
  const failed = error != null;
  const end = useRef<HTMLDivElement>(null);
  useEffect(() => {
    const element = end.current;
    if (element === null || !hasNextPage || isFetchingNextPage || failed || onDemand) return;
    const observer = new IntersectionObserver(
      // Entries of several frames come together, of which the last one tells how it is now.
      (entries) => {
        if (entries.at(-1)?.isIntersecting === true) fetchNextPage();
      },
      { rootMargin: '600px' },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [hasNextPage, isFetchingNextPage, fetchNextPage, failed, onDemand]);
  if (!hasNextPage) return null;
  return (
    <div ref={end} className="more">
      <FaultAlert fault={error} />
      <Button loading={isFetchingNextPage} onClick={() => void fetchNextPage()}>
        {t('common.more')}
      </Button>
    </div>
  );
}
