/**
 * Checks the schema statements (DDL) of a changeset before iTwin.js executes them.
 *
 * The prefix of a changeset may contain SQL text, which iTwin.js executes unchanged, including multiple statements.
 * Without this check, anyone who may push a changeset could run any SQL in the checkpoint worker, including `ATTACH
 * DATABASE` of other files. Only statements that ECDb itself writes are allowed: CREATE, ALTER and DROP of tables,
 * indexes and triggers of the main database. The tokenizer follows SQLite's rules
 * (https://sqlite.org/lang_keywords.html, tokenize.c), so that SQLite cannot interpret a text differently than this
 * check.
 */

/** Maximum length of the text, in UTF-16 code units. The largest known domain schemas have about 200,000. */
const maxTextLength = 8 * 1024 * 1024;
const maxStatements = 50_000;
const maxNesting = 50;

/**
 * Functions that ECDb and the BIS domain use in indexes, constraints and triggers. All others are refused, among them
 * those that read files, schemas or memory.
 */
const allowedFunctions = new Set([
  ...[
    'abs',
    'cast',
    'coalesce',
    'date',
    'datetime',
    'ifnull',
    'julianday',
    'length',
    'lower',
    'max',
    'min',
    'nullif',
    'round',
    'rtrim',
    'ltrim',
    'trim',
    'raise',
    'strftime',
    'substr',
    'time',
    'typeof',
    'upper',
  ],
  ...[
    'dgn_angles',
    'dgn_angles_value',
    'dgn_bbox',
    'dgn_bbox_areaxy',
    'dgn_bbox_depth',
    'dgn_bbox_height',
    'dgn_bbox_overlaps',
    'dgn_bbox_union',
    'dgn_bbox_value',
    'dgn_bbox_volume',
    'dgn_bbox_width',
  ],
  ...[
    'dgn_placement',
    'dgn_placement_aabb',
    'dgn_placement_angles',
    'dgn_placement_eabb',
    'dgn_placement_origin',
    'dgn_point',
    'dgn_point_value',
  ],
]);

/** Keywords that may precede a parenthesis in an expression without being a function call. */
const beforeParenthesis = new Set([
  'and',
  'as',
  'between',
  'case',
  'check',
  'collate',
  'default',
  'distinct',
  'else',
  'escape',
  'exists',
  'from',
  'glob',
  'in',
  'is',
  'isnull',
  'join',
  'like',
  'not',
  'notnull',
  'on',
  'or',
  'select',
  'set',
  'then',
  'union',
  'all',
  'except',
  'intersect',
  'using',
  'values',
  'when',
  'where',
  'by',
  'having',
  'limit',
  'offset',
]);

interface Token {
  kind: 'word' | 'quoted' | 'string' | 'number' | 'symbol';
  /** Words in lower case, quoted identifiers without their quotes. */
  text: string;
}

/** A statement that is not allowed. The message becomes part of a reason that users see. */
export class ForbiddenDdlError extends Error {
  constructor(what: string) {
    super(`it holds ${what}, which no schema of an iModel needs`);
    this.name = 'ForbiddenDdlError';
  }
}

/**
 * Checks the schema statements of a changeset.
 * @param text the statements as stored in the changeset, separated by semicolons
 * @throws ForbiddenDdlError on the first statement of a kind that ECDb does not write
 */
export function checkDdl(text: string): void {
  if (text.length > maxTextLength)
    throw new ForbiddenDdlError(`more than ${maxTextLength / 2 ** 20} MiB of statements`);
  const cursor = new Cursor(tokensOf(text));
  for (let count = 0; !cursor.atEnd; count++) {
    if (cursor.take(';')) continue;
    if (count > maxStatements) throw new ForbiddenDdlError(`more than ${maxStatements} statements`);
    statement(cursor);
    if (!cursor.atEnd && !cursor.take(';')) throw new ForbiddenDdlError('a statement with more text after its end');
  }
}

/** One row of `sqlite_schema`. */
export interface SchemaEntry {
  type: string;
  name: string;
  sql: string | null;
}

/** Modules of virtual tables that the BIS profiles use: the spatial index and the full-text index. */
const virtualTables = new Set(['rtree', 'fts5']);

/**
 * Checks the schema of a model file, whose triggers and defaults run whenever iTwin.js writes to it.
 * @throws ForbiddenDdlError on the first entry of a kind that iModels do not have
 */
export function checkSchema(entries: Iterable<SchemaEntry>): void {
  for (const { type, name, sql } of entries) {
    // SQLite's internal tables, and its automatic indexes.
    if (sql === null || (type === 'table' && /^sqlite_(sequence|stat\d)$/.test(name))) continue;
    if (type === 'view') {
      // ECDb creates views named `schema.class` for debugging. A view with any other name could replace a table.
      if (!name.includes('.')) throw new ForbiddenDdlError(`the view '${name.slice(0, 40)}'`);
      view(new Cursor(tokensOf(sql)));
      continue;
    }
    const cursor = new Cursor(tokensOf(sql));
    if (type === 'table' && cursor.take('create') && cursor.take('virtual')) virtualTable(cursor);
    else checkDdl(sql);
  }
}

/** CREATE VIEW name [( columns )] AS query */
function view(cursor: Cursor): void {
  cursor.expect('create');
  cursor.expect('view');
  ownName(cursor);
  if (cursor.take('(')) {
    while (!cursor.take(')')) cursor.next();
  }
  cursor.expect('as');
  expression(cursor, true);
  if (!cursor.atEnd) throw new ForbiddenDdlError('a view with more text after its end');
}

/** CREATE VIRTUAL TABLE [IF NOT EXISTS] name USING module … */
function virtualTable(cursor: Cursor): void {
  cursor.expect('table');
  ifNotExists(cursor);
  ownName(cursor);
  cursor.expect('using');
  const module = cursor.name();
  if (!virtualTables.has(module.toLowerCase()))
    throw new ForbiddenDdlError(`a virtual table of the module '${module.slice(0, 40)}'`);
}

function statement(cursor: Cursor): void {
  if (cursor.take('create')) {
    if (cursor.take('table')) return createTable(cursor);
    if (cursor.take('trigger')) return createTrigger(cursor);
    cursor.take('unique');
    if (cursor.take('index')) return createIndex(cursor);
  } else if (cursor.take('alter')) {
    cursor.expect('table');
    return alterTable(cursor);
  } else if (cursor.take('drop')) {
    if (!cursor.take('table') && !cursor.take('index')) cursor.expect('trigger');
    if (cursor.take('if')) cursor.expect('exists');
    ownName(cursor);
    return;
  }
  throw new ForbiddenDdlError('a statement other than CREATE, ALTER or DROP of tables, indexes and triggers');
}

/** CREATE TABLE [IF NOT EXISTS] name ( definitions ) [options]; `AS SELECT` is refused. */
function createTable(cursor: Cursor): void {
  ifNotExists(cursor);
  ownName(cursor);
  cursor.expect('(');
  definitions(cursor);
  cursor.expect(')');
  for (;;) {
    if (cursor.take('without')) cursor.expect('rowid');
    else if (!cursor.take('strict')) return;
    cursor.take(',');
  }
}

/** Columns and constraints, up to the closing parenthesis. */
function definitions(cursor: Cursor): void {
  while (!cursor.at(')')) definitionPart(cursor);
}

/**
 * One part of a column or constraint. Names and types are harmless; what is evaluated later (DEFAULT, CHECK, generated
 * columns) is an expression.
 */
function definitionPart(cursor: Cursor): void {
  if (cursor.take('default')) {
    if (cursor.take('(')) {
      expression(cursor, false);
      cursor.expect(')');
    }
    return;
  }
  if (cursor.take('check') || cursor.take('as')) {
    cursor.expect('(');
    expression(cursor, false);
    cursor.expect(')');
    return;
  }
  if (cursor.take('(')) {
    // Names of columns, or the length of a type; no function calls.
    while (!cursor.at(')')) {
      if (cursor.at('(')) throw new ForbiddenDdlError('an expression where columns are named');
      cursor.next();
    }
    cursor.expect(')');
    return;
  }
  cursor.refuse('select', 'with', 'values', ';');
  cursor.next();
}

/** CREATE [UNIQUE] INDEX [IF NOT EXISTS] name ON table ( columns ) [WHERE condition] */
function createIndex(cursor: Cursor): void {
  ifNotExists(cursor);
  ownName(cursor);
  cursor.expect('on');
  ownName(cursor);
  cursor.expect('(');
  expression(cursor, false);
  cursor.expect(')');
  if (cursor.take('where')) expression(cursor, false);
}

/** ALTER TABLE name ADD [COLUMN] definition | DROP [COLUMN] name | RENAME … TO … */
function alterTable(cursor: Cursor): void {
  ownName(cursor);
  if (!cursor.at('add') && !cursor.at('drop') && !cursor.at('rename'))
    throw new ForbiddenDdlError('an ALTER TABLE of an unknown kind');
  cursor.next();
  while (!cursor.atEnd && !cursor.at(';')) definitionPart(cursor);
}

/** CREATE TRIGGER [IF NOT EXISTS] name … ON table [FOR EACH ROW] [WHEN condition] BEGIN statements END */
function createTrigger(cursor: Cursor): void {
  ifNotExists(cursor);
  ownName(cursor);
  while (!cursor.take('on')) {
    cursor.refuse('begin', 'when', '(', ';');
    cursor.next();
  }
  ownName(cursor);
  if (cursor.take('for')) {
    cursor.expect('each');
    cursor.expect('row');
  }
  if (cursor.take('when')) expression(cursor, true, 'begin');
  cursor.expect('begin');
  do {
    if (
      !cursor.take('insert') &&
      !cursor.take('replace') &&
      !cursor.take('update') &&
      !cursor.take('delete') &&
      !cursor.at('select')
    )
      throw new ForbiddenDdlError('a trigger that does more than to insert, update, delete and select');
    expression(cursor, true);
    cursor.expect(';');
  } while (!cursor.take('end'));
}

/**
 * Tokens up to the end of an expression: a semicolon, the parenthesis that closes it, or a keyword. Only known
 * functions may be called. No statement in it may be recursive (`WITH`), so that its work is bounded by the rows of its
 * tables.
 */
function expression(cursor: Cursor, mayQuery: boolean, until?: string): void {
  for (let depth = 0; ;) {
    if (
      cursor.atEnd ||
      cursor.at(';') ||
      (depth === 0 && (cursor.at(')') || (until !== undefined && cursor.at(until))))
    )
      return;
    cursor.refuse('with', 'attach', 'detach', 'pragma', 'vacuum', 'create', 'drop', 'alter');
    if (!mayQuery) cursor.refuse('select', 'values', 'insert', 'update', 'delete');
    const into = mayQuery && cursor.at('into');
    const token = cursor.next();
    // SQLite creates eponymous virtual tables such as `pragma_database_list` without a parenthesis.
    if (token.kind !== 'number' && /^(pragma_|sqlite_|bcv_|dbstat)/i.test(token.text))
      throw new ForbiddenDdlError(`the name '${token.text.slice(0, 40)}'`);
    if (into) {
      // INSERT INTO table ( columns )
      ownName(cursor);
      continue;
    }
    if (token.kind === 'symbol' && token.text === ')') depth--;
    else if (token.kind === 'symbol' && token.text === '(' && ++depth > maxNesting)
      throw new ForbiddenDdlError('expressions that are nested too deeply');
    if (cursor.at('(') && !mayPrecedeParenthesis(token))
      throw new ForbiddenDdlError(`a call of the function '${token.text.slice(0, 40)}'`);
  }
}

function mayPrecedeParenthesis(token: Token): boolean {
  if (token.kind === 'symbol') return true;
  if (token.kind === 'word') return beforeParenthesis.has(token.text) || allowedFunctions.has(token.text);
  // A quoted name before a parenthesis calls the function of that name.
  return token.kind === 'quoted' && allowedFunctions.has(token.text.toLowerCase());
}

function ifNotExists(cursor: Cursor): void {
  if (!cursor.take('if')) return;
  cursor.expect('not');
  cursor.expect('exists');
}

/** A name in the main database, `name` or `main.name`, except SQLite's own tables. */
function ownName(cursor: Cursor): void {
  const first = cursor.name();
  const name = cursor.take('.') ? cursor.name() : first;
  if (name !== first && first.toLowerCase() !== 'main')
    throw new ForbiddenDdlError(`a change outside the main database ('${first.slice(0, 40)}')`);
  if (/^sqlite_/i.test(name)) throw new ForbiddenDdlError("a change of SQLite's own tables");
}

class Cursor {
  readonly #tokens: Token[];
  #position = 0;

  constructor(tokens: Token[]) {
    this.#tokens = tokens;
  }

  get atEnd(): boolean {
    return this.#position >= this.#tokens.length;
  }

  /** Whether the next token is this keyword or symbol. */
  at(text: string): boolean {
    const token = this.#tokens[this.#position];
    return token !== undefined && (token.kind === 'word' || token.kind === 'symbol') && token.text === text;
  }

  take(text: string): boolean {
    if (!this.at(text)) return false;
    this.#position++;
    return true;
  }

  expect(text: string): void {
    if (!this.take(text)) throw new ForbiddenDdlError(`a statement without '${text.toUpperCase()}' where it belongs`);
  }

  refuse(...texts: string[]): void {
    const found = texts.find((text) => this.at(text));
    if (found !== undefined) throw new ForbiddenDdlError(`'${found.toUpperCase()}' where it does not belong`);
  }

  next(): Token {
    const token = this.#tokens[this.#position++];
    if (token === undefined) throw new ForbiddenDdlError('a statement that breaks off');
    return token;
  }

  /** An identifier. SQLite also accepts a string literal as an identifier. */
  name(): string {
    const token = this.next();
    if (token.kind === 'symbol' || token.kind === 'number')
      throw new ForbiddenDdlError('a statement without a name where one belongs');
    return token.text;
  }
}

const wordStart = /[A-Za-z_\u0080-\uffff]/;
const wordPart = /[A-Za-z0-9_$\u0080-\uffff]/;
const numberPart = /[A-Za-z0-9_.]/;
const space = /[\t\n\f\r ]/;
/** SQLite treats a byte order mark as white space at the start of a word, and as a letter within a word. */
const byteOrderMark = '\ufeff';
const symbols = new Set('(),;.+-*/%=<>!|&~');

/**
 * @throws ForbiddenDdlError on characters that DDL does not contain: NUL, byte order marks, parameters, unclosed quotes
 */
function tokensOf(text: string): Token[] {
  if (text.includes(byteOrderMark)) throw new ForbiddenDdlError('characters that no statement has');
  const tokens: Token[] = [];
  for (let at = 0; at < text.length;) {
    const character = text[at] as string;
    if (space.test(character)) at++;
    else if (text.startsWith('--', at)) at = endOf(text, '\n', at);
    else if (text.startsWith('/*', at)) at = endOf(text, '*/', at + 2);
    else if (character === "'" || character === '"' || character === '`' || character === '[') {
      const { content, end } = quoted(text, at);
      tokens.push({ kind: character === "'" ? 'string' : 'quoted', text: content });
      at = end;
    } else if (/[0-9]/.test(character)) {
      const end = runOf(text, at, numberPart);
      tokens.push({ kind: 'number', text: text.slice(at, end) });
      at = end;
    } else if (wordStart.test(character)) {
      const end = runOf(text, at, wordPart);
      tokens.push({ kind: 'word', text: text.slice(at, end).toLowerCase() });
      at = end;
    } else if (symbols.has(character)) {
      tokens.push({ kind: 'symbol', text: character });
      at++;
    } else throw new ForbiddenDdlError('characters that no statement has');
  }
  return tokens;
}

function runOf(text: string, start: number, part: RegExp): number {
  let end = start;
  while (end < text.length && part.test(text[end] as string)) end++;
  return end;
}

function endOf(text: string, mark: string, from: number): number {
  const found = text.indexOf(mark, from);
  // In SQLite, the end of the text also ends an unclosed comment.
  return found === -1 ? text.length : found + mark.length;
}

/** Reads quoted text. A quote inside it is doubled, except in brackets. */
function quoted(text: string, start: number): { content: string; end: number } {
  const close = text[start] === '[' ? ']' : (text[start] as string);
  let content = '';
  for (let from = start + 1; ;) {
    const found = text.indexOf(close, from);
    if (found === -1) throw new ForbiddenDdlError('a quote that is never closed');
    content += text.slice(from, found);
    if (close === ']' || text[found + 1] !== close) return { content, end: found + 1 };
    content += close;
    from = found + 2;
  }
}
