"""The report: one HTML page made from a record, readable offline.

``tables`` turns a record into words and cells, ``plots`` into SVG, ``html`` puts both on the page.
"""

from expunge.report.html import render, write_report

__all__ = ["render", "write_report"]
