"""The OpenAPI description is true: whatever is sent, by it or against it, gets an answer that it announces."""

from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi import checks

from tests.server_process import SLOW, ServerProcess

CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def api(server: ServerProcess) -> schemathesis.BaseSchema:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@hypothesis.settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=[*hypothesis.HealthCheck])
def test_every_answer_is_as_described(case: "schemathesis.Case[Any]") -> None:
    if isinstance(case.body, dict) and "input" in case.body:
        case.body["max_tokens"] = 5  # what is taken is spoken soon
    case.call_and_validate(timeout=SLOW, checks=CHECKS)
