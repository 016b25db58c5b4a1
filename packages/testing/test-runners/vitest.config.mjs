export default {
  test: { include: ['vitest.test.mjs'], watch: false },
  // In this checkout the package is used from its sources.
  ssr: { resolve: { conditions: ['offshoot-source'], externalConditions: ['offshoot-source'] } },
};
