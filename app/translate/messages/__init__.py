"""Anthropic's own API, relayed: what is read of a request and of an answer, and what errors look like there. Nothing is
repaired, defaulted or added; of a request only the name of the model changes."""
