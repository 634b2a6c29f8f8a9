"""The keys of every file that expunge writes and reads again.

A page reads ``record.complete(RunRecord, …)`` by index, ``record["steps"]``, so a key that no record has is a type error.
``NotRequired`` says that not every writer has a key.
"""

from expunge.record_types.benchmarks import (
    BenchData,
    ComparedMethod,
    ComparedModel,
    ComparedRun,
    CompareRecord,
    EqualBudget,
    FigureInfo,
    FiguresRecord,
    ModelFacts,
    RunSeconds,
    TaughtInfo,
    UnlearningInfo,
)
from expunge.record_types.other import AlternatesRecord, GuardRecord, MadeRecord, RevealRecord, StepRecord
from expunge.record_types.runs import (
    Budget,
    DataInfo,
    Example,
    Figures,
    MethodInfo,
    ModelInfo,
    OutputInfo,
    ParentInfo,
    ReadingInfo,
    ReleaseInfo,
    ReleaseStep,
    RunPart,
    RunRecord,
    Truncation,
)

__all__ = [
    "AlternatesRecord",
    "BenchData",
    "Budget",
    "CompareRecord",
    "ComparedMethod",
    "ComparedModel",
    "ComparedRun",
    "DataInfo",
    "EqualBudget",
    "Example",
    "FigureInfo",
    "Figures",
    "FiguresRecord",
    "GuardRecord",
    "MadeRecord",
    "MethodInfo",
    "ModelFacts",
    "ModelInfo",
    "OutputInfo",
    "ParentInfo",
    "ReadingInfo",
    "ReleaseInfo",
    "ReleaseStep",
    "RevealRecord",
    "RunPart",
    "RunRecord",
    "RunSeconds",
    "StepRecord",
    "TaughtInfo",
    "Truncation",
    "UnlearningInfo",
]
