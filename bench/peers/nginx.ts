import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { freePort } from '../../test/support/freePort.ts';
import { note, runProgram } from '../common.ts';

/** An nginx that serves one folder and takes uploads into another. */
export interface Nginx {
  origin: string;
  stop(): Promise<void>;
}

const startWithinMs = 10_000;
/** Debian installs it where only root looks for programs. */
const env = { ...process.env, PATH: `${process.env['PATH'] ?? ''}:/usr/local/sbin:/usr/sbin` };

/**
 * Starts nginx with the settings of Debian's package that matter for files (`sendfile`, `tcp_nopush`, one worker for
 * each core), and WebDAV for uploads. @returns null where it is not installed
 */
export async function startNginx(folder: string, served: string): Promise<Nginx | null> {
  const installed = await runProgram('nginx', ['-v'], { env }).then(
    () => true,
    () => false,
  );
  if (!installed) {
    note('nginx is not installed: files are measured without a comparison (Debian: apt-get install nginx-light)');
    return null;
  }
  const port = await freePort();
  for (const name of ['uploads', 'temporary']) mkdirSync(path.join(folder, name), { recursive: true });
  const file = path.join(folder, 'nginx.conf');
  writeFileSync(file, configuration(folder, served, port));
  const child = spawn('nginx', ['-p', folder, '-c', file, '-e', path.join(folder, 'error.log'), '-g', 'daemon off;'], {
    stdio: 'ignore',
    env,
  });
  const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
  const stop = async (): Promise<void> => {
    child.kill('SIGTERM');
    await ended;
  };
  const origin = `http://127.0.0.1:${port}`;
  for (const until = Date.now() + startWithinMs; ; await pause(20)) {
    const answers = await fetch(origin).then(
      () => true,
      () => false,
    );
    if (answers) return { origin, stop };
    if (child.exitCode === null && Date.now() < until) continue;
    if (child.exitCode === null) await stop();
    note('nginx does not start: files are measured without a comparison');
    return null;
  }
}

function configuration(folder: string, served: string, port: number): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
    .map((name) => `${name}_temp_path ${path.join(folder, 'temporary', name)};`)
    .join('\n  ');
  return `${process.getuid?.() === 0 ? 'user root;' : ''}
worker_processes auto;
pid ${path.join(folder, 'nginx.pid')};
events { worker_connections 768; }
http {
  ${temporary}
  access_log off;
  sendfile on;
  tcp_nopush on;
  client_max_body_size 0;
  keepalive_requests 1000000;
  server {
    listen 127.0.0.1:${port};
    location / { root ${served}; }
    location /uploads/ { root ${folder}; dav_methods PUT; }
  }
}
`;
}
