"""Names of the API for the engine's enums, from one table each."""

from trimtab.v1 import recommendation_pb2 as wire
from trimtab.v1 import steering_pb2 as steering

from service.admission.ladder import Degradation
from service.engine.audience import Source
from service.engine.explain import TermKind
from service.engine.report import Bound
from service.steering.edits import Operation

SOURCES = {
    Source.PERSONAL: wire.SOURCE_PERSONAL,
    Source.COLD_START: wire.SOURCE_COLD_START,
    Source.POPULAR: wire.SOURCE_POPULAR,
}

DEGRADATIONS = {kind: wire.Degradation.Value(f"DEGRADATION_{kind.name}") for kind in Degradation}

OPERATIONS = {
    Operation.ADD: steering.OPERATION_ADD,
    Operation.SET: steering.OPERATION_SET,
    Operation.SCALE: steering.OPERATION_SCALE,
    Operation.CAP: steering.OPERATION_CAP,
    Operation.ABLATE: steering.OPERATION_ABLATE,
    Operation.BLEND: steering.OPERATION_BLEND,
    Operation.BOOST: steering.OPERATION_BOOST,
}

BOUNDS = {
    Bound.NONE: steering.BOUND_NONE,
    Bound.BUDGET: steering.BOUND_BUDGET,
    Bound.TARGET: steering.BOUND_TARGET,
}

REASONS = {
    TermKind.UNSTEERED: wire.REASON_KIND_UNSTEERED,
    TermKind.RECONSTRUCTION: wire.REASON_KIND_RECONSTRUCTION,
    TermKind.INTERACTION: wire.REASON_KIND_INTERACTION,
    TermKind.TARGET: wire.REASON_KIND_TARGET,
    TermKind.POPULARITY: wire.REASON_KIND_POPULARITY,
}
