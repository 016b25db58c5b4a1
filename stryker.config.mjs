// Mutation testing of the server's rules: `npm run mutation`, see docs/testing.md.
// Node runs the mutated TypeScript as it is, so there is nothing to build.

/** Which tests judge the mutants of a directory; each runs on SQLite alone, which takes seconds. */
const testsOf = {
  access: ['permissions', 'permissionMatrix', 'access', 'rateLimits', 'security/rateLimits', 'security/tokens'],
  changesets: ['changesetIds', 'changesets', 'security/push'],
  cloning: ['clone', 'cloneRules', 'derivedIModels', 'security/waitingClone'],
  operations: ['operations', 'jobs', 'security/slots'],
};

// OFFSHOOT_MUTATION_TESTS=clone,security/push lets only these tests judge, for a run of a few files with --mutate.
const tests = process.env.OFFSHOOT_MUTATION_TESTS?.split(',') ?? Object.values(testsOf).flat();

export default {
  testRunner: 'tap',
  plugins: ['@stryker-mutator/tap-runner'],
  tap: {
    testFiles: tests.map((test) => `test/${test}.test.ts`),
    nodeArgs: ['--test-reporter=tap', '-r', '{{hookFile}}', '{{testFile}}'],
  },
  mutate: Object.keys(testsOf).map((directory) => `apps/server/src/${directory}/**/*.ts`),
  // Threads and child processes run mutants as well, and the coverage of the main thread would not show it.
  coverageAnalysis: 'off',
  // More at a time would make tests that watch a clock fail, and their mutants count as killed.
  concurrency: 1,
  timeoutMS: 20_000,
  disableTypeChecks: false,
  ignorePatterns: ['.stryker-tmp*', 'dist', 'docs', 'deploy', 'coverage', 'reports', 'offshoot-data', '/data'],
  reporters: ['clear-text', 'html', 'json'],
  clearTextReporter: { reportTests: false, allowColor: false },
  allowEmpty: false,
};
