"""One suite over whoever compiles the kernels: Numba in the process, and Numba ahead of time for
every kind of processor. The functions themselves, run by Python, say what is right.
"""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rag.compiled.kernel import KERNELS, LIBRARY, Array, Kernel, compiler
from rag.compiled.library import INDEX, TARGETS, Library, best_target
from rag.errors import ConfigurationError
from rag.index import counting_kernels, kernels
from rag.index.kernels import BINARY, LARGE_STRING, LIST, NUMBER, NUMBER_64, STRING
from rag.retrieval import kernels as feedback_kernels
from rag.retrieval.compile import MODULES, build_library
from rag.service.memory import resident_bytes

Compiled = Callable[[Kernel], Callable[..., None]]
ROWS, TERMS, WIDTH = 40, 12, 24


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("ld") is None:
        pytest.skip("compiling ahead needs the linker ld (package binutils)")
    folder = tmp_path_factory.mktemp("library") / "made"
    build_library(folder)
    return folder


@pytest.fixture(params=["numba", *TARGETS])
def compiled(request: pytest.FixtureRequest) -> Compiled:
    if request.param == "numba":
        if Library.exists(LIBRARY):
            pytest.skip(f"this checkout runs what was compiled into {LIBRARY}")
        return lambda kernel: getattr(sys.modules[kernel.function.__module__], _name(kernel))
    folder = request.getfixturevalue("library")
    if list(TARGETS).index(request.param) < list(TARGETS).index(best_target()):
        pytest.skip(f"this processor cannot run code for {request.param}")
    return Library.open(folder, request.param).function


def _name(kernel: Kernel) -> str:
    return kernel.function.__name__


def made(name: str, seed: int) -> list[Any]:
    """Arguments of a kernel, another for each seed."""
    rng = np.random.default_rng(seed)
    kernel_of = {_name(kernel): kernel for kernel in KERNELS.values()}
    counts = rng.integers(0, 7, ROWS)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    size = int(starts[-1])
    terms = np.concatenate(
        [np.sort(rng.choice(TERMS, count, replace=False)) for count in counts]
    ).astype(np.int32)
    weights = rng.random(size, dtype=np.float32)
    vectors = rng.standard_normal((ROWS, WIDTH), dtype=np.float32)
    query = vectors[3] + np.float32(0.1)
    first, n, few = 5, 20, 4
    floats = lambda *shape: rng.random(shape, dtype=np.float32)  # noqa: E731
    places = rng.permutation(ROWS)
    passages = [vectors, places, starts[:-1].copy(), starts[1:].copy(), terms, weights, first]
    legs = np.stack([rng.permutation(ROWS)[:n] for _ in range(4)])
    legs[1, n // 2 :] = -1
    firsts = np.array([0, 12, 12, 30])
    asked = np.array([1, 4, 7], np.int32)
    words = sorted(bytes(rng.integers(97, 100, rng.integers(1, 5))) for _ in range(30))
    words = sorted(set(words))
    wanted = [*words[::3], b"a", b"zz", b"ab"]
    # Postings by term of the same passages.
    by_term = np.argsort(terms, kind="stable")
    heads = np.concatenate([[0], np.cumsum(np.bincount(terms, minlength=TERMS))]).astype(np.int64)
    rows_by_term = np.repeat(np.arange(ROWS, dtype=np.int32), counts)[by_term]
    found = {
        "find_terms": lambda: [*_packed(words), *_packed(wanted), np.zeros(len(wanted), np.int64)],
        "group_by_term": lambda: [
            terms, np.arange(size, dtype=np.int32), counts.astype(np.int32), heads[:-1].copy(),
            np.zeros(size, np.int32), np.zeros(size, np.int32),
        ],
        "_sift_down": lambda: [np.array([7, 1, 2, 3]), np.array([9, 1, 2, 3], np.float32), 0, 4],
        "search_postings": lambda: [
            heads, rows_by_term, np.round(floats(size), 1), np.array([1, 1, 4, -1, 0, 3, 5]),
            np.array([0, 4, 4, 7]), floats(3),
            rng.random(ROWS) < 0.7 if seed % 2 else np.zeros(0, np.bool_),
            np.full(ROWS, -np.inf, np.float32), np.zeros(ROWS, np.int32),
            np.full((3, 6), -1), np.full((3, 6), -np.inf, np.float32),
        ],
        "sort_hits": lambda: [rng.permutation(n), np.round(floats(n), 1), n - seed],
        "rounded_products": lambda: [vectors, places, query, 2.0**20, np.zeros(ROWS, np.float32)],
        "rank_nominees": lambda: [
            vectors, places, rng.permutation(ROWS), firsts, vectors[:3].copy(), 2.0**20,
            np.full((3, 8), -1), np.full((3, 8), -np.inf, np.float32),
        ],
        "find_places": lambda: [
            legs, floats(4, n), legs[:, ::3].copy(), np.zeros((4, 7), np.int64),
            np.zeros((4, 7), np.float32),
        ],
        "place_postings": lambda: [
            terms, np.arange(size, dtype=np.int32), counts.astype(np.int32),
            np.where(rng.random(ROWS) < 0.3, -1, starts[:-1]), np.zeros(size, np.int32),
            np.zeros(size, np.int32),
        ],
        "rank_postings": lambda: [
            rng.permutation(TERMS).astype(np.int32), starts, terms.copy(),
            np.arange(size, dtype=np.int32),
        ],
        "fetch_vectors": lambda: [vectors, places[:n].copy(), np.zeros(n, np.float32)],
        "fetch_terms": lambda: [*passages[2:], np.zeros(n, np.float32)],
        "read_word": lambda: [
            rng.integers(-(2**31), 2**31, 9).astype(np.int32), 3, 64 if seed else 32,
            np.zeros(2, int),
        ],
        "locate_values": lambda: [
            rng.integers(-(2**31), 2**31, 400).astype(np.int32), np.array([0, 5, 5, 8]),
            np.stack([rng.integers(-1, 1000, (3, 7)), rng.integers(0, 300, (3, 7)),
                      rng.integers(0, 1000, (3, 7))], axis=-1),
            np.array([NUMBER, NUMBER_64, STRING, LARGE_STRING, LIST, BINARY + 16, NUMBER]),
            rng.permutation(7), rng.integers(0, 8, 12), np.full(12, -1), np.zeros((7, 12, 2), int),
        ],
        "add_to_table": lambda: [
            *_table(np.arange(seed * 2)), 2, np.float32(0.5), np.float32(0.25)
        ],
        "inner_products": lambda: [vectors, places, first, query, np.zeros(n, np.float32)],
        "mean_vector": lambda: [vectors, places, first, n + seed, np.zeros(WIDTH, np.float32)],
        "sum_terms": lambda: [
            *passages[2:], *_table(rng.permutation(TERMS)[: TERMS // 2])[:3],
            np.zeros((2, n), np.float32),
        ],
        "norms": lambda: [*passages[2:4], weights, first, np.zeros(n, np.float32)],
        "pick_best": lambda: [
            np.round(floats(n), 1), 0.06, np.zeros(few, np.int64), np.zeros(few, np.float32)
        ],
        "add_scaled": lambda: [floats(n) if seed else np.ones(n, np.float32), 0.7, floats(n)],
        "observe": lambda: [
            *passages, query, asked, floats(3), floats(3), np.zeros((3, n), np.float32)
        ],
        "resemble": lambda: [
            *passages, np.array([0, 3, 9]), np.array([0.5, 0.3, 0.2], np.float32),
            floats(WIDTH), np.zeros((3, n), np.float32),
        ],
        "score": lambda: [
            *passages, query, asked, floats(3), floats(3),
            np.array([1, 0.5, 0.75, 0.5, 1, 1, 0.06, 0.15], np.float32), few,
            np.zeros(n, np.float32), np.zeros(2, np.float32),
        ],
        "unite": lambda: [
            legs[:2].copy(), legs[2:].copy(), np.full(4 * n, -1), np.full(3, -1)
        ],
        "weigh": lambda: [
            legs[:2].copy(), -np.sort(-floats(2, 9)), floats(2), floats(8),
            np.zeros((2, 10), np.float32),
        ],
        "fuse": lambda: [
            *passages[:6], rng.permutation(ROWS), firsts, vectors[:3].copy(),
            np.array([0, 1, 3, 3]), asked, floats(3), floats(3), floats(3, 10) + np.float32(0.1),
            few, rng.random(7) + 0.1, np.full((3, n), -1),
            np.full((3, n), -np.inf, np.float32),
        ],
    }  # fmt: skip
    assert set(found) == set(kernel_of), "every kernel has a case here"
    return found[name]()


def _table(terms: Any) -> list[Any]:
    """A table with numbers of `terms`, few of whose slots are free, and how many it has."""
    heads, links = np.zeros(4, np.uint32), np.zeros((len(terms) + 2, 2), np.uint32)
    values, count = np.zeros((len(terms) + 2, 2), np.float32), np.zeros(2, np.uint32)
    links[0, 0] = feedback_kernels.NO_TERM
    add = KERNELS["rag.retrieval.kernels.add_to_table"].function
    for term in terms:
        numbers = np.float32(term + 1), np.float32(1 / (term + 1))
        add(heads, links, values, count, term, *numbers)
    return [heads, links, values, count]


def _packed(words: list[bytes]) -> tuple[Any, Any]:
    offsets = np.concatenate([[0], np.cumsum([len(word) for word in words])]).astype(np.int64)
    return np.frombuffer(b"".join(words), np.uint8), offsets


def test_all_kernels_are_in_the_modules_that_are_compiled() -> None:
    assert {kernel.function.__module__ for kernel in KERNELS.values()} == set(MODULES)
    assert {kernels.__name__, counting_kernels.__name__, feedback_kernels.__name__} == set(MODULES)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kernel", KERNELS.values(), ids=_name)
def test_it_does_what_the_function_does(compiled: Compiled, kernel: Kernel, seed: int) -> None:
    arguments = made(_name(kernel), seed)
    expected = copy.deepcopy(arguments)
    with np.errstate(all="ignore"):
        kernel.function(*expected)
    compiled(kernel)(*arguments)
    changed = 0
    for got, want, before, kind in zip(
        arguments, expected, made(_name(kernel), seed), kernel.arguments, strict=True
    ):
        if not isinstance(kind, Array):
            continue
        # Sums may be taken in another order, and a multiplication and an addition be one.
        if issubclass(kind.dtype, np.floating):
            np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-6)
        else:
            np.testing.assert_array_equal(got, want)
        changed += not np.array_equal(got, before)
        assert kind.writable or np.array_equal(got, before)
    assert changed


@pytest.mark.parametrize("kernel", KERNELS.values(), ids=_name)
def test_arguments_of_another_type_are_refused(compiled: Compiled, kernel: Kernel) -> None:
    function = compiled(kernel)
    for place, kind in enumerate(kernel.arguments):
        if not isinstance(kind, Array):
            continue
        good = made(_name(kernel), 1)[place]
        bad = [good.astype(np.complex128), good[None], np.repeat(good, 2, axis=-1)[..., ::2], None]
        if kind.writable:
            bad.append(np.frombuffer(good.tobytes(), good.dtype).reshape(good.shape))
        for value in bad:
            arguments = made(_name(kernel), 1)
            arguments[place] = value
            with pytest.raises(TypeError):
                function(*arguments)
    with pytest.raises(TypeError):
        function(*made(_name(kernel), 1)[:-1])


def test_read_only_and_mapped_arrays_can_be_read(compiled: Compiled, tmp_path: Path) -> None:
    vectors, places, first, query, out = made("inner_products", 1)
    np.save(tmp_path / "vectors.npy", vectors)
    mapped = np.load(tmp_path / "vectors.npy", mmap_mode="r")
    query.flags.writeable = False
    compiled(KERNELS["rag.retrieval.kernels.inner_products"])(
        mapped, places, first, query, out
    )  # fmt: skip
    wanted = vectors[places[first : first + out.size]] @ query
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)


def test_arrays_may_lie_at_any_address(compiled: Compiled) -> None:
    """FAISS's codes in a mapped file do."""
    vectors, places, first, query, out = made("inner_products", 1)
    odd = np.frombuffer(b"\0" + vectors.tobytes(), np.uint8)[1:].view(np.float32)
    odd = odd.reshape(vectors.shape)
    assert not odd.flags.aligned
    compiled(KERNELS["rag.retrieval.kernels.inner_products"])(odd, places, first, query, out)
    wanted = vectors[places[first : first + out.size]] @ query
    np.testing.assert_allclose(out, wanted, rtol=1e-4, atol=1e-5)


def test_arrays_that_a_kernel_makes_are_given_back(compiled: Compiled) -> None:
    scores = np.zeros(2**20, np.float32)
    picked, weights = np.zeros(1, np.int64), np.zeros(1, np.float32)
    pick_best = compiled(KERNELS["rag.retrieval.kernels.pick_best"])
    pick_best(scores, 0.06, picked, weights)
    before = resident_bytes()
    for _ in range(400):  # a MiB each
        pick_best(scores, 0.06, picked, weights)
    assert resident_bytes() - before < 200 * 2**20


def test_a_library_of_other_sources_is_refused(library: Path, tmp_path: Path) -> None:
    shutil.copytree(library, tmp_path / "other")
    index = tmp_path / "other" / INDEX
    text = index.read_text(encoding="utf-8")
    index.write_text(text.replace('"rag.index.kernels": "', '"rag.index.kernels": "0'), "utf-8")
    opened = Library.open(tmp_path / "other")
    with pytest.raises(ConfigurationError, match=r"another rag\.index\.kernels: compile it again"):
        opened.function(KERNELS["rag.index.kernels.find_terms"])
    index.write_text(text.replace("cpython-", "cpython-9"), "utf-8")
    with pytest.raises(ConfigurationError, match="compile it again"):
        Library.open(tmp_path / "other")


def test_a_processor_gets_the_best_code_that_it_can_run(tmp_path: Path) -> None:
    targets = list(TARGETS)
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nflags\t\t: fpu sse2\n", encoding="utf-8")
    assert best_target(cpuinfo) == targets[-1]
    flags = " ".join(TARGETS[targets[0]])
    cpuinfo.write_text(f"flags\t\t: fpu {flags} avx512f\n", encoding="utf-8")
    assert best_target(cpuinfo) == targets[0]
    assert best_target(tmp_path / "none") == targets[-1]


def test_it_is_told_which_code_runs_and_numba_is_not_loaded(library: Path, tmp_path: Path) -> None:
    """An installed package that holds a library: all of it works without Numba."""
    package = tmp_path / "rag"
    shutil.copytree(LIBRARY.parents[1], package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.rmtree(package / "compiled" / "library", ignore_errors=True)
    shutil.copytree(library, package / "compiled" / "library")
    code = (
        "import sys\nsys.modules['numba'] = sys.modules['llvmlite'] = None\n"
        "from rag.compiled.kernel import compiler\nfrom rag.retrieval.compile import warm\n"
        "import rag.index.counting_kernels\nwarm()\nprint(compiler())"
    )
    said = _python(code, tmp_path)
    assert said.stdout == f"compiled ahead by Numba {_numba_version()} for {best_target()}\n"
    shutil.rmtree(package / "compiled" / "library")
    said = _python(code, tmp_path)
    assert said.returncode != 0
    assert "holds no compiled loops and Numba is not installed: pip install numba" in said.stderr


def _python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=folder, capture_output=True, text=True
    )


def _numba_version() -> str:
    import numba

    return str(numba.__version__)


def test_this_process_says_what_compiled_its_kernels() -> None:
    assert "compiled" in compiler()
    assert _numba_version() in compiler()
