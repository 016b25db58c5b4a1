/**
 * Asks the registry for known vulnerabilities of the packages that the server runs with, as the lock file names them: `npm run audit`.
 * Fails for those that are high or critical. Where no registry answers, it says so and does not fail: a build without a network, or
 * behind a mirror that knows no advisories, is no worse than the last one.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Longest time for the answer, milliseconds. */
const answerMs = 120_000;
const failing = ['high', 'critical'];

interface Report {
  auditReportVersion?: number;
  vulnerabilities?: Record<string, { severity: string; range: string; fixAvailable: unknown }>;
}

/** What a report of `npm audit --json` says. @param text anything else counts as no answer */
export function verdictOf(text: string): { answered: boolean; lines: string[]; failed: boolean } {
  let report: Report = {};
  try {
    report = JSON.parse(text) as Report;
  } catch {
    // Nothing, or a page of a proxy.
  }
  if (report.auditReportVersion === undefined || report.vulnerabilities === undefined)
    return {
      answered: false,
      lines: ['No registry told of vulnerabilities: the packages were not audited.'],
      failed: false,
    };
  const found = Object.entries(report.vulnerabilities);
  return {
    answered: true,
    lines: [
      `${found.length} packages with known vulnerabilities.`,
      ...found.map(
        ([name, { severity, range, fixAvailable }]) =>
          `  ${severity}: ${name} ${range}${fixAvailable === false ? '' : ', a fixed version is there'}`,
      ),
    ],
    failed: found.some(([, { severity }]) => failing.includes(severity)),
  };
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { stdout } = spawnSync('npm', ['audit', '--omit=dev', '--json'], {
    encoding: 'utf8',
    timeout: answerMs,
    shell: process.platform === 'win32',
  });
  const { lines, failed } = verdictOf(stdout ?? '');
  console.log(lines.join('\n'));
  process.exitCode = failed ? 1 : 0;
}
