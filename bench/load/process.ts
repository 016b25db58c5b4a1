/** The process that generates load: receives one job at a time from `load.ts` and sends back its figures. */
import { run, type Job } from './jobs.ts';

process.on('message', (job: Job) => {
  run(job).then(
    (loaded) => process.send?.({ loaded }),
    (error: unknown) => process.send?.({ failure: error instanceof Error ? error.message : String(error) }),
  );
});
process.on('disconnect', () => process.exit());
process.send?.({ ready: true });
