"""The report of a study: one HTML file without a network, and the one call that turns a runs table into
answers. No torch here."""

from sapis_lab.report.folder import analyse_folder, analyse_options
from sapis_lab.report.page import write_report

__all__ = ["analyse_folder", "analyse_options", "write_report"]
