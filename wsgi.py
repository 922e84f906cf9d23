"""The WSGI entry point: `gunicorn wsgi:app` finds gunicorn.conf.py beside this file."""

from app import create_app
from app.settings import Settings

app = create_app(Settings.from_environment())
