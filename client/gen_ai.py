"""The names that OpenTelemetry's GenAI conventions give to what providers call by many names.

    request      gen_ai.request.model, .temperature, .top_p, .top_k, .max_tokens, .stop_sequences, .seed,
                 .frequency_penalty, .presence_penalty, .choice.count
    answer       gen_ai.response.model, .id, .finish_reasons
    usage        gen_ai.usage.input_tokens, .output_tokens, .cache_read.input_tokens, .cache_creation.input_tokens,
                 .reasoning.output_tokens
    not in the conventions, but so called by many: gen_ai.usage.total_tokens, gen_ai.usage.cost

A name that holds a dot is taken as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_REQUEST = {
    "model": "gen_ai.request.model",
    "max_completion_tokens": "gen_ai.request.max_tokens",
    "max_output_tokens": "gen_ai.request.max_tokens",
    "max_tokens_to_sample": "gen_ai.request.max_tokens",
    "stop": "gen_ai.request.stop_sequences",
    "n": "gen_ai.request.choice.count",
    "provider": "gen_ai.provider.name",
    "operation": "gen_ai.operation.name",
}
_USAGE = {
    "prompt_tokens": "gen_ai.usage.input_tokens",
    "completion_tokens": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_tokens": "gen_ai.usage.reasoning.output_tokens",
}
_RESPONSE = {
    "model": "gen_ai.response.model",
    "response_id": "gen_ai.response.id",
    "finish_reason": "gen_ai.response.finish_reasons",
    "finish_reasons": "gen_ai.response.finish_reasons",
}


def request_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """What is known when a generation begins, by its conventional name; None is left out.

    >>> request_attributes({"model": "m", "max_tokens": 10, "stop": None, "server.port": 443})
    {'gen_ai.request.model': 'm', 'gen_ai.request.max_tokens': 10, 'server.port': 443}
    """
    named = _renamed(given, _REQUEST, "gen_ai.request.")
    _listed(named, "gen_ai.request.stop_sequences")
    return named


def usage_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """Tokens and cost, by their conventional names; None is left out.

    >>> usage_attributes({"prompt_tokens": 12, "completion_tokens": 30, "cost": 0.0021})
    {'gen_ai.usage.input_tokens': 12, 'gen_ai.usage.output_tokens': 30, 'gen_ai.usage.cost': 0.0021}
    """
    return _renamed(given, _USAGE, "gen_ai.usage.")


def response_attributes(given: Mapping[str, Any]) -> dict[str, Any]:
    """What a provider says about its answer, by its conventional name; None is left out.

    >>> response_attributes({"model": "m-2026", "finish_reason": "stop"})
    {'gen_ai.response.model': 'm-2026', 'gen_ai.response.finish_reasons': ['stop']}
    """
    named = _renamed(given, _RESPONSE, "gen_ai.response.")
    _listed(named, "gen_ai.response.finish_reasons")
    return named


def _listed(named: dict[str, Any], name: str) -> None:
    """The conventions have a list where providers take or give a single text as well."""
    if isinstance(named.get(name), str):
        named[name] = [named[name]]


def _renamed(given: Mapping[str, Any], names: Mapping[str, str], prefix: str) -> dict[str, Any]:
    return {
        names.get(key) or (key if "." in key else prefix + key): value
        for key, value in ((str(key), value) for key, value in given.items())
        if value is not None
    }
