"""The WSGI entry point: `gunicorn wsgi:app` finds gunicorn.conf.py beside this file."""

from app import create_app, pages
from app.errors import ConfigError
from app.settings import Settings

try:
    app = create_app(Settings.from_environment())
except ConfigError as error:
    raise SystemExit(f"Error: {error}") from None
pages.compile_templates(app)
