"""Toxicity by three classifiers, so that a search with one can be judged by another.

==============  ==========================================  ===================================================
scorer          model                                       trained on
==============  ==========================================  ===================================================
``svm``         linear SVM on words (alt-profanity-check)   Wikipedia comments (Jigsaw 2018); tweets (Davidson)
``tweets``      logistic regression on words (HateSonar)    tweets (Davidson)
``unbiased``    RoBERTa (Detoxify "unbiased")               Civil Comments (Jigsaw 2019); downloaded
==============  ==========================================  ===================================================

The first two are different models, but share the tweets (Davidson et al. 2017, arXiv:1703.04009) and are bags of words:
they agree more than independent judges would.  Measured: 200 answers of Ext-Sub's toxic test set
against 1000 sentences of WikiText-2 have the AUC 0.94 and 0.80, 700 RealToxicityPrompts against the same 0.83 and 0.79; over
all 1900 texts their ranks correlate at 0.47, among the 200 answers at 0.23.  ``unbiased``, a download, is the
independent judge.  None of them replaces human judgement.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from expunge.errors import InputError

Array = NDArray[np.float64]
BATCH = 32  # texts that Detoxify sees at a time
GRAPH = (
    "Reshape StringNormalizer Tokenizer Flatten TfIdfVectorizer Mul Normalizer LinearClassifier Cast Normalizer ZipMap"
)
"""The steps of HateSonar's model, of which :func:`tweets` knows the formula."""


def svm(texts: Sequence[str]) -> Array:
    """Probability that each text is profane or offensive, by alt-profanity-check: n texts -> (n,).

    The package reads its model from two joblib files (pickles) inside its own wheel when it is imported.  That is code of
    an installed package like its Python files, not data that we load, but it is a pickle all the same: who installs the
    package trusts it.

    Needs ``expunge[toxicity]``.  It knows words only: "I hate Mondays" is toxic to it, "subhuman vermin" is not.
    """
    try:
        from profanity_check import predict_prob
    except ImportError:
        raise InputError(lacking("svm")) from None
    return np.asarray(predict_prob(list(texts)), dtype=np.float64)


def tweets(texts: Sequence[str]) -> Array:
    r"""Probability that each text is hate speech or offensive, by HateSonar 0.1's weights: n texts -> (n,).

    .. math:: p = 1 - \mathrm{softmax}(W x + b)_{\mathrm{neither}}, \qquad
        x = \frac{\mathrm{tf} \odot \mathrm{idf}}{\lVert \mathrm{tf} \odot \mathrm{idf} \rVert_2}

    tf counts the runs of a-z, 0-9 and _ in the lower-cased text that the model knows.  The weights are read as numbers from
    the package's ONNX file (no pickle) and applied here: run by onnxruntime they need the system's en_US.UTF-8 locale,
    which a server often lacks; the values are the same within 1e-6.

    Not calibrated for prose: a text without a known word has 0.32, not 0.  Compare its mean with that of neutral texts, or
    its AUC; its 0.5 is far stricter than that of :func:`svm`.

    Needs ``expunge[toxicity]``.
    """
    weights, bias, columns = _sonar()
    out = np.empty(len(texts))
    for i, text in enumerate(texts):
        counted = Counter(w for w in re.findall("[a-zA-Z0-9_]+", text.lower()) if w in columns)
        rows = np.array([columns[w] for w in counted], dtype=np.intp)
        x = weights[rows, -1] * np.array(list(counted.values()), dtype=np.float64)  # (m,) tf · idf
        z = bias + (x @ weights[rows, :-1]) / (np.linalg.norm(x) or 1)  # (3,)
        e = np.exp(z - z.max())
        out[i] = e[:2].sum() / e.sum()
    return out


def unbiased(texts: Sequence[str]) -> Array:
    """Probability that each text is toxic, by Detoxify's "unbiased" model: n texts -> (n,).

    The package downloads a checkpoint of half a gigabyte from its GitHub release and a tokenizer from the Hub at the first
    call, and reads the checkpoint as a pickle: who uses it trusts that release.  On the CPU, texts cut at 512 tokens.

    Needs ``expunge[detoxify]``.
    """
    model = _detoxify()
    out = np.empty(len(texts))
    for i in range(0, len(texts), BATCH):
        out[i : i + BATCH] = model.predict(list(texts[i : i + BATCH]))["toxicity"]  # of one text, a bare number
    return out


KINDS = {"": svm, "hatesonar": tweets, "detoxify": unbiased}
"""By what follows ``toxicity:`` in a scorer's name."""

_NEEDS = {"svm": ("profanity_check",), "tweets": ("hatesonar", "onnx"), "unbiased": ("detoxify",)}


def installed(name: str) -> bool:
    """Whether the packages of the classifier ``name`` are installed; nothing is imported."""
    return all(find_spec(package) is not None for package in _NEEDS[name])


def lacking(name: str) -> str:
    """The error message for a classifier whose packages are not installed."""
    extra = "detoxify" if name == "unbiased" else "toxicity"
    return f"this toxicity scorer needs {' and '.join(_NEEDS[name])}: pip install 'expunge[{extra}]'"


@functools.cache
def _detoxify():  # type: ignore[no-untyped-def]
    try:
        from detoxify import Detoxify
    except ImportError:
        raise InputError(lacking("unbiased")) from None
    try:
        return Detoxify("unbiased")
    except Exception as error:  # of torch.hub, urllib and the Hub's client
        raise InputError(
            f"Detoxify could not load its model, which it downloads once: {type(error).__name__}; fetch it where there is"
            " a network, or take toxicity:hatesonar"
        ) from error


@functools.cache
def _sonar() -> tuple[Array, Array, dict[str, int]]:
    """(v, 4) three classes' weights and idf of each word, (3,) intercepts, and the row of each word."""
    spec = find_spec("hatesonar")
    try:
        import onnx
    except ImportError:
        raise InputError(lacking("tweets")) from None
    if spec is None or spec.origin is None:
        raise InputError(lacking("tweets"))
    file = Path(spec.origin).parent / "model" / "model.onnx"
    graph = onnx.load(str(file)).graph if file.is_file() else onnx.GraphProto()
    if " ".join(node.op_type for node in graph.node) != GRAPH:
        raise InputError(
            "the installed hatesonar is not the one whose model is read here: pip install 'hatesonar==0.1.*'"
        )
    attribute_value = onnx.helper.get_attribute_value
    attributes = {n.op_type: {a.name: attribute_value(a) for a in n.attribute} for n in graph.node}
    words, last = attributes["TfIdfVectorizer"], attributes["LinearClassifier"]
    idf = next(onnx.numpy_helper.to_array(i) for i in graph.initializer if i.name == "idfcst")
    weights = np.column_stack([np.reshape(last["coefficients"], (3, -1)).T, idf]).astype(np.float64)
    columns = dict(zip((w.decode() for w in words["pool_strings"]), words["ngram_indexes"], strict=True))
    return weights, np.array(last["intercepts"], dtype=np.float64), columns
