import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig, shortestServiceKey } from '../apps/server/src/config.ts';

const root = fileURLToPath(new URL('..', import.meta.url));
const text = (file: string): string => readFileSync(`${root}${file}`, 'utf8');

interface Service {
  command?: string[];
  networks?: string[];
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
  spec: { replicas: number; egress?: unknown[]; template: { spec: { terminationGracePeriodSeconds: number; containers: Container[] } } };
}

const roles = ['itwinjs', 'start', 'work'];
/** As long as one must be; those of the files stand in a secret. */
const itwinJsKey = 'k'.repeat(shortestServiceKey);

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
  const config = loadConfig({}, { file: `${root}deploy/compose/offshoot.json`, env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey } });
  assert.deepEqual([config.jobs.here, config.store.type], [false, 's3']);
  for (const name of ['server-1', 'server-2', 'worker']) {
    const service = services[name] ?? assert.fail(`there is no ${name}`);
    assert.ok(roles.includes(service.command?.[0] ?? 'start'));
    assert.ok(service.volumes?.includes('./deploy/compose/offshoot.json:/etc/offshoot/offshoot.json:ro'));
    const environment = Object.fromEntries(Object.entries(service.environment ?? {}).filter(([key, value]) => key.startsWith('OFFSHOOT_') && key !== 'OFFSHOOT_CONFIG' && !value.includes('${OFFSHOOT_PUBLIC_URL')));
    loadConfig({}, { file: `${root}deploy/compose/offshoot.json`, env: { ...environment, OFFSHOOT_ITWINJS_KEY: itwinJsKey } });
  }
  assert.equal(services.worker?.command?.[0], 'work');
  for (const server of ['server-1', 'server-2']) assert.ok(text('deploy/compose/Caddyfile').includes(`${server}:${config.port}`));
  // Every variable is either explained in the example or has a default.
  for (const [, name] of text('compose.yaml').matchAll(/\$\{(\w+)/g)) assert.match(text('deploy/compose/env.example'), new RegExp(`^${name}=`, 'm'));
});

test('the Kubernetes manifests run servers and a worker, probed where they answer, on a configuration that is valid', () => {
  const config = loadConfig({}, { file: `${root}deploy/kubernetes/offshoot.json`, env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey } });
  const { resources } = parse(text('deploy/kubernetes/kustomization.yaml')) as { resources: string[] };
  const documents = resources.flatMap((file) => parseAllDocuments(text(`deploy/kubernetes/${file}`)).map((document) => document.toJS() as Deployment));
  const deployments = documents.filter(({ kind }) => kind === 'Deployment');
  assert.deepEqual(deployments.map(({ spec }) => spec.template.spec.containers[0]?.args[0]).sort(), roles);
  for (const { spec } of deployments) {
    const { containers, terminationGracePeriodSeconds } = spec.template.spec;
    const [container] = containers;
    assert.ok(terminationGracePeriodSeconds > config.shutdownSeconds);
    assert.equal(container?.ports[0]?.containerPort, config.port);
    // The iTwin.js service has nothing to be ready for, and no configuration.
    const isService = container?.args[0] === 'itwinjs';
    assert.deepEqual([container?.livenessProbe.httpGet.path, container?.readinessProbe.httpGet.path], ['/health', isService ? '/health' : '/health/ready']);
    if (!isService) assert.ok(container?.env.some(({ name, value }) => name === 'OFFSHOOT_CONFIG' && value === '/etc/offshoot/offshoot.json'));
  }
});

test('iTwin.js runs where it gets its own key, and no address or key of the database and the store', () => {
  const { services, networks } = parse(text('compose.yaml'), { merge: true }) as { services: Record<string, Service>; networks: Record<string, { internal?: boolean }> };
  assert.deepEqual(Object.keys(services.itwinjs?.environment ?? {}), ['OFFSHOOT_ITWINJS_KEY']);
  // It reaches the worker only, and nothing outside.
  assert.deepEqual([services.itwinjs?.networks, networks.itwinjs?.internal], [['itwinjs'], true]);
  assert.deepEqual(Object.keys(services).filter((name) => services[name]?.networks?.includes('itwinjs')).sort(), ['itwinjs', 'worker']);

  const [deployment, , policy] = parseAllDocuments(text('deploy/kubernetes/itwinjs.yaml')).map((document) => document.toJS() as Deployment);
  assert.deepEqual(deployment?.spec.template.spec.containers[0]?.env.map(({ name }) => name), ['OFFSHOOT_ITWINJS_KEY']);
  assert.deepEqual([policy?.kind, policy?.spec.egress], ['NetworkPolicy', []]);
  for (const folder of ['compose', 'kubernetes']) {
    const { service } = loadConfig({}, { file: `${root}deploy/${folder}/offshoot.json`, env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey } }).checkpoints;
    assert.match(service?.url ?? '', folder === 'compose' ? /^http:\/\/itwinjs:4700$/ : /^http:\/\/offshoot-itwinjs$/);
  }
});
