"""What clients ask for into Anthropic's Messages API and back, as pure functions on JSON values.

A package for each language that clients speak: chat/. What is Claude's own, whoever asks, stands here.

Out: content.py and native.py (parts), tools.py, search.py, schema.py, caching.py, facts.py and learning.py (what models
take), notes.py and warnings.py (what could not be carried over), translation.py (what it all amounts to).

Back: accumulate.py (events to one message), continuation.py (answers of several messages), thinking.py (thinking that
comes back), text_filters.py and stops.py, stop_reason.py, usage.py, errors.py, headers.py, models.py.
"""
