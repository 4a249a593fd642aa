"""The API process: `python -I -u -m services.api.main`. Settings come from the environment; a wrong one is exit 2."""

import sys

import uvicorn
from fastapi import FastAPI

from core import config, garbage, telemetry
from core.config import settings
from core.errors import SettingError
from core.process_protection import protect
from services.api.app import create_app
from services.api.server import BACKLOG, DRAIN_SECONDS, Protocol, Server, listen

_ALWAYS = (
    "database_url",
    "secret_key",
    "algorithm",
    "access_token_expire_minutes",
    "rate_limit_submit_per_minute",
    "rate_limit_auth_per_minute",
    "registration",
    "env",
    "api_host",
    "api_port",
    "log_level",
    "metrics_port",
    "trusted_proxies",
    "redis",
)
_REDIS = tuple(
    f"redis_{what}_{level}" for what in ("host", "port", "username", "password", "tls") for level in ("high", "low")
)


def main() -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    try:
        protect()
        config.require(*_ALWAYS)
        if settings.redis:
            config.require(*_REDIS)
        telemetry.configure("api")
        stop_metrics = telemetry.serve_metrics(settings.metrics_port)
        socket = listen(settings.api_host, settings.api_port)
        app = create_app()
    except SettingError as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2

    def drain() -> None:
        app.state.parts.drain()  # they are there once the application has started

    garbage.collect_seldom()
    try:
        Server(configured(app), drain).run(sockets=[socket])
    finally:
        stop_metrics()
    return 0


def configured(app: FastAPI) -> uvicorn.Config:
    """Return how the application is served: one process on uvloop, by httptools."""
    return uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        backlog=BACKLOG,
        log_config=None,
        log_level="warning",  # what we log ourselves says more
        access_log=False,
        server_header=False,
        date_header=False,
        # Forwarded headers can be sent by anybody; deps.address_of believes those of known proxies only.
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


if __name__ == "__main__":
    raise SystemExit(main())
