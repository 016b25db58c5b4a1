import { createHmac } from 'node:crypto';
import http from 'node:http';
import https from 'node:https';
import { RequestFilteringHttpAgent, RequestFilteringHttpsAgent } from 'request-filtering-agent';
import type { Config } from '../config.ts';
import type { Database } from '../db/database.ts';
import { exponentialBackoff, type Effect, type JobHandler, type RunningJob } from '../operations/jobs.ts';
import { PublicError } from '../operations/reasons.ts';
import { deliveryFault } from './deliveryFault.ts';
import { deliverJob, type EventMessage } from './events.ts';
import { Receivers } from './receivers.ts';

/** Rule of the API: a receiver must answer within 5 s. */
const answerWithinMs = 5000;
const longestWaitMs = 3_600_000;

/**
 * Delivers events to webhooks, at least once. A delivery that is not answered with 2xx in time is retried with exponential
 * backoff; when its attempts are exhausted, it becomes a dead letter. Addresses within the installation's own network are
 * refused when the connection is made, so that changing a DNS name later does not help. Redirects are not followed.
 */
export function deliveryHandler(database: Database, config: Config['webhooks']): JobHandler {
  const filter = {
    allowPrivateIPAddress: config.allowPrivateAddresses,
    allowMetaIPAddress: config.allowPrivateAddresses,
  };
  const agents = { http: new RequestFilteringHttpAgent(filter), https: new RequestFilteringHttpsAgent(filter) };
  const receivers = new Receivers(database, config);
  const nothing: Effect = async () => undefined;
  return {
    kind: deliverJob,
    attempts: config.attempts,
    backoffMs: exponentialBackoff(config.firstRetrySeconds * 1000, longestWaitMs),
    keepFailed: true,
    onExhausted: async () => undefined,
    async run(job: RunningJob) {
      const webhook = await database.db
        .selectFrom('webhook')
        .selectAll()
        .where('id', '=', job.subjectId)
        .executeTakeFirst();
      if (webhook?.is_active !== 1) return nothing;
      await receivers.require(webhook);
      const message = job.payload as EventMessage;
      const body = JSON.stringify({
        content: message.content,
        eventType: message.eventType,
        enqueuedDateTime: new Date(message.enqueuedAt).toISOString(),
        iTwinId: message.iTwinId,
        messageId: job.id,
        webhookId: webhook.id,
      });
      const url = new URL(webhook.callback_url);
      try {
        await post(
          url,
          url.protocol === 'https:' ? agents.https : agents.http,
          body,
          signatureOf(webhook.secret, body),
          job.signal,
        );
      } catch (error) {
        // An attempt aborted by this server is no failure of the receiver.
        if (!job.signal.aborted) await receivers.failed(webhook);
        throw error;
      }
      await receivers.succeeded(webhook);
      return nothing;
    },
  };
}

/** Rule of the API: HMAC-SHA256 of the raw body with the webhook's secret, hex. */
function signatureOf(secret: string, body: string): string {
  return `sha256=${createHmac('sha256', secret).update(body).digest('hex')}`;
}

function post(url: URL, agent: http.Agent, body: string, signature: string, aborted: AbortSignal): Promise<void> {
  const { request } = url.protocol === 'https:' ? https : http;
  const headers = {
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    signature,
    'user-agent': 'Offshoot',
  };
  return new Promise((resolve, reject) => {
    const signal = AbortSignal.any([aborted, AbortSignal.timeout(answerWithinMs)]);
    const sent = request(url, { method: 'POST', agent, headers, signal }, (answer) => {
      answer.resume();
      const status = answer.statusCode ?? 0;
      if (status >= 200 && status < 300) resolve();
      else reject(new PublicError(`The receiver answered ${status}.`));
    });
    sent.once('error', (error) =>
      reject(
        signal.aborted && !aborted.aborted
          ? new PublicError(`The receiver did not answer within ${answerWithinMs / 1000} s.`)
          : deliveryFault(error),
      ),
    );
    sent.end(body);
  });
}
