export function Logo({ size }: { size: number }) {
  return (
    <svg viewBox="0 0 32 32" width={size} height={size} aria-hidden="true" focusable="false">
      <rect width="32" height="32" rx="7" fill="#0b5cad" />
      <path d="M10 25V13.5M10 18c0-5 12-2.5 12-9" fill="none" stroke="#fff" strokeWidth="2.8" strokeLinecap="round" />
      <circle cx="10" cy="9.5" r="3.3" fill="#fff" />
      <circle cx="22" cy="7.5" r="3.3" fill="#9fd0ff" />
    </svg>
  );
}
