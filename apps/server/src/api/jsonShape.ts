/** How a JSON text is built, told without parsing it. */
export interface JsonShape {
  /** Objects and arrays within each other. */
  depth: number;
  /** Values and containers, an upper bound. */
  values: number;
}

const [quote, backslash, comma, openBrace, closeBrace, openBracket, closeBracket] = Array.from(
  '"\\,{}[]',
  (character) => character.charCodeAt(0),
);

/**
 * Measures a JSON text in one pass, so that one which is nested too deeply, or holds too many values, is refused before anything
 * recurses into it or looks at each value. What it says of a text that is no JSON does not matter.
 */
export function shapeOf(text: string): JsonShape {
  let [depth, deepest, values, inText] = [0, 0, 1, false];
  for (let at = 0; at < text.length; at++) {
    const code = text.charCodeAt(at);
    if (inText) {
      if (code === backslash) at++;
      else if (code === quote) inText = false;
    } else if (code === quote) inText = true;
    else if (code === comma) values++;
    else if (code === openBrace || code === openBracket) {
      values++;
      depth++;
      if (depth > deepest) deepest = depth;
    } else if (code === closeBrace || code === closeBracket) depth--;
  }
  return { depth: deepest, values };
}
