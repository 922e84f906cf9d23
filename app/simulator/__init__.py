"""An Anthropic Messages API for tests, the demo and the benchmark.

    python -m app.simulator --port 9100

Pure parts: `models` (facts), `validator` (what the real API refuses), `scenarios` (what is answered). Sockets are in
`connection`, `delivery` and `server`. Nothing here imports the gateway: the two must be able to be wrong apart.
"""
