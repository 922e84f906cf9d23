"""OpenAI's chat completions into Anthropic's Messages API and back, as pure functions on JSON values.

Out: request.py (the whole), messages.py (turns), assistant.py (what Claude itself said), content.py and native.py
(parts), tools.py, forcing.py, search.py, reasoning.py, output_format.py and schema.py, sampling.py, caching.py,
extensions.py, fields.py (what becomes of each top-level field), learning.py (what refusals teach).

Back: stream.py (events to chunks), accumulate.py (events to one message), response.py (messages to a completion),
continuation.py (answers of several messages), thinking.py and memory.py (thinking that comes back), usage.py,
stop_reason.py, errors.py, headers.py, models.py.

To be read by people: explain.py and compatibility.py.
"""
