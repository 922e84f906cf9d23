"""Dragoman: OpenAI's API on one side, Anthropic's Claude on the other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from app.settings import Settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def create_app(settings: Settings) -> Flask:
    """The WSGI application. Opens no connection and starts no background work: see start_background_work()."""
    from app import extensions, pages
    from app.access import hook
    from app.blueprints import chat, config, errors, health, messages, models, openapi, usage, verify
    from app.serve import access_log, metrics
    from app.serve.bodies import BodiesUnderWay
    from app.services import Upstream
    from app.upstream.catalogue import Catalogue
    from app.upstream.pool import Pool

    app = create_storage_app(settings)
    pool = Pool(settings, on_attempt=metrics.count_attempt)
    app.extensions["dragoman.upstream"] = claude = Upstream(pool, Catalogue(pool))
    ours = app.extensions["dragoman"]
    ours.config.on_change.append(claude.follow)
    ours.books.on_rows.append(lambda rows: metrics.count_rows(rows, ours.config.snapshot.prices.listed))
    app.url_map.merge_slashes = False  # werkzeug would redirect; _one_slash() takes them as they were meant
    app.url_map.strict_slashes = False
    extensions.login_manager.init_app(app)
    extensions.csrf.init_app(app)
    errors.register_error_handlers(app)
    metrics.init_app(app)
    access_log.init_app(app)
    app.extensions["dragoman.bodies"] = BodiesUnderWay(settings.max_body_bytes)
    hook.init_app(app)
    for module in (chat, messages, models, usage, config, verify, health, openapi):
        app.register_blueprint(module.blueprint)
    pages.register(app)
    hook.check_declarations(app)
    inner: Callable[..., Iterable[bytes]] = app.wsgi_app
    if settings.trusted_proxies:
        n = settings.trusted_proxies
        inner = ProxyFix(inner, x_for=n, x_proto=n, x_host=n)
    app.wsgi_app = _one_slash(inner)  # type: ignore[method-assign]  # Flask's documented way to add a middleware
    return app


def create_storage_app(settings: Settings) -> Flask:
    """The application without its routes, which need the SDK and its two seconds: enough for commands."""
    from app import extensions
    from app.serve.routes import RememberingFlask
    from app.services import Services
    from app.storage import audit, database, ledger
    from app.storage.books import Books
    from app.storage.config import PersistentConfig
    from app.storage.keys import KeyRing
    from app.storage.remembered import RememberedAnswers
    from app.storage.secrets import Vault
    from app.storage.writer import GroupedWriter

    logging.getLogger("app").setLevel(settings.log_level.upper())
    app = RememberingFlask(
        __name__,
        instance_path=str(settings.instance_path.resolve()),
        template_folder="pages/templates",
        static_folder="pages/static",
    )
    vault = Vault(settings)
    app.config.update(
        SECRET_KEY=vault.session_key,
        SECRET_KEY_FALLBACKS=vault.session_key_fallbacks,
        SQLALCHEMY_DATABASE_URI=settings.database_uri,
        SQLALCHEMY_ENGINE_OPTIONS=database.engine_options(settings),
        MAX_CONTENT_LENGTH=settings.max_body_bytes,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        PERMANENT_SESSION_LIFETIME=timedelta(hours=12),
        WTF_CSRF_CHECK_DEFAULT=False,  # access/hook.py decides: only what a cookie authenticates is protected
        WTF_CSRF_TIME_LIMIT=None,
    )
    extensions.db.init_app(app)
    config_store = PersistentConfig(app, settings, vault)
    keys = KeyRing(app, settings)
    config_store.on_watch += [keys.write_use, audit.Pruning(app)]
    answers = RememberedAnswers(app, vault, GroupedWriter(app))
    books = Books(app, settings, lambda: config_store.snapshot.prices)
    config_store.on_watch += [books.enter_all, ledger.Pruning(app, settings.ledger_retention_days)]
    app.extensions["dragoman"] = Services(settings, vault, config_store, keys, answers, books)
    return app


def _one_slash(inner: Callable[..., Iterable[bytes]]) -> Callable[..., Iterable[bytes]]:
    """`/v1//models/` is `/v1/models`: clients join a base URL that ends in a slash."""

    def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path: str = environ["PATH_INFO"]
        while "//" in path:
            path = path.replace("//", "/")
        if len(path) > 1 and path.endswith("/"):
            path = path.rstrip("/")
        environ["PATH_INFO"] = path
        return inner(environ, start_response)

    return application


def start_background_work(app: Flask) -> list[Any]:
    """What a worker does beside requests: follow the configuration. Call once in each worker, after the fork."""
    from app.serve import garbage, worker_state
    from app.storage import folds
    from app.upstream.waiting import ClientWatch

    config = app.extensions["dragoman"].config
    claude = app.extensions["dragoman.upstream"]
    worker_state.begin()
    config.on_watch.append(lambda: claude.follow(config.snapshot))
    config.on_watch.append(lambda: worker_state.publish(app))
    return [config.watch(), garbage.watch(ClientWatch.are_none), folds.fold_in_background(app)]


def end_background_work(app: Flask) -> None:
    """The counterpart, when a worker has ended its last request."""
    app.extensions["dragoman"].books.close()
