import { Button } from '@itwin/itwinui-react';
import { createLink } from '@tanstack/react-router';
import type { ComponentPropsWithRef, JSX } from 'react';

interface AnchorButtonProps extends ComponentPropsWithRef<'a'> {
  styleType?: 'cta' | 'high-visibility' | 'default' | 'borderless';
  size?: 'small' | 'large';
  startIcon?: JSX.Element;
}

function AnchorButton(props: AnchorButtonProps) {
  return <Button as="a" {...props} />;
}

/** A link to a page of the console that looks like a button. */
export const LinkButton = createLink(AnchorButton);
