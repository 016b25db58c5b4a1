import { randomUUID } from 'node:crypto';

/**
 * A UUID of version 7: the time in milliseconds, then random bits. Keys in the order of insertion append to the end of their index,
 * where each random key changes a page anywhere in it.
 */
export function orderedId(): string {
  const time = Date.now().toString(16).padStart(12, '0');
  // The version is the digit after the second hyphen; the rest of a random UUID has the right form already.
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}
