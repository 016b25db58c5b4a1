import { useQuery } from '@tanstack/react-query';
import { useEffect, useRef, useState } from 'react';
import { thumbnailQuery } from '../api/queries.ts';

/** How long after a change a new picture may appear, and how often it is looked for until then, milliseconds. */
const newPictureMs = 600_000;
const pictureMs = 5000;

/** Whether an element has come into view. */
function useSeen<E extends Element>(): [React.RefObject<E | null>, boolean] {
  const ref = useRef<E>(null);
  const [seen, setSeen] = useState(false);
  useEffect(() => {
    const element = ref.current;
    if (element === null || seen) return;
    const observer = new IntersectionObserver(
      (entries) => {
        if (entries.some(({ isIntersecting }) => isIntersecting)) setSeen(true);
      },
      { rootMargin: '300px' },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, [seen]);
  return [ref, seen];
}

/** The address of a blob for as long as it is shown. */
function useObjectUrl(blob: Blob | undefined): string | undefined {
  const [url, setUrl] = useState<string>();
  useEffect(() => {
    if (blob === undefined) return;
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => {
      URL.revokeObjectURL(made);
      setUrl(undefined);
    };
  }, [blob]);
  return url;
}

/** The picture of an iModel. It is read with a token, so it cannot be the address of an image; and only when it is seen. */
export function Thumbnail({
  iModelId,
  size = 'small',
  changedAt,
}: {
  iModelId: string;
  size?: 'small' | 'large';
  /** When the iModel was changed last. */
  changedAt?: string;
}) {
  const [ref, seen] = useSeen<HTMLDivElement>();
  const { data } = useQuery({
    ...thumbnailQuery(iModelId, size),
    enabled: seen,
    // The server draws a new picture some time after a change.
    refetchInterval: () =>
      changedAt !== undefined && Date.now() - Date.parse(changedAt) < newPictureMs ? pictureMs : false,
  });
  const url = useObjectUrl(data);
  return (
    <div ref={ref} className="thumbnail">
      {url !== undefined && <img src={url} alt="" decoding="async" />}
    </div>
  );
}
