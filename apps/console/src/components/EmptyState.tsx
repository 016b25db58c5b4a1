import { NonIdealState } from '@itwin/itwinui-react';
import type { ReactNode } from 'react';

/** A list without entries: what belongs there, and what to do first. */
export function EmptyState({
  picture,
  title,
  text,
  actions,
}: {
  picture: ReactNode;
  title: string;
  text: string;
  actions?: ReactNode;
}) {
  return (
    <div className="state">
      <NonIdealState svg={picture} heading={title} description={text} actions={actions} />
    </div>
  );
}
