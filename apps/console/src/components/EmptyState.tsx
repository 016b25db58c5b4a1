import { NonIdealState } from '@itwin/itwinui-react';
import type { ReactNode } from 'react';

/** A list without entries: what belongs there, and what to do first. */
export function EmptyState({
  picture,
  title,
  text,
  actions,
  heading: Heading = 'h2',
}: {
  picture: ReactNode;
  title: string;
  text: string;
  actions?: ReactNode;
  heading?: 'h1' | 'h2';
}) {
  return (
    <div className="state">
      <NonIdealState svg={picture} heading={<Heading>{title}</Heading>} description={text} actions={actions} />
    </div>
  );
}
