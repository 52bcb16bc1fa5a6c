"""Distillation over several seeds, beside the same student from labels alone.

A teacher (any source, a Keras model or a function) answers once for every row; a student of one architecture is then
trained from the labels alone and from labels and answers, with the same seeds and the same number of updates. What is
reported is the mean and the spread of both, and whether it paid.
"""

from __future__ import annotations

from converters.distilling.choosing import Budget, choose_student
from converters.distilling.comparing import Comparison, Spread, compare, spread
from converters.distilling.experiment import Outcome, distil_over_seeds
from converters.distilling.report import DistillingReport, Run, report_dict
from converters.distilling.students import Student, given_student, student_from
from converters.distilling.training import Settings

__all__ = [
    "Budget",
    "Comparison",
    "DistillingReport",
    "Outcome",
    "Run",
    "Settings",
    "Spread",
    "Student",
    "choose_student",
    "compare",
    "distil_over_seeds",
    "given_student",
    "report_dict",
    "spread",
    "student_from",
]
