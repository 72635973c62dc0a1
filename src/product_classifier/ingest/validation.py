"""The rules that a catalogue's tables must fulfil before it is published."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from product_classifier.core.params import ValidationParams
from product_classifier.core.product_types import read_names
from product_classifier.core.workspace import TEST_FILE
from product_classifier.ingest.faults import Findings, Offender, shown
from product_classifier.ingest.layout import Catalogue
from product_classifier.ingest.tables import LabelTable, ProductTable, read_labels, read_products


@dataclass(frozen=True)
class Tables:
    """A catalogue's readable rows."""

    labelled: ProductTable
    unlabelled: ProductTable
    codes: dict[int, int]  # row index of a labelled product -> product code


def read_tables(catalogue: Catalogue, params: ValidationParams, findings: Findings) -> Tables:
    """Reads and checks all tables of a catalogue; what breaks a rule goes into `findings`."""
    labelled = read_products(catalogue.train, findings)
    labels = read_labels(catalogue.labels, findings)
    unlabelled = ProductTable(TEST_FILE)
    if catalogue.test is not None:
        unlabelled = read_products(catalogue.test, findings)
    for table in (labelled, unlabelled):
        _check_products(table, params, findings)
    _check_both(labelled, unlabelled, findings)
    codes = _check_labels(labelled, labels, params, findings)
    if catalogue.names is not None:
        _check_names(catalogue.names, codes, findings)
    return Tables(labelled, unlabelled, codes)


def _report_repeats(
    table: ProductTable, column: str, values: Iterable[int], findings: Findings, *, fault: bool
) -> None:
    first: dict[int, int] = {}
    for value, line in zip(values, table.lines, strict=True):
        if value in first:
            note = findings.fault if fault else findings.warn
            offender = Offender(table.name, line, column, f"{value}, first on line {first[value]}")
            note(f"duplicate {column}", f"The same {column} appears more than once.", offender)
        first.setdefault(value, line)


def _check_products(table: ProductTable, params: ValidationParams, findings: Findings) -> None:
    products = table.products
    _report_repeats(table, "index", (product.row for product in products), findings, fault=True)
    _report_repeats(
        table, "productid", (product.product_id for product in products), findings, fault=True
    )
    _report_repeats(
        table, "imageid", (product.image_id for product in products), findings, fault=False
    )
    for product, line in zip(products, table.lines, strict=True):
        if not product.title.strip():
            offender = Offender(table.name, line, "designation", shown(product.title))
            findings.warn("empty title", "Products without a title.", offender)
    empty = sum(not product.description.strip() for product in products)
    if products and empty / len(products) > params.max_empty_descriptions_fraction:
        findings.fault(
            "empty descriptions",
            "Too many products have no description. "
            f"Allowed: {params.max_empty_descriptions_fraction:.0%}.",
            Offender(table.name, None, "description", f"{empty} of {len(products)} are empty"),
        )


def _check_both(labelled: ProductTable, unlabelled: ProductTable, findings: Findings) -> None:
    known = {product.product_id for product in labelled.products}
    for product, line in zip(unlabelled.products, unlabelled.lines, strict=True):
        if product.product_id in known:
            offender = Offender(unlabelled.name, line, "productid", str(product.product_id))
            findings.warn(
                "known product", "Products to score that are in the labelled file too.", offender
            )


def _check_labels(
    labelled: ProductTable, labels: LabelTable, params: ValidationParams, findings: Findings
) -> dict[int, int]:
    codes: dict[int, int] = {}
    rows = {
        product.row: line for product, line in zip(labelled.products, labelled.lines, strict=True)
    }
    for row, code, line in labels.rows:
        if row in codes:
            offender = Offender(labels.name, line, "index", str(row))
            findings.fault("duplicate label", "A product has more than one label.", offender)
        elif row not in rows:
            offender = Offender(labels.name, line, "index", str(row))
            findings.fault(
                "label without product",
                "Labels of products that are not in the products file.",
                offender,
            )
        codes.setdefault(row, code)
    missing = [(row, line) for row, line in rows.items() if row not in codes]
    for row, line in missing:
        offender = Offender(labelled.name, line, "index", f"{row} has no label")
        findings.fault("product without label", "Labelled products without a label.", offender)
    _check_classes(
        Counter(codes[row] for row in rows if row in codes), labels.name, params, findings
    )
    return codes


def _check_classes(
    sizes: Counter[int], name: str, params: ValidationParams, findings: Findings
) -> None:
    if len(sizes) < 2:
        offender = Offender(name, None, "prdtypecode", f"{len(sizes)} types")
        findings.fault("classes", "There must be at least two product types.", offender)
    for code, size in sorted(sizes.items()):
        if size < params.min_products_per_class:
            offender = Offender(name, None, "prdtypecode", f"{code} has {size}")
            least = params.min_products_per_class
            message = f"Product types with too few products. At least {least} are needed."
            findings.fault("class size", message, offender)


def _check_names(path: Path, codes: dict[int, int], findings: Findings) -> None:
    try:
        names = read_names(path)
    except ValueError as error:  # JSONDecodeError and pydantic's ValidationError are ValueErrors
        offender = Offender(path.name, None, "", type(error).__name__)
        findings.fault(
            "names", "Type names must be JSON: code to a name, or to its fr and en names.", offender
        )
        return
    for code in sorted(set(codes.values())):
        if str(code) not in names:
            findings.warn(
                "unnamed type",
                "Product types without a name.",
                Offender(path.name, None, "", str(code)),
            )


def check_expected_counts(tables: Tables, expected: tuple[int, int], findings: Findings) -> None:
    """Compares the rows with those that a published catalogue is known to have.

    Args:
        tables: What was read.
        expected: Labelled and unlabelled rows.
        findings: Takes what differs.
    """
    for table, rows in zip((tables.labelled, tables.unlabelled), expected, strict=True):
        if len(table.products) != rows:
            offender = Offender(
                table.name,
                None,
                "",
                f"{len(table.products)} rows that can be read, expected {rows}",
            )
            findings.fault(
                "row count", "A file does not have the rows of the published catalogue.", offender
            )
