import { Text } from '@itwin/itwinui-react';
import { useEffect, useRef, type ReactNode } from 'react';
import { useTitle } from './useTitle.ts';

interface PageProps {
  title: string;
  /** What of it is shown, as a tab. */
  part?: string | undefined;
  /** Beside the title: favorite, badges. */
  beside?: ReactNode;
  subtitle?: ReactNode;
  actions?: ReactNode;
  children: ReactNode;
}

/** A page with its heading. The heading gets the focus after a navigation, so that screen readers say where they are. */
export function Page({ title, part, beside, subtitle, actions, children }: PageProps) {
  const heading = useRef<HTMLHeadingElement>(null);
  useTitle(part, title);
  useEffect(() => {
    if (document.activeElement === document.body || document.activeElement === null)
      heading.current?.focus({ preventScroll: true });
  }, []);
  return (
    <div className="page">
      <div className="page-head">
        <div className="page-title">
          <Text as="h1" variant="headline" ref={heading} tabIndex={-1}>
            {title}
          </Text>
          {beside}
          {subtitle !== undefined && (
            <Text as="p" isMuted className="page-subtitle">
              {subtitle}
            </Text>
          )}
        </div>
        {actions !== undefined && <div className="actions">{actions}</div>}
      </div>
      {children}
    </div>
  );
}
