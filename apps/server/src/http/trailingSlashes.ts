/** A text without the slashes at its end. A regular expression would look at each run of slashes from each of its characters. */
export function withoutTrailingSlashes(text: string): string {
  let end = text.length;
  while (text[end - 1] === '/') end--;
  return text.slice(0, end);
}
