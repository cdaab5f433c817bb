"""Settings: what a name of several controls stands for."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from rational_sae.cli.from_settings import controls_of
from rational_sae.upgrading.settings import Settings


@pytest.mark.parametrize(
    ("looks", "named", "controls"),
    [
        (1, None, ("native", "identity")),
        (2, None, ("native", "identity", "one_look")),
        (1, "all", ("native", "jumprelu", "identity", "adapted")),
        (2, "all", ("native", "jumprelu", "identity", "one_look", "adapted")),
        (3, "none", ()),
        (2, "native, one_look", ("native", "one_look")),
    ],
)
def test_controls_are_those_that_a_job_can_have(looks: int, named: str | None, controls: tuple[str, ...]) -> None:
    given = {} if named is None else {"controls": controls_of(named)}
    assert Settings.model_validate({"teacher": "t", "looks": looks, **given}).controls == controls


def test_one_look_is_no_control_of_one_look() -> None:
    with pytest.raises(ValidationError, match="looks above 1"):
        Settings.model_validate({"teacher": "t", "controls": ("one_look",)})
