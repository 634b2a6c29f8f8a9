"""The registry: names, parameters and their types, and the sentence for each way they can be wrong."""

from __future__ import annotations

import pytest

from expunge import methods
from expunge.combine import Bilevel
from expunge.errors import InputError
from expunge.method import build, entry


def test_a_method_is_a_value_that_knows_its_name_and_all_its_parameters():
    made = methods.blur_npo(gamma=0.5)
    assert (made.name, made.parameters["gamma"], made.parameters["beta"]) == ("blur_npo", 0.5, 0.1)
    assert made.combine == Bilevel(gamma=0.5) and made.streams == ("forget", "retain") and made.reference
    assert not methods.pdu().reference and methods.pdu(retain="kl").reference
    assert methods.idk_dpo().streams == ("forget", "alternate", "retain")


def test_strings_from_a_command_line_become_the_signatures_types():
    p = build("pdu", {"budget": "0.5", "warmup_steps": "3", "token_average": "true"}).parameters
    assert (p["budget"], p["warmup_steps"], p["token_average"]) == (0.5, 3, True)


@pytest.mark.parametrize(
    ("name", "parameters", "said"),
    [
        ("npoo", {}, "did you mean 'npo'"),
        ("npo", {"bta": 1}, "did you mean 'beta'"),
        ("npo", {"beta": "much"}, "beta='much' does not fit"),
        ("npo", {"beta": -1}, "greater than 0"),
        ("npo", {"beta": "nan"}, "finite"),
        ("npo", {"retain": "none"}, "'nll', 'kl' or 'js'"),
        ("pdu", {"warmup": 1.0}, "less than 1"),
        ("blur_npo", {"gamma": -0.1}, "greater than or equal to 0"),
    ],
)
def test_wrong_names_and_values(name, parameters, said):
    with pytest.raises(InputError, match=said):
        build(name, parameters)


def test_a_row_knows_its_first_sentence():
    assert entry("pdu").summary.startswith("Flatten the logit margin")
