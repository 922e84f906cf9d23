"""What people look at: each page's views in a module of its name, forms.py, templates/ and static/."""

from __future__ import annotations

from flask import Flask


def register(app: Flask) -> None:
    from app.pages import account, audit, configuration, docs, history, keys, login, overview, setup, words

    for module in (words, docs, setup, login, overview, configuration, keys, history, audit, account):
        app.register_blueprint(module.blueprint)


def compile_templates(app: Flask) -> None:
    """Before anybody is served: the first who asked for a page would hold others up for as long as that takes."""
    for name in app.jinja_env.list_templates():
        app.jinja_env.get_template(name)
