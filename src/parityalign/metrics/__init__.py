"""The official metrics, one file each, and the statistics of scores.

    anls("tea", ["Tea"]).value  ->  1.0

Each metric follows one public implementation to the letter, named in its docstring: public evaluators disagree with
one another, and a score with a rule of our own would not be comparable.
"""

import lazy_loader

# Imported eagerly, since each has the name of its module, which would otherwise shadow it once loaded.
from parityalign.metrics.anls import anls
from parityalign.metrics.chartqa_relaxed_accuracy import chartqa_relaxed_accuracy
from parityalign.metrics.chartqapro_relaxed_accuracy import chartqapro_relaxed_accuracy
from parityalign.metrics.docvqa_anls import docvqa_anls
from parityalign.metrics.mpa_substring import mpa_substring
from parityalign.metrics.ocrbench_accuracy import ocrbench_accuracy
from parityalign.metrics.realworldqa_accuracy import realworldqa_accuracy
from parityalign.metrics.textvqa_accuracy import textvqa_accuracy
from parityalign.metrics.vqa_accuracy_official import vqa_accuracy_official

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
