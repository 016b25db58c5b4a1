import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { test } from 'node:test';
import { parse, parseAllDocuments } from 'yaml';
import { loadConfig, shortestServiceKey, type Config } from '../apps/server/src/config.ts';

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
  spec: {
    replicas: number;
    template: {
      metadata: { labels: Record<string, string>; annotations?: Record<string, string> };
      spec: { terminationGracePeriodSeconds: number; automountServiceAccountToken?: boolean; containers: Container[] };
    };
  };
}
type Peer = { ipBlock: { cidr: string; except?: string[] } } | { namespaceSelector: object } | { podSelector: object };
interface NetworkPolicy {
  kind: string;
  spec: {
    podSelector: { matchLabels: Record<string, string> };
    policyTypes: string[];
    ingress: { from?: Peer[]; ports: { port: string }[] }[];
    egress: { to: Peer[]; ports: { port: number }[] }[];
  };
}

const roles = ['itwinjs', 'start', 'work'];
/** A key of the minimum length; the files in `deploy/` take it from a secret. */
const itwinJsKey = 'k'.repeat(shortestServiceKey);
const kustomization = parse(text('deploy/kubernetes/kustomization.yaml')) as {
  resources: string[];
  configMapGenerator: { files: string[] }[];
};

/** Configuration of the servers (`offshoot.json`) or the workers. */
const kubernetesConfig = (file: string): Config =>
  loadConfig({}, { file: `${root}deploy/kubernetes/${file}`, env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey } });

/** The resources of one kind that are applied to a cluster. */
function manifests<T extends { kind: string }>(wanted: string): T[] {
  const documents = kustomization.resources.flatMap((file) =>
    parseAllDocuments(text(`deploy/kubernetes/${file}`)).map((document) => document.toJS() as T),
  );
  return documents.filter(({ kind }) => kind === wanted);
}

/** No container engine is available here: the test checks that the files fit the server and each other. */
test('the image copies only files that exist', () => {
  const copied = [...text('Dockerfile').matchAll(/^COPY (?!--from)(.+) \S+$/gm)].flatMap(([, sources]) =>
    (sources ?? '').split(' '),
  );
  assert.ok(copied.length > 5);
  for (const source of copied) assert.ok(existsSync(`${root}${source}`), source);
  const workspaces = (JSON.parse(text('package-lock.json')) as { packages: Record<string, unknown> }).packages;
  // npm ci refuses a lock file with a workspace whose package.json is missing.
  for (const folder of Object.keys(workspaces).filter((name) => /^(apps|packages)\/[^/]+$/.test(name)))
    assert.ok(copied.includes(`${folder}/package.json`), folder);
});

test('compose starts two servers that leave jobs to a worker, with a valid configuration', () => {
  const { services } = parse(text('compose.yaml'), { merge: true }) as { services: Record<string, Service> };
  const config = loadConfig(
    {},
    { file: `${root}deploy/compose/offshoot.json`, env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey } },
  );
  assert.deepEqual([config.jobs.here, config.store.type], [false, 's3']);
  for (const name of ['server-1', 'server-2', 'worker']) {
    const service = services[name] ?? assert.fail(`there is no ${name}`);
    assert.ok(roles.includes(service.command?.[0] ?? 'start'));
    assert.ok(service.volumes?.includes('./deploy/compose/offshoot.json:/etc/offshoot/offshoot.json:ro'));
    const environment = Object.fromEntries(
      Object.entries(service.environment ?? {}).filter(
        ([key, value]) =>
          key.startsWith('OFFSHOOT_') && key !== 'OFFSHOOT_CONFIG' && !value.includes('${OFFSHOOT_PUBLIC_URL'),
      ),
    );
    loadConfig(
      {},
      { file: `${root}deploy/compose/offshoot.json`, env: { ...environment, OFFSHOOT_ITWINJS_KEY: itwinJsKey } },
    );
  }
  assert.equal(services['worker']?.command?.[0], 'work');
  for (const server of ['server-1', 'server-2'])
    assert.ok(text('deploy/compose/Caddyfile').includes(`${server}:${config.port}`));
  // Every variable is either explained in the example or has a default.
  for (const [, name] of text('compose.yaml').matchAll(/\$\{(\w+)/g))
    assert.match(text('deploy/compose/env.example'), new RegExp(`^${name}=`, 'm'));
});

test('the Kubernetes manifests run servers and a worker with working probes and a valid configuration', () => {
  const defaults = loadConfig({}, { env: {} });
  const deployments = manifests<Deployment>('Deployment');
  assert.deepEqual(deployments.map(({ spec }) => spec.template.spec.containers[0]?.args[0]).sort(), roles);
  for (const { spec } of deployments) {
    const { containers, terminationGracePeriodSeconds } = spec.template.spec;
    const [container] = containers;
    // The iTwin.js service has no readiness check and no configuration.
    const isService = container?.args[0] === 'itwinjs';
    assert.deepEqual(
      [container?.livenessProbe.httpGet.path, container?.readinessProbe.httpGet.path],
      ['/health', isService ? '/health' : '/health/ready'],
    );
    assert.ok(terminationGracePeriodSeconds > defaults.shutdownSeconds);
    assert.equal(container?.ports[0]?.containerPort, defaults.port);
    if (isService) continue;
    const file =
      container?.env.find(({ name }) => name === 'OFFSHOOT_CONFIG')?.value?.replace('/etc/offshoot/', '') ??
      assert.fail('there is no OFFSHOOT_CONFIG');
    assert.ok(kustomization.configMapGenerator[0]?.files.includes(file));
    const config = kubernetesConfig(file);
    assert.ok(terminationGracePeriodSeconds > config.shutdownSeconds);
    // The metrics are on a separate port, where the annotations point Prometheus.
    assert.deepEqual(
      container?.ports.map(({ containerPort }) => containerPort),
      [config.port, config.metricsPort],
    );
    assert.deepEqual(
      [spec.template.metadata.annotations?.['prometheus.io/port'], config.metrics],
      [`${config.metricsPort}`, true],
    );
  }
});

test('iTwin.js runs with a key of its own, and without addresses and keys of the database and the store', () => {
  const { services, networks } = parse(text('compose.yaml'), { merge: true }) as {
    services: Record<string, Service>;
    networks: Record<string, { internal?: boolean }>;
  };
  assert.deepEqual(Object.keys(services['itwinjs']?.environment ?? {}), ['OFFSHOOT_ITWINJS_KEY']);
  // Only the worker reaches it, and it reaches nothing outside.
  assert.deepEqual([services['itwinjs']?.networks, networks['itwinjs']?.internal], [['itwinjs'], true]);
  assert.deepEqual(
    Object.keys(services)
      .filter((name) => services[name]?.networks?.includes('itwinjs'))
      .sort(),
    ['itwinjs', 'worker'],
  );

  const deployment = manifests<Deployment>('Deployment').find(
    ({ spec }) => spec.template.metadata.labels['part'] === 'itwinjs',
  );
  const policy = manifests<NetworkPolicy>('NetworkPolicy').find(
    ({ spec }) => spec.podSelector.matchLabels['part'] === 'itwinjs',
  );
  assert.deepEqual(
    deployment?.spec.template.spec.containers[0]?.env.map(({ name }) => name),
    ['OFFSHOOT_ITWINJS_KEY'],
  );
  assert.deepEqual(policy?.spec.egress, []);
  for (const folder of ['compose', 'kubernetes']) {
    const { service } = loadConfig(
      {},
      {
        file: `${root}deploy/${folder}/${folder === 'compose' ? 'offshoot' : 'worker'}.json`,
        env: { OFFSHOOT_ITWINJS_KEY: itwinJsKey },
      },
    ).checkpoints;
    assert.match(service?.url ?? '', folder === 'compose' ? /^http:\/\/itwinjs:4700$/ : /^http:\/\/offshoot-itwinjs$/);
  }
});

test('the optional back end for viewers has a key of its own, and only servers reach it', () => {
  const base = parse(text('compose.yaml'), { merge: true }) as { services: Record<string, Service> };
  const added = parse(text('deploy/compose/viewer.yaml'), { merge: true }) as {
    services: Record<string, Service>;
    networks: Record<string, { internal?: boolean }>;
  };
  const { views } = added.services;
  assert.deepEqual(views?.command, ['view-backend', '--server', 'http://proxy:4700']);
  assert.deepEqual(Object.keys(views?.environment ?? {}), ['OFFSHOOT_VIEWER_KEY']);
  assert.deepEqual([views?.networks, added.networks['views']?.internal], [['views'], true]);
  const reaching = Object.keys(added.services).filter((name) => added.services[name]?.networks?.includes('views'));
  assert.deepEqual(reaching.sort(), ['proxy', 'server-1', 'server-2', 'views']);
  for (const name of reaching.filter((each) => each !== 'views')) assert.ok(base.services[name], name);
  // The configuration is that of compose.yaml and the back end.
  const { viewer, ...rest } = JSON.parse(text('deploy/compose/viewer.json')) as Record<string, unknown>;
  assert.deepEqual(rest, JSON.parse(text('deploy/compose/offshoot.json')));
  assert.deepEqual(viewer, { enabled: true, service: { url: 'http://views:4700' } });
  for (const name of ['server-1', 'server-2'])
    assert.ok(
      added.services[name]?.volumes?.includes('./deploy/compose/viewer.json:/etc/offshoot/offshoot.json:ro'),
      name,
    );
  const env = { OFFSHOOT_ITWINJS_KEY: itwinJsKey, OFFSHOOT_VIEWER_KEY: itwinJsKey };
  assert.equal(loadConfig({}, { file: `${root}deploy/compose/viewer.json`, env }).viewer.service?.key, itwinJsKey);
  for (const [, name] of text('deploy/compose/viewer.yaml').matchAll(/\$\{(\w+)/g))
    assert.match(text('deploy/compose/env.example'), new RegExp(`^${name}=`, 'm'));

  const [deployment, service, policy] = parseAllDocuments(text('deploy/kubernetes/viewer.yaml')).map(
    (document) => document.toJS() as unknown,
  ) as [Deployment, { metadata: { name: string } }, NetworkPolicy];
  const [container] = deployment.spec.template.spec.containers;
  const servers = manifests<{ kind: string; metadata: { name: string } }>('Service').map(
    ({ metadata }) => metadata.name,
  );
  assert.deepEqual(container?.args.slice(0, 2), ['view-backend', '--server']);
  assert.ok(servers.includes(new URL(container?.args[2] ?? '').hostname));
  assert.deepEqual(
    container?.env.map(({ name }) => name),
    ['OFFSHOOT_VIEWER_KEY'],
  );
  assert.deepEqual(
    [container?.livenessProbe.httpGet.path, container?.readinessProbe.httpGet.path],
    ['/health', '/health'],
  );
  const { labels } = deployment.spec.template.metadata;
  assert.deepEqual(policy.spec.podSelector.matchLabels, labels);
  const ofServers = { podSelector: { matchLabels: { app: 'offshoot', part: 'server' } } };
  assert.deepEqual(policy.spec.ingress, [{ from: [ofServers], ports: [{ port: 'http' }] }]);
  assert.deepEqual(policy.spec.egress.flatMap(({ to }) => to).at(-1), ofServers);
  // What kustomization.yaml says to add names this service, and servers may call it.
  const [, addition = ''] = /^# +("viewer": .*)$/m.exec(text('deploy/kubernetes/kustomization.yaml')) ?? [];
  const { url } = (JSON.parse(`{${addition}}`) as { viewer: { service: { url: string } } }).viewer.service;
  assert.equal(new URL(url).hostname, service.metadata.name);
  const ofServer = manifests<NetworkPolicy>('NetworkPolicy').find(
    ({ spec }) => spec.podSelector.matchLabels['part'] === 'server',
  );
  assert.deepEqual(ofServer?.spec.egress.at(-1)?.to, [{ podSelector: { matchLabels: labels } }]);
});

test('an image has the page of the viewer where the server looks for it, if the build asks for it', () => {
  const file = text('Dockerfile');
  assert.match(file, /^ARG VIEWER=""$/m);
  assert.match(file, /if \[ -n "\$\{VIEWER\}" \]; then npm run viewer; fi/);
  assert.match(file, /^COPY --from=build \/offshoot\/packages\/viewer\/dist packages\/viewer\/dist$/m);
  assert.match(text('apps/server/src/http/viewerPage.ts'), /'\.\.\/\.\.\/\.\.\/\.\.\/packages\/viewer\/dist\/'/);
});

test('no pod in Kubernetes has a service account token', () => {
  const optional = parseAllDocuments(text('deploy/kubernetes/viewer.yaml'))[0]?.toJS() as Deployment;
  for (const { spec } of [...manifests<Deployment>('Deployment'), optional])
    assert.equal(spec.template.spec.automountServiceAccountToken, false);
});

test('Kubernetes workers reach only DNS, the database, the store and iTwin.js, and only Prometheus reaches metrics', () => {
  const policies = manifests<NetworkPolicy>('NetworkPolicy');
  for (const { spec } of manifests<Deployment>('Deployment')) {
    const { labels } = spec.template.metadata;
    const policy =
      policies.find((each) =>
        Object.entries(each.spec.podSelector.matchLabels).every(([name, value]) => labels[name] === value),
      ) ?? assert.fail(`no policy for ${labels['part']}`);
    assert.deepEqual(policy.spec.policyTypes, ['Ingress', 'Egress']);
    const open = policy.spec.ingress
      .filter(({ from }) => from === undefined)
      .flatMap(({ ports }) => ports.map(({ port }) => port));
    assert.deepEqual(open, labels['part'] === 'server' ? ['http'] : []);
    const wide = policy.spec.egress
      .flatMap(({ to }) => to)
      .filter((peer) => 'ipBlock' in peer && !peer.ipBlock.cidr.endsWith('/32'));
    assert.equal(wide.length, labels['part'] === 'server' ? 1 : 0);
    // Clouds issue credentials at an address in this range.
    for (const peer of wide) assert.ok('ipBlock' in peer && peer.ipBlock.except?.includes('169.254.0.0/16'));
  }
  // Servers, not workers, send the messages that need other addresses.
  const [server, worker] = [kubernetesConfig('offshoot.json'), kubernetesConfig('worker.json')];
  assert.deepEqual([server.jobs.here, server.webhooks.here, worker.webhooks.here], [true, true, false]);
  assert.deepEqual([server.checkpoints.generate, server.transfers.slots, server.store], ['elsewhere', 0, worker.store]);
});

test('no secret of the build machine is copied into an image', () => {
  const ignored = text('.dockerignore').split('\n');
  for (const name of ['.git', '.env*', 'offshoot.json', 'offshoot-data']) assert.ok(ignored.includes(name), name);
});

test('all stages of the image share one base image, which can be pinned', () => {
  const bases = [...text('Dockerfile').matchAll(/^FROM (\S+)/gm)].map(([, base]) => base);
  assert.deepEqual(new Set(bases), new Set(['${NODE_IMAGE}']));
});
