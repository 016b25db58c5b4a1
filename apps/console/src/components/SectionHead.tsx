import { Text } from '@itwin/itwinui-react';
import type { ReactNode } from 'react';

/** The head of a section of a page: what it shows, and what can be added. */
export function SectionHead({ title, text, action }: { title: string; text?: string; action?: ReactNode }) {
  return (
    <div className="page-head">
      <div>
        <Text as="h2" variant="title">
          {title}
        </Text>
        {text !== undefined && (
          <Text as="p" isMuted>
            {text}
          </Text>
        )}
      </div>
      {action}
    </div>
  );
}
