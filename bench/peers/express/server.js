// Express with express-idempotency over Redis, as its documentation sets it up. The package has no Redis adapter of its
// own, so this one does what its interface asks for: find is a GET, create and update are SETs. That is where it races.
import express from 'express';
import idempotencyPackage from 'express-idempotency';
import { createClient } from 'redis';

const { idempotency, getSharedIdempotencyService } = idempotencyPackage;
const [listenPort, redisUrl] = process.argv.slice(2);
const RETENTION_S = 86400;

const redis = createClient({ url: redisUrl });
await redis.connect();

const store = (resource) =>
  redis.set(resource.idempotencyKey, JSON.stringify(resource), { expiration: { type: 'EX', value: RETENTION_S } });
const dataAdapter = {
  async findByIdempotencyKey(key) {
    const text = await redis.get(key);
    return text === null ? null : JSON.parse(text);
  },
  create: store,
  update: store,
  delete: (key) => redis.del(key),
};

const app = express();
app.use(express.json());
app.use(idempotency({ dataAdapter }));
app.post('/v1/idempotency/execute', (request, response) => {
  if (getSharedIdempotencyService().isHit(request)) {
    return;
  }
  response.send({ status: 'completed', result: request.body.payload });
});
app.listen(Number(listenPort), '127.0.0.1');
