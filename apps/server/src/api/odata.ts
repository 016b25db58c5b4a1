import { sql, type RawBuilder } from 'kysely';
import type { FilterProperty } from '../iTwins/itwins.ts';

/** The filter is malformed or uses an unsupported feature. The message is for the user. */
export class FilterError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'FilterError';
  }
}

/**
 * Each comparison becomes a condition of the SQL statement, so their number is limited. No hand-written filter has this
 * many.
 */
const maxComparisons = 50;
const maxDepth = 20;

const comparisons: Record<string, string> = { eq: '=', gt: '>', ge: '>=', lt: '<', le: '<=' };

/**
 * Parses an OData `$filter`: comparisons (`eq`, `ne`, `gt`, `ge`, `lt`, `le`, `in`) and `contains`, `startswith`,
 * `endswith`, combined with `and`, `or`, `not` and parentheses. Strings are quoted, and `''` is a quote inside a
 * string; `null` means no value.
 * @returns a condition of the SQL statement
 * @throws FilterError
 */
export function filterCondition(
  text: string,
  properties: Readonly<Record<string, FilterProperty>>,
): RawBuilder<boolean> {
  return new Parser(tokensOf(text), properties).parse();
}

/** The names in a filter, whether or not it is valid. */
export function namesInFilter(text: string): string[] {
  return [...text.replace(/'(?:[^']|'')*'/g, '').matchAll(/[A-Za-z]\w*/g)].map(([name]) => name);
}

interface Token {
  kind: 'word' | 'text' | 'mark';
  text: string;
}

function tokensOf(filter: string): Token[] {
  const tokens: Token[] = [];
  const pattern = /\s*(?:'((?:[^']|'')*)'|([(),])|([^\s(),']+))/y;
  const trimmed = filter.trim();
  while (pattern.lastIndex < trimmed.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(trimmed);
    if (match === null) throw new FilterError(`it cannot be read from character ${at + 1} on`);
    const [, quoted, mark, word] = match;
    if (quoted !== undefined) tokens.push({ kind: 'text', text: quoted.replaceAll("''", "'") });
    else tokens.push(mark === undefined ? { kind: 'word', text: word as string } : { kind: 'mark', text: mark });
  }
  return tokens;
}

class Parser {
  readonly #tokens: readonly Token[];
  readonly #properties: Readonly<Record<string, FilterProperty>>;
  #position = 0;
  #comparisons = 0;
  #depth = 0;

  constructor(tokens: readonly Token[], properties: Readonly<Record<string, FilterProperty>>) {
    this.#tokens = tokens;
    this.#properties = properties;
  }

  parse(): RawBuilder<boolean> {
    const condition = this.#or();
    const rest = this.#tokens[this.#position];
    if (rest !== undefined) throw new FilterError(`'${rest.text.slice(0, 100)}' was not expected`);
    return condition;
  }

  #or(): RawBuilder<boolean> {
    const parts = [this.#and()];
    while (this.#takes('or')) parts.push(this.#and());
    return parts.length === 1 ? (parts[0] as RawBuilder<boolean>) : sql<boolean>`(${sql.join(parts, sql` or `)})`;
  }

  #and(): RawBuilder<boolean> {
    const parts = [this.#not()];
    while (this.#takes('and')) parts.push(this.#not());
    return parts.length === 1 ? (parts[0] as RawBuilder<boolean>) : sql<boolean>`(${sql.join(parts, sql` and `)})`;
  }

  #not(): RawBuilder<boolean> {
    if (++this.#depth > maxDepth) throw new FilterError(`it is nested more than ${maxDepth} deep`);
    try {
      if (this.#takes('not')) return sql<boolean>`(not ${this.#not()})`;
      if (!this.#takesMark('(')) return this.#comparison();
      const inner = this.#or();
      this.#needsMark(')');
      return inner;
    } finally {
      this.#depth--;
    }
  }

  /** Never evaluates to null, so that `not` also works for a property without a value. */
  #comparison(): RawBuilder<boolean> {
    if (++this.#comparisons > maxComparisons) throw new FilterError(`it has more than ${maxComparisons} comparisons`);
    const word = this.#needsWord();
    if (['contains', 'startswith', 'endswith'].includes(word.toLowerCase()))
      return sql<boolean>`coalesce(${this.#function(word.toLowerCase())}, false)`;
    const property = this.#property(word);
    const operator = this.#needsWord().toLowerCase();
    if (operator === 'in')
      return sql<boolean>`coalesce(${property.value} in (${sql.join(this.#list(property))}), false)`;
    if (operator !== 'ne' && !Object.hasOwn(comparisons, operator))
      throw new FilterError(`'${operator.slice(0, 100)}' is not an operator that is offered`);
    const value = this.#literal(property);
    if (value === null) {
      if (operator === 'eq') return sql<boolean>`(${property.value} is null)`;
      if (operator === 'ne') return sql<boolean>`(${property.value} is not null)`;
      throw new FilterError(`null has no order, so '${operator}' cannot be used with it`);
    }
    if (operator === 'ne') return sql<boolean>`coalesce(${property.value} <> ${value}, true)`;
    return sql<boolean>`coalesce(${property.value} ${sql.raw(comparisons[operator] as string)} ${value}, false)`;
  }

  #function(name: string): RawBuilder<boolean> {
    this.#needsMark('(');
    const property = this.#property(this.#needsWord());
    this.#needsMark(',');
    const value = this.#literal(property);
    this.#needsMark(')');
    if (property.isTime === true || typeof value !== 'string') throw new FilterError(`'${name}' compares texts`);
    // Counts code points, as both databases do; `length` of a JavaScript string counts UTF-16 code units.
    const { length } = Array.from(value);
    if (name === 'startswith') return sql<boolean>`substr(${property.value}, 1, ${sql.lit(length)}) = ${value}`;
    if (name === 'endswith')
      return sql<boolean>`length(${property.value}) >= ${sql.lit(length)} and substr(${property.value}, length(${property.value}) - ${sql.lit(length)} + 1) = ${value}`;
    if (value === '') return sql<boolean>`${property.value} is not null`;
    return sql<boolean>`length(replace(${property.value}, ${value}, '')) < length(${property.value})`;
  }

  #list(property: FilterProperty): (string | number)[] {
    this.#needsMark('(');
    const values: (string | number)[] = [];
    do {
      const value = this.#literal(property);
      if (value === null) throw new FilterError("null cannot stand in a list of 'in'");
      values.push(value);
      if (values.length > maxComparisons)
        throw new FilterError(`a list of 'in' has more than ${maxComparisons} values`);
    } while (this.#takesMark(','));
    this.#needsMark(')');
    return values;
  }

  #property(name: string): FilterProperty {
    const property = Object.hasOwn(this.#properties, name) ? this.#properties[name] : undefined;
    if (property === undefined)
      throw new FilterError(
        `'${name.slice(0, 100)}' cannot be filtered by; valid properties: ${Object.keys(this.#properties)
          .map((each) => `'${each}'`)
          .join(', ')}`,
      );
    return property;
  }

  #literal(property: FilterProperty): string | number | null {
    const token = this.#tokens[this.#position++];
    if (token === undefined) throw new FilterError('it ends where a value is expected');
    if (token.kind === 'word' && token.text === 'null') return null;
    if (property.isTime === true) {
      const time = token.kind === 'mark' || !/^\d{4}-\d\d-\d\d/.test(token.text) ? Number.NaN : Date.parse(token.text);
      if (Number.isNaN(time))
        throw new FilterError(`'${token.text.slice(0, 100)}' is not a time; write it like 2026-01-31T12:00:00Z`);
      return time;
    }
    if (token.kind !== 'text')
      throw new FilterError(`a text in quotes is expected instead of '${token.text.slice(0, 100)}'`);
    return token.text;
  }

  #takes(word: string): boolean {
    const token = this.#tokens[this.#position];
    const takes = token?.kind === 'word' && token.text.toLowerCase() === word;
    if (takes) this.#position++;
    return takes;
  }

  #takesMark(mark: string): boolean {
    const token = this.#tokens[this.#position];
    const takes = token?.kind === 'mark' && token.text === mark;
    if (takes) this.#position++;
    return takes;
  }

  #needsMark(mark: string): void {
    if (!this.#takesMark(mark)) throw new FilterError(`'${mark}' is missing`);
  }

  #needsWord(): string {
    const token = this.#tokens[this.#position++];
    if (token?.kind !== 'word')
      throw new FilterError(
        token === undefined ? 'it ends too early' : `'${token.text.slice(0, 100)}' was not expected`,
      );
    return token.text;
  }
}
