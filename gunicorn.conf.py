"""gunicorn's settings: gevent workers, one loaded application shared by all of them.

The standard library is patched before anything else is imported, and collection of garbage waits until the imports are
done: both save start time and memory. A reload runs this file again, with all imports behind it.
"""

import gc

if not gc.get_freeze_count():
    gc.disable()

from gevent import monkey

monkey.patch_all()

import itertools  # noqa: E402
from pathlib import Path  # noqa: E402

from app.errors import ConfigError  # noqa: E402
from app.settings import Settings, prepare_metrics_folder  # noqa: E402

try:
    _settings = Settings.from_environment()
except ConfigError as error:
    raise SystemExit(f"Error: {error}") from None

bind = f"{_settings.host}:{_settings.port}"
workers = _settings.web_concurrency
worker_class = "app.serve.worker.Worker"
worker_connections = 10_000
preload_app = True
proc_name = "dragoman"
timeout = 60  # of a worker's heartbeat, not of a request
graceful_timeout = _settings.graceful_timeout
max_requests = _settings.max_requests
max_requests_jitter = max_requests // 10  # not all workers at once
keepalive = 5  # idle connections hold up a worker that stops
control_socket_disable = True  # it lies at one place per user, where two gateways would meet
loglevel = _settings.log_level.lower()
accesslog = None
# Scheme, host and client are read from headers by ProxyFix alone, as TRUSTED_PROXIES says.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers = {}
limit_request_line = 8190
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None

prepare_metrics_folder()


def on_starting(server):
    """Our own log lines come out as gunicorn's do."""
    import logging

    ours = logging.getLogger("app")
    ours.handlers = server.log.error_log.handlers
    ours.propagate = False


def when_ready(server):
    """Once at each start, when all imports are done."""
    import logging

    from app.serve import garbage

    for doubt in _settings.doubts:
        logging.getLogger("app").warning("settings: %s", doubt)
    garbage.begin()


def pre_fork(server, worker):
    taken = {each.place for each in server.WORKERS.values()}
    worker.place = next(place for place in itertools.count() if place not in taken)


def post_fork(server, worker):
    from app.serve import metrics

    metrics.begin(worker.place)


def post_worker_init(worker):
    import signal

    from app import start_background_work

    # Ctrl-C reaches the whole group, and the master then tells its workers what to do: once is enough.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    start_background_work(worker.wsgi)


def worker_exit(server, worker):
    from app import end_background_work

    if getattr(worker, "wsgi", None) is not None:  # it is not there in a worker that could not start
        end_background_work(worker.wsgi)


def child_exit(server, worker):
    from app.serve import worker_state

    worker_state.forget(worker.pid)
