from pathlib import Path

import pytest

from product_classifier.core.catalogue import Product, load_labels, load_products, photo_name
from product_classifier.core.errors import DataValidationError

HEADER = ",designation,description,productid,imageid\n"


def write(tmp_path: Path, text: str, encoding: str = "utf-8") -> Path:
    path = tmp_path / "X.csv"
    path.write_text(text, encoding=encoding, newline="")
    return path


def test_published_columns_become_products(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER + '0,"Éponge, 3 pièces","<p>a\nb</p>",3804725264,1263597046\n')
    [product] = load_products(path)
    assert product == Product(0, "Éponge, 3 pièces", "<p>a\nb</p>", 3804725264, 1263597046)
    assert product.photo_name == "image_1263597046_product_3804725264.jpg"
    assert photo_name(1, 2) == "image_1_product_2.jpg"


def test_columns_may_come_in_another_order_and_with_a_byte_order_mark(tmp_path: Path) -> None:
    text = "designation,,imageid,productid,description,more\na,7,2,1,,x\n"
    assert load_products(write(tmp_path, text, "utf-8-sig")) == [Product(7, "a", "", 1, 2)]


def test_description_longer_than_pythons_default_limit_is_read(tmp_path: Path) -> None:
    [product] = load_products(write(tmp_path, f"{HEADER}0,a,{'x' * 200_000},1,2\n"))
    assert len(product.description) == 200_000


def test_labels_are_keyed_by_row(tmp_path: Path) -> None:
    assert load_labels(write(tmp_path, ",prdtypecode\n0,10\n5,2905\n")) == {0: 10, 5: 2905}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n", r"missing columns \['', 'designation'.*Received: \['a', 'b'\]"),
        ("", r"missing columns.*Received: \[\]"),
        (HEADER + "0,a,b,1\n", r"line 2: wrong number of fields"),
        (HEADER + "0,a,b,1,2,3\n", r"line 2: wrong number of fields"),
        (HEADER + "0,a,b,1,2\n1,a,b,one,2\n", r"line 3, column productid: .*Received: 'one'"),
        (HEADER + "x,a,b,1,2\n", r"line 2, column index: .*Received: 'x'"),
        (HEADER + '0,"a"b,c,1,2\n', "is not UTF-8 CSV"),
    ],
)
def test_bad_file_is_refused_with_line_column_and_value(
    tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataValidationError, match=message):
        load_products(write(tmp_path, text))


def test_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataValidationError, match="is not UTF-8 CSV"):
        load_products(write(tmp_path, HEADER + "0,é,b,1,2\n", "latin-1"))


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataValidationError, match="There is no"):
        load_labels(tmp_path / "Y.csv")
