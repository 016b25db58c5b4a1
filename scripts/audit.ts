/**
 * `npm run audit`: asks the registry for known vulnerabilities of the server's runtime dependencies in the lock file.
 * Fails for high and critical ones. If no registry answers, it reports that and succeeds, because builds without a
 * network, or behind a mirror without advisories, must still work.
 */
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Timeout for the answer, milliseconds. */
const answerMs = 120_000;
const failing = ['high', 'critical'];

interface Report {
  auditReportVersion?: number;
  vulnerabilities?: Record<string, { severity: string; range: string; fixAvailable: unknown }>;
}

/** Evaluates the output of `npm audit --json`. Any other text counts as no answer. */
export function verdictOf(text: string): { answered: boolean; lines: string[]; failed: boolean } {
  let report: Report = {};
  try {
    report = JSON.parse(text) as Report;
  } catch {
    // No output, or an error page of a proxy.
  }
  if (report.auditReportVersion === undefined || report.vulnerabilities === undefined)
    return {
      answered: false,
      lines: ['No registry answered with vulnerability data: the packages were not audited.'],
      failed: false,
    };
  const found = Object.entries(report.vulnerabilities);
  return {
    answered: true,
    lines: [
      `${found.length} packages with known vulnerabilities.`,
      ...found.map(
        ([name, { severity, range, fixAvailable }]) =>
          `  ${severity}: ${name} ${range}${fixAvailable === false ? '' : ', a fixed version is available'}`,
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
