"""FastAPI with asgi-idempotency-header over Redis, as its documentation sets it up; one uvicorn worker on uvloop."""

import os

from fastapi import FastAPI
from idempotency_header_middleware import IdempotencyHeaderMiddleware
from idempotency_header_middleware.backends import RedisBackend
from pydantic import BaseModel
from redis.asyncio import Redis


class Execute(BaseModel):
    """What the generator sends."""

    operation: str
    payload: dict


app = FastAPI()
app.add_middleware(
    IdempotencyHeaderMiddleware,
    # As many connections as requests can be in flight: the client's default of 100 makes the rest fail.
    backend=RedisBackend(redis=Redis.from_url(os.environ["REDIS_URL"], max_connections=1024)),
)


@app.post("/v1/idempotency/execute")
async def execute(request: Execute) -> dict:
    """The no-op."""
    return {"status": "completed", "result": request.payload}
