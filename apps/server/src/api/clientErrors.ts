import type { Socket } from 'node:net';
import { ApiError, type ErrorCode } from '../errors.ts';
import { writeWaitingAnswers } from '../http/groupedResponses.ts';
import { securityHeaders } from '../http/securityHeaders.ts';

const reasons: Readonly<Record<number, string>> = {
  400: 'Bad Request',
  408: 'Request Timeout',
  431: 'Request Header Fields Too Large',
};

/** Answers malformed requests and requests that time out before routing, in the API's envelope. */
export function answerClientError(error: NodeJS.ErrnoException, socket: Socket): void {
  // The request before this one on the connection may have an answer that waits.
  writeWaitingAnswers();
  // The client has disconnected or already has its answer.
  if (error.code === 'ECONNRESET' || !socket.writable) {
    socket.destroy(error);
    return;
  }
  const code: ErrorCode =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? 'RequestHeadersTooLarge'
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? 'RequestTimeout'
        : 'BadRequest';
  const refusal = new ApiError(code);
  const body = JSON.stringify(refusal.toBody());
  const headers = {
    ...securityHeaders,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    connection: 'close',
  };
  const head = [
    `HTTP/1.1 ${refusal.status} ${reasons[refusal.status] ?? ''}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
  ];
  socket.end(`${head.join('\r\n')}\r\n\r\n${body}`, () => socket.destroy());
}
