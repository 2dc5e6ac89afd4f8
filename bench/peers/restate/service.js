// A Restate service with the no-op as its handler. Restate's ingress keeps the idempotency key and the journalled result.
import * as restate from '@restatedev/restate-sdk';

// The SDK asks for Node 22; on Node 20 this one function is what it misses.
Promise.withResolvers ??= function () {
  let resolve, reject;
  const promise = new this((yes, no) => { resolve = yes; reject = no; });
  return { promise, resolve, reject };
};

const [listenPort] = process.argv.slice(2);

const bench = restate.service({
  name: 'bench',
  handlers: {
    execute: async (_context, request) => ({ status: 'completed', result: request.payload }),
  },
});

restate.serve({ services: [bench], port: Number(listenPort) });
