"""CSV that no spreadsheet runs."""

import csv
import io

import pytest

from keyctl.cli.tables import csv_text


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+1",
        "-1+cmd",
        "@SUM(1)",
        "\t=1",
        "\r=1",
        " =1",
        "\u00a0\u2003=1",
        "\ufeff=1",
        "\u200b+1",
        "\uff1d1",
        "\uff0b1",
        "\uff0d1",
        "\uff20x",
        " \uff1d1",
        "\u22121",
        "\tx",
    ],
)
def test_what_could_be_a_formula_is_text(text: str) -> None:
    """Behind an apostrophe it is shown, and nothing is computed."""
    written = csv_text(("name",), [{"name": text}], heading=False)

    assert next(csv.reader(io.StringIO(written, newline=""))) == [f"'{text}"]


@pytest.mark.parametrize("text", ["a=1", "1-2", "", "alice@example.com", "é", "'x", "{}"])
def test_other_text_is_left_alone(text: str) -> None:
    """Programs that read CSV get what is stored."""
    written = csv_text(("name", "b"), [{"name": text, "b": 1}], heading=False)

    assert next(csv.reader(io.StringIO(written, newline=""))) == [text, "1"]
