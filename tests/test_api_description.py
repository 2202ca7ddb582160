"""The OpenAPI description is true: whatever is sent, by it or against it, gets an answer that it announces."""

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from tests.server_process import SLOW, ServerProcess

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]
SERVED: Any = {
    "model": "tts-1",
    "voice": "default",
    "max_tokens": 5,
}  # so that what is otherwise right is spoken, and soon


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_as_described(server: ServerProcess, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == sum(len(methods) for methods in schema.raw_schema["paths"].values()) > 10
    for operation in operations:
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # what is in the paths can be any text, so there is nothing to get wrong

        @settings(max_examples=15, deadline=None, derandomize=True, database=None, suppress_health_check=[*HealthCheck])
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: "schemathesis.Case[Any]") -> None:
            if isinstance(case.body, dict) and case.body.keys() & {"input", "items"}:
                case.body |= SERVED if mode is GenerationMode.POSITIVE else {"max_tokens": 5}
            case.call_and_validate(timeout=SLOW, checks=CHECKS)

        check()
