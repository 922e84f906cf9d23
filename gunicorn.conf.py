"""gunicorn's settings: gevent workers, one loaded application shared by all of them.

The standard library is patched before anything else is imported, and collection of garbage waits until the imports are
done: both save start time and memory (see docs/deploy.md).
"""

import gc

gc.disable()

from gevent import monkey  # noqa: E402

monkey.patch_all()

from pathlib import Path  # noqa: E402

from app.errors import ConfigError  # noqa: E402
from app.settings import Settings, prepare_metrics_folder  # noqa: E402

try:
    _settings = Settings.from_environment()
except ConfigError as error:
    raise SystemExit(f"Error: {error}") from None

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "gevent"
worker_connections = 10_000
preload_app = True
proc_name = "dragoman"
timeout = 60  # of a worker's heartbeat, not of a request
graceful_timeout = _settings.graceful_timeout
keepalive = 5  # idle connections hold up a worker that stops
control_socket_disable = True  # it lies at one place per user, where two gateways would meet
loglevel = _settings.log_level.lower()
accesslog = None
forwarded_allow_ips = "127.0.0.1,::1"
limit_request_line = 8190
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None

prepare_metrics_folder(_settings)


def when_ready(server):
    """All imports are done: what they made will live on, so that no collection need look at it again."""
    gc.enable()
    gc.collect()
    gc.freeze()


def post_worker_init(worker):
    from app import start_background_work

    start_background_work(worker.wsgi)


def child_exit(server, worker):
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)
