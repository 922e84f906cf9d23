"""OpenAI's chat completions into Anthropic's Messages API and back, as pure functions on JSON values.

One direction per file. Out: request.py (the whole), messages.py (turns), content.py (parts), tools.py, reasoning.py,
sampling.py, fields.py (what becomes of each top-level field). Back: stream.py (events to chunks), accumulate.py (events
to one message), response.py (message to completion), usage.py, stop_reason.py, errors.py, headers.py, models.py.
"""
