import { Text } from '@itwin/itwinui-react';
import type { ReactNode } from 'react';

/** Properties with their names. */
export function Facts({ facts }: { facts: readonly (readonly [name: string, value: ReactNode])[] }) {
  return (
    <dl className="facts">
      {facts.map(([name, value]) => (
        <div key={name}>
          <Text as="dt" variant="small" isMuted>
            {name}
          </Text>
          <Text as="dd">{value}</Text>
        </div>
      ))}
    </dl>
  );
}
