"""The validation report: the same facts as JSON for programs and as Markdown for people."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from product_classifier.core.files import write_json_atomic, write_text_atomic
from product_classifier.core.product_types import names_for
from product_classifier.ingest.faults import Finding, Findings
from product_classifier.ingest.layout import Catalogue
from product_classifier.ingest.validation import Tables

MARKDOWN_FILE = "validation_report.md"
JSON_FILE = "validation_report.json"
SCHEMA = 1


def build_report(
    source: str, catalogue: Catalogue, tables: Tables, good_photos: int, findings: Findings
) -> dict[str, Any]:
    """Gathers the facts of one validation; no time, so that equal catalogues give equal reports."""
    products = [*tables.labelled.products, *tables.unlabelled.products]
    empty = sum(not product.description.strip() for product in products)
    known = {product.row for product in tables.labelled.products}
    sizes = Counter(code for row, code in tables.codes.items() if row in known)
    names_folder = catalogue.names.parent if catalogue.names and _usable(findings) else None
    names = names_for(sorted(sizes), names_folder)
    return {
        "schema": SCHEMA,
        "source": source,
        "passed": not findings.faults,
        "labelled": len(tables.labelled.products),
        "unlabelled": len(tables.unlabelled.products),
        "good_photos": good_photos,
        "empty_descriptions_share": round(empty / len(products), 4) if products else 0.0,
        "classes": [
            {"code": code, "name": names[str(code)].fr, "products": sizes[code]}
            for code in sorted(sizes, key=lambda code: (-sizes[code], code))
        ],
        "faults": [_as_json(finding) for finding in findings.faults],
        "warnings": [_as_json(finding) for finding in findings.warnings],
    }


def _usable(findings: Findings) -> bool:
    return all(finding.check != "names" for finding in findings.faults)


def _as_json(finding: Finding) -> dict[str, Any]:
    places = [
        {"file": place.file, "line": place.row, "column": place.column, "value": place.value}
        for place in finding.offenders
    ]
    return {
        "check": finding.check,
        "message": finding.message,
        "count": finding.count,
        "first": places,
    }


def _cell(value: object) -> str:
    """Makes foreign text safe inside a Markdown table."""
    text = "" if value is None else str(value)
    return (
        text.replace("\\", "\\\\")
        .replace("|", "\\|")
        .replace("<", "&lt;")
        .replace("\r", " ")
        .replace("\n", " ")
    )


def _findings_lines(title: str, findings: Sequence[dict[str, Any]]) -> list[str]:
    if not findings:
        return [f"## {title}", "", "None.", ""]
    lines = [f"## {title}", ""]
    for finding in findings:
        lines += [f"**{_cell(finding['message'])}** {finding['count']} found.", ""]
        if finding["first"]:
            lines += ["| file | line | column | value |", "| --- | --- | --- | --- |"]
            for place in finding["first"]:
                cells = (_cell(place[key]) for key in ("file", "line", "column", "value"))
                lines.append(f"| {' | '.join(cells)} |")
            lines.append("")
    return lines


def render_markdown(report: dict[str, Any]) -> str:
    """Renders a report for people."""
    lines = [
        "# Validation of the catalogue",
        "",
        f"{'Passed' if report['passed'] else 'Refused'}. Source: {_cell(report['source'])}.",
        "",
        "| | |",
        "| --- | --- |",
        f"| labelled products | {report['labelled']} |",
        f"| products to score | {report['unlabelled']} |",
        f"| product types | {len(report['classes'])} |",
        f"| photos that can be used | {report['good_photos']} |",
        f"| products without description | {report['empty_descriptions_share']:.1%} |",
        "",
        *_findings_lines("Faults", report["faults"]),
        *_findings_lines("Warnings", report["warnings"]),
        "## Product types",
        "",
        "| code | name | products |",
        "| --- | --- | --- |",
        *(
            f"| {entry['code']} | {_cell(entry['name'])} | {entry['products']} |"
            for entry in report["classes"]
        ),
    ]
    return "\n".join(lines) + "\n"


def write_report(folder: Path, report: dict[str, Any]) -> None:
    """Writes both forms of a report into `folder`."""
    write_json_atomic(folder / JSON_FILE, report)
    write_text_atomic(folder / MARKDOWN_FILE, render_markdown(report))
