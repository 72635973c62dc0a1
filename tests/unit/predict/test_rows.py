"""No row of a products file is lost while it is read."""

from pathlib import Path

import pytest

from product_classifier.core.errors import DataValidationError
from product_classifier.predict.rows import read_scoring_rows

HEADER = ",designation,description,productid,imageid\n"


def read(tmp_path: Path, body: str) -> list[tuple[int, int, int | None, bool]]:
    path = tmp_path / "X.csv"
    path.write_text(HEADER + body, encoding="utf-8")
    return [
        (row.position, row.line, row.row, row.product is not None)
        for row in read_scoring_rows(path)
    ]


def error_of(tmp_path: Path, body: str) -> str | None:
    path = tmp_path / "X.csv"
    path.write_text(HEADER + body, encoding="utf-8")
    return read_scoring_rows(path)[-1].error


def test_good_rows_are_products_with_position_and_line(tmp_path: Path) -> None:
    found = read(tmp_path, '7,a,b,1,2\n9,"two\nlines",,3,4\n')
    assert found == [(0, 2, 7, True), (1, 4, 9, True)]


def test_file_without_rows_has_none(tmp_path: Path) -> None:
    assert read(tmp_path, "") == []


@pytest.mark.parametrize(
    ("bad", "row", "message"),
    [
        ("x,a,b,1,2", None, "Column index: expected a whole number. Received: 'x'."),
        (",a,b,1,2", None, "Column index: expected a whole number. Received: ''."),
        ("5,a,b,1.0,2", 5, "Column productid: expected a whole number. Received: '1.0'."),
        ("5,a,b,1,=cmd()", 5, "Column imageid: expected a whole number. Received: '=cmd()'."),
        ("5,a,b,1_0,2", 5, "Column productid: expected a whole number. Received: '1_0'."),
        ("5,a,b,\u0663,2", 5, "Column productid: expected a whole number."),
        (f"5,a,b,{'9' * 5000},2", 5, "Received: '" + "9" * 40 + "…'."),
        (
            "x,a,b,y,2",
            None,
            "Column index: expected a whole number. Received: 'x'. Column productid",
        ),
        ("5,a,b,1", None, "The row has the wrong number of fields."),
        ("5,a,b,1,2,3", None, "The row has the wrong number of fields."),
        ('5,"a"b,c,1,2', None, "The row is not UTF-8 CSV"),
        ("0,again,b,1,2", None, "Row index 0 is used on line 2 already."),
    ],
    ids=[
        "index",
        "no-index",
        "float",
        "formula",
        "underscore",
        "arabic-digit",
        "huge",
        "two-columns",
        "too-few",
        "too-many",
        "quote",
        "duplicate",
    ],
)
def test_bad_row_is_kept_with_its_reason_and_the_next_is_read(
    tmp_path: Path, bad: str, row: int | None, message: str
) -> None:
    assert message in str(error_of(tmp_path, f"0,a,b,1,2\n{bad}\n"))
    found = read(tmp_path, f"0,a,b,1,2\n{bad}\n8,a,b,1,2\n")
    assert found == [(0, 2, 0, True), (1, 3, row, False), (2, 4, 8, True)]


def test_quote_that_is_never_closed_refuses_the_file_because_it_hides_rows(tmp_path: Path) -> None:
    with pytest.raises(DataValidationError, match="quote opened in the row at line 3") as caught:
        read(tmp_path, '0,a,b,1,2\n1,"a,b,1,2\n2,a,b,1,2\n')
    assert caught.value.exit_code == 2


def test_missing_column_refuses_the_file(tmp_path: Path) -> None:
    (tmp_path / "X.csv").write_text(",designation\n1,a\n")
    with pytest.raises(DataValidationError, match="missing columns") as caught:
        read_scoring_rows(tmp_path / "X.csv")
    assert caught.value.exit_code == 2
