import { fileURLToPath } from 'node:url';
import { ConfigSchema, environment, nestedEnvironment } from '../../apps/server/src/config.ts';

export const configurationFile = fileURLToPath(new URL('../../docs/configuration.md', import.meta.url));

/** What the schema of a setting says, as far as the document shows it. */
interface Schema {
  type?: string;
  description?: string;
  default?: unknown;
  enum?: readonly unknown[];
  anyOf?: readonly Schema[];
  items?: Schema;
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  required?: readonly string[];
  minimum?: number;
  maximum?: number;
}

/** One setting of the document. */
interface Setting {
  /** As in `checkpoints.slots`; `[]` stands for each entry of a list, `<name>` for each name. */
  path: string;
  schema: Schema;
  /** It has no default and must not be left out where its section is set. */
  required: boolean;
  /** The value in the default of its section, which applies if the section is absent. */
  inherited: unknown;
}

/** A group of settings: the top level, or an object below it. */
interface Section {
  path: string;
  description: string | undefined;
  /** The default of a map of sections, as a whole. */
  entries: unknown;
  settings: Setting[];
}

/** The schema of the entries of an object, a list or a map, and how their path is written. */
function entriesOf({ path, schema }: Setting): { path: string; schema: Schema } | undefined {
  if (schema.properties !== undefined) return { path, schema };
  const { items, patternProperties } = schema;
  if (items?.properties !== undefined) return { path: `${path}[]`, schema: items };
  const [values] = Object.values(patternProperties ?? {});
  return values?.properties === undefined ? undefined : { path: `${path}.<name>`, schema: values };
}

/** The sections below and including this one, the outer ones first. */
function sectionsOf(path: string, schema: Schema, outer: Schema = {}): Section[] {
  const isMap = outer.patternProperties !== undefined;
  const inherited = (isMap ? {} : (outer.default ?? {})) as Record<string, unknown>;
  const settings = Object.entries(schema.properties ?? {}).map(([name, each]): Setting => ({
    path: path === '' ? name : `${path}.${name}`,
    schema: each,
    required: (schema.required ?? []).includes(name) && each.default === undefined,
    inherited: inherited[name],
  }));
  const below = settings.flatMap((setting) => {
    const entries = entriesOf(setting);
    return entries === undefined ? [] : sectionsOf(entries.path, entries.schema, setting.schema);
  });
  return [
    { path, description: outer.description, entries: isMap ? (outer.default ?? {}) : undefined, settings },
    ...below,
  ];
}

const sections = (): Section[] => sectionsOf('', ConfigSchema);

/** Paths of settings that the schema does not describe. */
export function undescribedSettings(): string[] {
  return sections()
    .flatMap(({ settings }) => settings)
    .filter(({ schema }) => schema.description === undefined)
    .map(({ path }) => path);
}

const code = (value: unknown): string => `\`${typeof value === 'string' ? value : JSON.stringify(value)}\``;

function typeOf(schema: Schema): string {
  const { type, minimum, maximum } = schema;
  if (schema.enum !== undefined) return schema.enum.map(code).join(', ');
  if (schema.anyOf !== undefined) return schema.anyOf.map(typeOf).join(' or ');
  if (type === 'array') return `list of ${typeOf(schema.items ?? {})}`;
  if (schema.patternProperties !== undefined) return 'object, by name';
  const limits =
    minimum !== undefined && maximum !== undefined
      ? `, ${minimum} to ${maximum}`
      : minimum !== undefined
        ? `, at least ${minimum}`
        : '';
  return `${type ?? 'any'}${limits}`;
}

function defaultOf({ path, schema, required, inherited }: Setting): string {
  if (required)
    return inherited === undefined
      ? 'required'
      : `${code(inherited)}; required if \`${path.slice(0, path.lastIndexOf('.'))}\` is set`;
  const value = schema.default;
  if (value === undefined) return '';
  if (value === '') return 'empty';
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return code(value);
  // What is inside of a section has a row of its own.
  return schema.patternProperties !== undefined && Object.keys(value).length === 0 ? 'none' : 'see below';
}

/** @returns a cell of a table; a vertical bar would end it */
const cell = (text: string): string => text.replaceAll('|', '\\|');

function rowOf(setting: Setting, variables: ReadonlyMap<string, string>): string {
  const { path, schema } = setting;
  const entries = entriesOf(setting);
  const name = entries === undefined ? `\`${path}\`` : `[\`${path}\`](#${anchorOf(entries.path)})`;
  const variable = variables.get(path);
  return `| ${[
    name,
    typeOf(schema),
    defaultOf(setting),
    variable === undefined ? '' : `\`${variable}\``,
    schema.description ?? '',
  ]
    .map(cell)
    .join(' | ')} |\n`;
}

/** As GitHub makes it from the heading of a section. */
const anchorOf = (path: string): string => path.toLowerCase().replace(/[^a-z\d_-]/g, '');

const head = `# Configuration reference

Every setting, generated from the schema that the server validates its configuration with (\`npm run configuration\`
rewrites this page, and a test compares the two). [operating.md](operating.md) explains how to use them.

Settings are merged, later sources taking precedence: the defaults below; the file \`offshoot.json\` in the working
directory, or the one that \`--config\` or \`OFFSHOOT_CONFIG\` names; the environment variables below; the options of
\`offshoot start\` and \`offshoot work\`. An unknown setting is an error. All faults are reported together, and nothing
starts with one. \`npx offshoot doctor\` checks a configuration without starting a server.

A file sets only what differs from the defaults:

\`\`\`json
{
  "port": 8080,
  "store": { "type": "s3", "bucket": "imodels" },
  "checkpoints": { "slots": 6 }
}
\`\`\`
`;

/** The document for the current schema. */
export function configurationDocument(): string {
  const variables = new Map([
    ...Object.entries(environment).map(([name, { key }]) => [key as string, name] as const),
    ...Object.entries(nestedEnvironment).map(([name, path]) => [path, name] as const),
  ]);
  const all = sections();
  const namesOf = ({ settings }: Section): string => JSON.stringify(settings.map(({ schema }) => schema));
  const texts = all.map((section, index) => {
    const { path, description, entries, settings } = section;
    const same = all.slice(0, index).find((earlier) => namesOf(earlier) === namesOf(section));
    const isWindow = settings.length <= 2;
    return [
      `## ${path === '' ? 'Top level' : `\`${path}\``}`,
      ...(description === undefined ? [] : [description]),
      ...(entries === undefined || Object.keys(entries as object).length === 0
        ? []
        : [`The default:\n\n\`\`\`json\n${JSON.stringify(entries, undefined, 2)}\n\`\`\``]),
      same === undefined || isWindow
        ? `| setting | type | default | environment | description |\n| --- | --- | --- | --- | --- |\n${settings.map((setting) => rowOf(setting, variables)).join('')}`
        : `The settings of each are those of [\`${same.path}\`](#${anchorOf(same.path)}).\n`,
    ].join('\n\n');
  });
  return `${head}\n${texts.join('\n')}`;
}
