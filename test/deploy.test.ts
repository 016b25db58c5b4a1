import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig } from '../apps/server/src/config.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const text = (file: string): string => readFileSync(`${root}${file}`, 'utf8');

interface Service {
  command?: string[];
  environment?: Record<string, string>;
  volumes?: string[];
}
interface Container {
  args: string[];
  env: { name: string; value?: string }[];
  ports: { name: string; containerPort: number }[];
  livenessProbe: { httpGet: { path: string; port: string } };
  readinessProbe: { httpGet: { path: string; port: string } };
}
interface Deployment {
  kind: string;
  spec: { replicas: number; template: { spec: { terminationGracePeriodSeconds: number; containers: Container[] } } };
}

const roles = ['start', 'work'];

/** There is no container engine here: what can be checked without one is that the files fit the server and each other. */
test('the image is made of files that are there', () => {
  const copied = [...text('Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources]) => (sources ?? '').split(' '));
  assert.ok(copied.length > 5);
  for (const source of copied) assert.ok(existsSync(`${root}${source}`), source);
  const workspaces = (JSON.parse(text('package-lock.json')) as { packages: Record<string, unknown> }).packages;
  // npm ci refuses a lock file with a workspace whose package.json is missing.
  for (const folder of Object.keys(workspaces).filter((name) => /^(apps|packages)\/[^/]+$/.test(name))) assert.ok(copied.includes(`${folder}/package.json`), folder);
});

test('compose starts two servers that leave their jobs to a worker, on a configuration that is valid', () => {
  const { services } = parse(text('compose.yaml'), { merge: true }) as { services: Record<string, Service> };
  const config = loadConfig({}, { file: `${root}deploy/compose/offshoot.json`, env: {} });
  assert.deepEqual([config.jobs.here, config.store.type], [false, 's3']);
  for (const name of ['server-1', 'server-2', 'worker']) {
    const service = services[name] ?? assert.fail(`there is no ${name}`);
    assert.ok(roles.includes(service.command?.[0] ?? 'start'));
    assert.ok(service.volumes?.includes('./deploy/compose/offshoot.json:/etc/offshoot/offshoot.json:ro'));
    const environment = Object.fromEntries(Object.entries(service.environment ?? {}).filter(([key, value]) => key.startsWith('OFFSHOOT_') && key !== 'OFFSHOOT_CONFIG' && !value.includes('${OFFSHOOT_PUBLIC_URL')));
    loadConfig({}, { file: `${root}deploy/compose/offshoot.json`, env: environment });
  }
  assert.equal(services.worker?.command?.[0], 'work');
  for (const server of ['server-1', 'server-2']) assert.ok(text('deploy/compose/Caddyfile').includes(`${server}:${config.port}`));
  // Every variable is either explained in the example or has a default.
  for (const [, name] of text('compose.yaml').matchAll(/\$\{(\w+)/g)) assert.match(text('deploy/compose/env.example'), new RegExp(`^${name}=`, 'm'));
});

test('the Kubernetes manifests run servers and a worker, probed where they answer, on a configuration that is valid', () => {
  const config = loadConfig({}, { file: `${root}deploy/kubernetes/offshoot.json`, env: {} });
  const { resources } = parse(text('deploy/kubernetes/kustomization.yaml')) as { resources: string[] };
  const documents = resources.flatMap((file) => parseAllDocuments(text(`deploy/kubernetes/${file}`)).map((document) => document.toJS() as Deployment));
  const deployments = documents.filter(({ kind }) => kind === 'Deployment');
  assert.deepEqual(deployments.map(({ spec }) => spec.template.spec.containers[0]?.args[0]).sort(), roles);
  for (const { spec } of deployments) {
    const { containers, terminationGracePeriodSeconds } = spec.template.spec;
    const [container] = containers;
    assert.ok(terminationGracePeriodSeconds > config.shutdownSeconds);
    assert.equal(container?.ports[0]?.containerPort, config.port);
    assert.deepEqual([container?.livenessProbe.httpGet.path, container?.readinessProbe.httpGet.path], ['/health', '/health/ready']);
    assert.ok(container?.env.some(({ name, value }) => name === 'OFFSHOOT_CONFIG' && value === '/etc/offshoot/offshoot.json'));
  }
});
