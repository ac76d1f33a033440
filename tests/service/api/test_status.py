"""Tests errors as gRPC status codes, and degradations as values of the API."""

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from trimtab.v1 import recommendation_pb2 as wire

from service import app
from service.admission.ladder import Degradation
from service.api.status import to_wire
from service.errors import Code, InvalidRequest, NotFound


@pytest.mark.parametrize("code", Code)
def test_every_code_has_a_grpc_status_of_its_name(code: Code) -> None:
    assert grpc.StatusCode[code.name].name == code.value


def test_an_invalid_request_carries_the_field_at_fault() -> None:
    status = to_wire(InvalidRequest("n", "expected 1 to 1000, found 0"))
    assert status.code is grpc.StatusCode.INVALID_ARGUMENT
    details = status_pb2.Status.FromString(status.metadata[0][1])
    bad_request = error_details_pb2.BadRequest()
    assert details.details[0].Unpack(bad_request)
    assert bad_request.field_violations[0].field == "n"
    assert bad_request.field_violations[0].description == "expected 1 to 1000, found 0"


def test_an_unexpected_exception_is_answered_with_an_id_and_not_with_its_text() -> None:
    status = to_wire(ValueError("a secret"))
    assert status.code is grpc.StatusCode.INTERNAL
    assert "a secret" not in status.message
    assert to_wire(NotFound("no such thing")).message == "no such thing"


def test_every_degradation_is_a_value_of_the_api_and_the_reverse() -> None:
    names = {f"DEGRADATION_{kind.name}" for kind in Degradation}
    assert names == {*wire.Degradation.keys()} - {"DEGRADATION_UNSPECIFIED"}


def test_a_fault_after_the_start_keeps_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(settings: object) -> None:
        raise RuntimeError(f"a defect with {settings}")

    monkeypatch.setattr("service.process.server.serve", fail)
    monkeypatch.setattr("sys.argv", ["trimtab-serve", "--bundle", "somewhere"])
    with pytest.raises(RuntimeError, match="a defect"):
        app.main()
