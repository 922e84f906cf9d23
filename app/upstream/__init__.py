"""The only code that talks to Anthropic.

sdk.py makes Anthropic's SDK, which says what stands before a request's body (heads.py). transport.py carries it,
http1.py and events.py read what comes back, client.py makes one call over one connection, health.py keeps how each
connection fares, pool.py chooses among them, answer.py and choices.py make answers of calls, names.py and catalogue.py
know the models, analytics.py asks for reports, waiting.py ends a wait when the client has gone or the process must
stop.
"""
