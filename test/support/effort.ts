/**
 * How often a test repeats what happens at a random moment, such as a kill: a sample in `npm test`, which has to end within minutes
 * on two busy cores, and the full number in `npm run test:full`.
 */
export function times(sample: number, full: number): number {
  return process.env['OFFSHOOT_TEST_FULL'] === undefined ? sample : full;
}
