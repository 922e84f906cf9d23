"""The only code that talks to Anthropic.

heads.py has the SDK say what stands before a request's body, transport.py carries it, http1.py and events.py read what
comes back, client.py makes one call over one connection, health.py keeps how each connection fares, pool.py chooses
among them, answer.py and choices.py make answers of calls, names.py and catalogue.py know the models, waiting.py ends a
wait when the client has gone or the process must stop.
"""
