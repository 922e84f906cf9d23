"""OpenAI's chat completions into Anthropic's Messages API and back.

Out: request.py (the whole), legacy.py (the first function calling), messages.py (turns), assistant.py and memory.py
(what Claude itself said), reasoning.py, sampling.py, output_format.py, forcing.py, extensions.py, fields.py (what
becomes of each top-level field).

Back: stream.py (events to chunks), response.py (messages to a completion), annotations.py, finish_reason.py, usage.py.

To be read by people: explain.py and compatibility.py.
"""
