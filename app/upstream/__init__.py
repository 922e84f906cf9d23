"""The only code that talks to Anthropic.

transport.py carries the SDK's requests over urllib3, body.py and events.py read what comes back, client.py makes one
call over one connection, pool.py chooses the connection, catalogue.py knows the models, waiting.py ends a wait when
the client has gone.
"""
