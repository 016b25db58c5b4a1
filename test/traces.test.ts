import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { isITwinJsInstalled } from '../apps/server/src/checkpoints/itwinjs/workerProcess.ts';
import { makeIModel, official } from './support/clients.ts';
import { bootServer, endServer, otherStore, setups, type Setup } from './support/server.ts';
import { until } from './support/until.ts';
import { call, read, send, viewerConfig } from './support/viewerCalls.ts';

interface Span {
  traceId: string;
  spanId: string;
  parentSpanId?: string;
  name: string;
  attributes: { key: string; value: Record<string, unknown> }[];
}

/** An OTLP trace collector over HTTP. */
async function collector(): Promise<{ url: string; spans: Span[]; bodies: string[]; close(): Promise<void> }> {
  const spans: Span[] = [];
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk: Buffer) => (body += chunk.toString()));
    request.on('end', () => {
      bodies.push(body);
      const { resourceSpans } = JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] };
      spans.push(...resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans)));
      response.setHeader('content-type', 'application/json').end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`;
  return { url, spans, bodies, close: () => new Promise((resolve) => server.close(() => resolve())) };
}

test(
  'one trace spans a request, the job that it scheduled and the files in the store, and reveals no secret',
  { timeout: 180_000 },
  async () => {
    const setup = setups[0] as Setup;
    const sink = await collector();
    const server = await bootServer(setup, { tracesUrl: sink.url, dataCenters: { 'West Europe': otherStore(setup) } });
    try {
      const source = await makeIModel(await official(server), await server.iTwin(), { changesets: 2 });
      const far = await server.iTwin('olivia', undefined, 'West Europe');
      const traceId = '0af7651916cd43dd8448eb211c80319c';
      const token = await server.token('olivia');
      const accepted = await fetch(`${server.origin}/imodels/${source.id}/clone`, {
        method: 'POST',
        headers: {
          authorization: `Bearer ${token}`,
          'content-type': 'application/json',
          traceparent: `00-${traceId}-b7ad6b7169203331-01`,
        },
        body: JSON.stringify({ iTwinId: far, name: 'traced' }),
      });
      assert.equal(accepted.status, 202);
      const named = (name: string) => sink.spans.filter((span) => span.traceId === traceId && span.name === name);
      await until(
        'the spans of the copy',
        () => (named('job transferCheckpoints').length > 0 ? true : undefined),
        60_000,
      );
      const [request] = named('clone-imodel');
      const [files] = named('job transferFiles');
      assert.equal(request?.parentSpanId, 'b7ad6b7169203331');
      assert.equal(files?.parentSpanId, request?.spanId);
      const copies = named('store.copyFrom').filter(({ parentSpanId }) => parentSpanId === files?.spanId);
      assert.equal(copies.length, 2);
      const recorded = sink.bodies.join('\n');
      for (const secret of [token, 'sig=', 'sig%3D']) assert.ok(!recorded.includes(secret));
    } finally {
      await endServer(server);
      await sink.close();
    }
  },
);

test(
  'a call of a viewer has a span within the trace of the page, below that of its request',
  { timeout: 180_000, skip: isITwinJsInstalled() ? false : 'iTwin.js is not installed' },
  async () => {
    const sink = await collector();
    const server = await bootServer(setups[0] as Setup, { ...viewerConfig, tracesUrl: sink.url });
    try {
      const { id, iTwinId } = await makeIModel(await official(server), await server.iTwin());
      const traceId = '1bf7651916cd43dd8448eb211c80319d';
      const page = { traceparent: `00-${traceId}-b7ad6b7169203332-01` };
      const place = { iTwinId, iModelId: id };
      const operation = `${read}getConnectionProps`;
      await call(await server.as('olivia'), place, operation);
      const answer = await send(await server.as('olivia'), place, operation, [], page);
      assert.equal(answer.status, 200, JSON.stringify(answer.body));
      const named = (name: string) => sink.spans.filter((span) => span.traceId === traceId && span.name === name);
      const [span] = await until(
        'the span of the call',
        () => {
          const found = named('view IModelReadRpcInterface.getConnectionProps');
          return found.length > 0 ? found : undefined;
        },
        60_000,
      );
      assert.deepEqual(span?.attributes, [{ key: 'offshoot.imodel', value: { stringValue: id } }]);
      const request = await until(
        'the span of its request',
        () => named('call-viewer').find(({ spanId }) => spanId === span?.parentSpanId),
        60_000,
      );
      assert.equal(request.parentSpanId, 'b7ad6b7169203332');
    } finally {
      await endServer(server);
      await sink.close();
    }
  },
);

test('an unavailable trace collector changes nothing', { timeout: 180_000 }, async () => {
  const server = await bootServer(setups[0] as Setup, { tracesUrl: 'http://127.0.0.1:9/v1/traces' });
  try {
    const made = await makeIModel(await official(server), await server.iTwin(), { changesets: 1 });
    assert.equal(made.changesets.length, 1);
  } finally {
    await endServer(server);
  }
});
