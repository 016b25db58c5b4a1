/** A bare Fastify in a process of its own: answers every GET with the body that its parent sends. */
import Fastify from 'fastify';

process.on('disconnect', () => process.exit());
process.once('message', ({ body }: { body: string }) => {
  const app = Fastify();
  app.get('/imodels/:id', (_request, reply) => reply.type('application/json; charset=utf-8').send(body));
  app.listen({ host: '127.0.0.1', port: 0 }).then(
    (origin) => process.send?.({ origin }),
    () => process.exit(1),
  );
});
