/** Text from clients is decoded strictly: lenient decoding would store something other than what was sent. */

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
const charsets = new Set(['utf-8', 'utf8', 'us-ascii', 'ascii']);

/** Bytes as text. @returns undefined when they are not UTF-8 */
export function decodeUtf8(bytes: Uint8Array): string | undefined {
  try {
    return utf8.decode(bytes);
  } catch {
    return undefined;
  }
}

/** Whether a content type names a charset that is UTF-8 or a part of it, or none. Rule of JSON (RFC 8259, 8.1): it is UTF-8. */
export function isUtf8Type(contentType: string): boolean {
  const charset = contentType
    .split(';')
    .slice(1)
    .map((parameter) => parameter.split('=', 2).map((part) => part.trim().toLowerCase()))
    .find(([name]) => name === 'charset')?.[1];
  return charset === undefined || charsets.has(charset.replace(/^"([^"]*)"$/, '$1'));
}

/** Names of the parameters of a query that are not UTF-8. */
export const undecodable = Symbol('undecodable');

/**
 * Parses a query string. A `%` that begins no escape stands for itself, because the official clients do not encode values;
 * parameters whose bytes are not UTF-8 are left out, and named under `undecodable`.
 */
export function parseQuery(text: string): Record<PropertyKey, unknown> {
  const query = Object.create(null) as Record<PropertyKey, unknown>;
  const undecoded: string[] = [];
  for (const pair of text.split('&')) {
    if (pair === '') continue;
    const end = pair.indexOf('=');
    const name = decodePart(end === -1 ? pair : pair.slice(0, end));
    const value = end === -1 ? '' : decodePart(pair.slice(end + 1));
    if (name === undefined || value === undefined) {
      undecoded.push(name ?? 'query');
      continue;
    }
    const earlier = query[name];
    if (earlier === undefined) query[name] = value;
    else if (Array.isArray(earlier)) earlier.push(value);
    else query[name] = [earlier, value];
  }
  if (undecoded.length > 0) query[undecodable] = undecoded;
  return query;
}

/** @param part as Node gives it: one character for each byte */
function decodePart(part: string): string | undefined {
  const spaced = part.replaceAll('+', ' ');
  if (/^[\x20-\x24\x26-\x7e]*$/.test(spaced)) return spaced;
  const bytes: number[] = [];
  for (let at = 0; at < spaced.length; at++) {
    const escape = spaced[at] === '%' ? /^[0-9a-f]{2}/i.exec(spaced.slice(at + 1, at + 3))?.[0] : undefined;
    bytes.push(escape === undefined ? spaced.charCodeAt(at) : Number.parseInt(escape, 16));
    if (escape !== undefined) at += 2;
  }
  return decodeUtf8(Uint8Array.from(bytes));
}

/** Invisible characters: white space, controls, formatting and ignorable characters, the blank Braille pattern. */
const visible = /[^\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}\u2800]/u;
/** Control characters and the separators of lines and paragraphs. */
const control = /[\p{Cc}\u2028\u2029]/u;
/** The same for multi-line text, which may contain line breaks and tabs. */
const controlInLines = /[^\P{Cc}\t\r\n]/u;

/**
 * Kinds of text, as the keyword `text` of a schema. A `name`, a `label` (one line, which may be empty) and a `description` are kept
 * in NFC, so that what looks the same is the same; `search` is compared with them; `reference` names something by its exact
 * characters.
 */
export type TextKind = 'name' | 'label' | 'description' | 'reference' | 'search';

/** Why a text is invalid for its kind; undefined if it is valid. */
export function faultOfText(kind: TextKind, text: string): 'blank' | 'control' | undefined {
  if (kind === 'search') return undefined;
  if (kind === 'description') return controlInLines.test(text) ? 'control' : undefined;
  if (kind !== 'label' && !visible.test(text)) return 'blank';
  return control.test(text) ? 'control' : undefined;
}

/** The normalized form in which a text is stored and compared. */
export function normalizeText(kind: TextKind, text: string): string {
  return kind === 'reference' ? text : text.normalize('NFC');
}
