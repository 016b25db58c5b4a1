import importX from 'eslint-plugin-import-x';
import { createTypeScriptImportResolver } from 'eslint-import-resolver-typescript';
import regexp from 'eslint-plugin-regexp';
import tseslint from 'typescript-eslint';

const server = 'apps/server/src';

/**
 * The layers of the server, from low to high, as described in docs/architecture.md. A file imports from its own layer and from
 * lower ones, types included.
 */
const layers = [
  [
    'domain.ts',
    'errors.ts',
    'outages.ts',
    'terminal.ts',
    'version.ts',
    'optionalParts.ts',
    'config.ts',
    'jsonSchema.ts',
    'schemaChecks.ts',
    'boundedCache.ts',
    'fileReasons.ts',
    'http',
    'traces',
  ],
  ['db'],
  ['operations', 'idempotency'],
  ['quotas'],
  ['storage'],
  ['access'],
  [
    'baselines',
    'briefcases',
    'changesets',
    'checkpoints',
    'cloning',
    'collector',
    'events',
    'favorites',
    'graphics',
    'iTwins',
    'imodels',
    'locks',
    'namedVersions',
    'shares',
    'signIn',
    'thumbnails',
    'transfer',
    'users',
    'viewer',
  ],
  ['maintenance', 'services.ts'],
  ['api'],
  ['wiring'],
  ['app.ts'],
  ['bench'],
  ['commands'],
  ['cli.ts'],
];

const layerRules = layers.slice(0, -1).map((layer, index) => ({
  target: layer.map((entry) => `./${server}/${entry}`),
  from: layers
    .slice(index + 1)
    .flat()
    .map((entry) => `./${server}/${entry}`),
  message: 'A lower layer must not import from a higher one: see `layers` in eslint.config.js.',
}));

export default tseslint.config(
  {
    ignores: [
      '**/node_modules/**',
      '**/dist/**',
      '**/coverage/**',
      '**/reports/**',
      '.stryker-tmp*',
      '*.mjs',
      // Plain JavaScript, as test runners load it without a configuration.
      'packages/testing/test-runners/**',
      // Its packages are installed by `npm run viewer` only, so there are no types without it. Its build checks them.
      'packages/viewer/**',
    ],
  },
  ...tseslint.configs.strictTypeChecked,
  ...tseslint.configs.stylisticTypeChecked,
  {
    plugins: { regexp, 'import-x': importX },
    languageOptions: { parserOptions: { projectService: { allowDefaultProject: ['eslint.config.js'] } } },
    settings: {
      'import-x/resolver-next': [createTypeScriptImportResolver({ project: 'tsconfig.json' })],
      'import-x/parsers': { '@typescript-eslint/parser': ['.ts', '.tsx'] },
    },
    rules: {
      'import-x/no-cycle': ['error', { ignoreExternal: true }],
      'import-x/no-duplicates': ['error', { 'prefer-inline': true }],
      'import-x/no-restricted-paths': ['error', { basePath: import.meta.dirname, zones: layerRules }],
      '@typescript-eslint/no-restricted-imports': [
        'error',
        {
          name: 'typebox',
          message: 'Import Type from jsonSchema.ts: the code of TypeBox takes 0.1 s and 10 MiB at each start.',
          allowTypeImports: true,
        },
      ],
      // A promise nobody waits for is an error nobody sees.
      '@typescript-eslint/no-floating-promises': [
        'error',
        {
          allowForKnownSafeCalls: [
            {
              from: 'package',
              name: ['test', 'describe', 'it', 'suite', 'before', 'after', 'beforeEach', 'afterEach'],
              package: 'node:test',
            },
          ],
        },
      ],
      '@typescript-eslint/switch-exhaustiveness-check': 'error',
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_' }],
      // An async function without `await` turns a thrown error into a rejected promise, as its callers expect.
      '@typescript-eslint/require-await': 'off',
      // Numbers and booleans have one obvious text.
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      // `() => this.#close()` and `return reply.send()` are idioms of callbacks whose value nobody uses.
      '@typescript-eslint/no-confusing-void-expression': 'off',
      // It asks for `!`, which no-non-null-assertion forbids; `as Item` names what the index is known to hold.
      '@typescript-eslint/non-nullable-type-assertion-style': 'off',
      // Loops and callbacks change what the analysis takes for constant, and types of Node.js promise values that may be absent.
      '@typescript-eslint/no-unnecessary-condition': 'off',
      // `void` drops the value of an arrow function, and `Promise.withResolvers<void>()` makes a promise without a value.
      '@typescript-eslint/no-meaningless-void-operator': 'off',
      '@typescript-eslint/no-invalid-void-type': 'off',
      // PostgreSQL answers sums and counts as text, whatever their type says: `Number()` is no unnecessary conversion.
      '@typescript-eslint/no-unnecessary-type-conversion': 'off',
      // iTwin.js keeps it throughout 5.x; what replaces it reads asynchronously only.
      '@typescript-eslint/no-deprecated': [
        'error',
        { allow: [{ from: 'package', package: '@itwin/core-backend', name: 'withPreparedStatement' }] },
      ],
      eqeqeq: ['error', 'smart'],
      // Long files and functions do several things. Exceptions stand below, each with its reason.
      'max-lines': ['error', { max: 500, skipBlankLines: true, skipComments: true }],
      'max-lines-per-function': ['error', { max: 100, skipBlankLines: true, skipComments: true }],
      // A regular expression that takes more than linear time lets a long text from a client stop the server.
      'regexp/no-super-linear-backtracking': ['error', { report: 'potential' }],
      'regexp/no-super-linear-move': ['error', { report: 'potential' }],
    },
  },
  // Tests process no text from clients, and a suite is one function that holds all of its tests.
  {
    files: ['test/**'],
    rules: {
      '@typescript-eslint/no-restricted-imports': 'off',
      'regexp/no-super-linear-backtracking': 'off',
      'regexp/no-super-linear-move': 'off',
      'max-lines-per-function': 'off',
      'max-lines': ['error', { max: 800, skipBlankLines: true, skipComments: true }],
    },
  },
  // Programs that call the official clients pass the API's values as text, not as the enums of one of several installed versions.
  {
    files: ['test/**', 'scripts/**', 'examples/**'],
    rules: {
      '@typescript-eslint/no-unsafe-enum-assignment': 'off',
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
    },
  },
  // One schema with a description for each setting, and the faults that a schema cannot express: splitting it hides what belongs together.
  { files: [`${server}/config.ts`], rules: { 'max-lines': 'off' } },
  // Types of values from outside: an object identifier of PostgreSQL is any number, and Kysely returns to a driver the connections that it got from it.
  { files: [`${server}/db/database.ts`], rules: { '@typescript-eslint/no-unsafe-enum-assignment': 'off' } },
  {
    files: [`${server}/db/sqlite/dialect.ts`],
    rules: { '@typescript-eslint/no-unsafe-class-instance-assignment': 'off' },
  },
  // Registering a route is one sequence from the declaration to the answer, whose steps share the state of the request.
  { files: [`${server}/api/register.ts`], rules: { 'max-lines': 'off', 'max-lines-per-function': 'off' } },
  // A migration is a list of statements. It never changes once it is released.
  { files: [`${server}/db/migrations/**`], rules: { 'max-lines-per-function': 'off' } },
  { files: ['eslint.config.js', '**/*.cjs'], ...tseslint.configs.disableTypeChecked },
  { files: ['**/*.cjs'], rules: { '@typescript-eslint/no-require-imports': 'off' } },
);
