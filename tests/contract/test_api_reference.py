"""docs/api.md is what the .proto files say."""

import re
import subprocess
import sys
from pathlib import Path

from trimtab.v1 import (
    bundle_pb2,
    concept_pb2,
    experiment_pb2,
    policy_pb2,
    recommendation_pb2,
    steering_pb2,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "api.md"
MODULES = (bundle_pb2, concept_pb2, experiment_pb2, policy_pb2, recommendation_pb2, steering_pb2)


def test_the_api_reference_is_fresh() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "proto" / "reference.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_the_api_reference_names_every_method_message_field_and_enum_value() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = set(re.findall(r"^### (\w+)$", page, re.MULTILINE))
    cells = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    for module in MODULES:
        file = module.DESCRIPTOR
        for service in file.services_by_name.values():
            assert f"## {service.name}\n" in page
            assert headings.issuperset(method.name for method in service.methods)
        for message in file.message_types_by_name.values():
            assert message.name in headings
            assert cells.issuperset(field.name for field in message.fields)
        for enum in file.enum_types_by_name.values():
            assert enum.name in headings
            assert cells.issuperset(value.name for value in enum.values)


def test_every_link_of_the_api_reference_leads_to_exactly_one_heading() -> None:
    page = PAGE.read_text(encoding="utf-8")
    headings = [heading.lower() for heading in re.findall(r"^#+ (.+)$", page, re.MULTILINE)]
    for target in set(re.findall(r"\]\(#([^)]+)\)", page)):
        assert headings.count(target) == 1, target
