import { ProgressLinear, VisuallyHidden } from '@itwin/itwinui-react';
import { percentText } from '../format.ts';

/** Screen readers are told every so many percent: more often they would say nothing else. */
const saidPercent = 10;

interface ProgressBarProps {
  label: string;
  /** From 0 to 1; undefined if nobody knows. */
  share?: number | undefined;
  labels?: string[];
}

/** How far work has come, for eyes and for screen readers. */
export function ProgressBar({ label, share, labels = [] }: ProgressBarProps) {
  const percent = share === undefined ? undefined : Math.min(100, Math.round(share * 100));
  const said = percent === undefined ? undefined : Math.floor(percent / saidPercent) * saidPercent;
  return (
    <div>
      <ProgressLinear
        role="progressbar"
        aria-label={label}
        aria-valuemin={0}
        aria-valuemax={100}
        aria-valuenow={percent}
        {...(percent === undefined ? { indeterminate: true } : { value: percent })}
        labels={labels}
      />
      <VisuallyHidden role="status">
        {said === undefined ? label : `${label}: ${percentText(said / 100)}`}
      </VisuallyHidden>
    </div>
  );
}
