"""Rubbish of every kind: decoders answer or raise MessageError; nothing is run or explodes."""

import ast
import io
import os
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.random import Generator
from worlds import Toy

from fedzo.errors import MessageError
from fedzo.protocol import _compat, messages, seals
from fedzo.protocol.answers import Arrival, collect
from fedzo.protocol.exchange import Exchange, Moment, Replies
from fedzo.protocol.messages import (
    decode_exchange,
    decode_reply,
    encode_exchange,
    encode_replies,
)
from fedzo.protocol.seals import seal_answer
from fedzo.randomness import stream

D, N = 3, 3
X = torch.arange(1.0, D + 1, dtype=torch.float64)
EXCHANGE = Exchange(
    question=Toy(x=X, row=torch.arange(N + 1), mu=0.1, name="forward", base=True, dim=D),
    client_ids=range(N + 1),
    moment=Moment(0, 2, 1),
)
TOKEN = EXCHANGE.moment.token
HONEST = Replies(
    client_ids=range(N + 1),
    tensors={"update": X.expand(N + 1, D), "extra": torch.ones(N + 1, 1)},
    counts={"queries": dict.fromkeys(range(N + 1), 5)},
)
ANSWERS = encode_replies(HONEST, token=TOKEN)
FAILURE = encode_replies(Replies(client_ids=[], failures={N: "no ink"}), token=TOKEN)[N]
QUESTION = encode_exchange(EXCHANGE)[0]
SPRUNG = Path(tempfile.mkdtemp()) / "sprung"


class Trap:
    """Unpickling it makes the folder SPRUNG."""

    def __reduce__(self) -> tuple[object, ...]:
        return (os.mkdir, (str(SPRUNG),))


def npy(array: np.ndarray, *, allow_pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=allow_pickle)
    return buffer.getvalue()


def claiming(shape: str, dtype: str = "<f8", tail: bytes = b"\0" * 64) -> bytes:
    """Return an .npy of little data whose head claims this shape."""
    head = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}"
    padded = head.ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(padded).to_bytes(2, "little") + padded.encode() + tail


def zipped() -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=np.zeros(10_000_000))
    return buffer.getvalue()


OBJECTS = npy(np.array([Trap()], dtype=object), allow_pickle=True)
BARE_PICKLE = OBJECTS[OBJECTS.index(b"\n") + 1 :]
WHOLE = npy(np.zeros(D))
DATA: list[Callable[[Generator], bytes]] = [
    lambda g: g.bytes(int(g.integers(200))),
    lambda g: b"\x93NUMPY\x01\x00" + g.bytes(int(g.integers(200))),
    lambda g: WHOLE[: int(g.integers(len(WHOLE)))],
    lambda g: WHOLE + g.bytes(9),
    lambda g: OBJECTS,
    lambda g: BARE_PICKLE,
    lambda g: OBJECTS.replace(b"'|O'", b"'<f8'"),
    lambda g: ZIPPED,
    lambda g: claiming(f"({10 ** int(g.integers(1, 25))},)"),
    lambda g: claiming(f"({2 ** int(g.integers(20, 70))}, {2 ** int(g.integers(20, 70))})"),
    lambda g: claiming(f"(0, {10 ** int(g.integers(1, 22))})"),
    lambda g: claiming(f"(-{int(g.integers(1, 9))},)"),
    lambda g: claiming("(" + "1, " * 60 + ")"),
    lambda g: claiming("(" * 40 + ")" * 40),
    lambda g: claiming("(True, 3)"),
    lambda g: claiming("__import__('os').mkdir('x')"),
    lambda g: claiming("(3,)", "O"),
    lambda g: npy(np.full(D, np.nan)),
    lambda g: npy(np.full(D, np.inf)),
    lambda g: npy(np.zeros(D, dtype=">f8")),
    lambda g: npy(np.zeros(D, dtype=[("a", "f8"), ("b", "i4")])),
    lambda g: npy(np.zeros(D, dtype="U5")),
    lambda g: npy(np.zeros(D, dtype="M8[s]")),
    lambda g: npy(np.zeros(D, dtype=np.float16)),
    lambda g: npy(np.zeros(D, dtype=np.complex128)),
    lambda g: npy(np.zeros(D, dtype=np.uint64)),
    lambda g: npy(np.zeros((D, 0, 7))),
    lambda g: npy(np.array(1.0)),
    lambda g: npy(np.asfortranarray(np.zeros((D, 2)))),
    lambda g: WHOLE,
]
ZIPPED = zipped()
NAMES = [
    "update",
    "extra",
    "",
    "..",
    "../../x",
    "a" * 300,
    "\0",
    "ü\u202e",
    "__class__",
    "x/y",
    "0",
]
SCALARS = [
    0,
    -1,
    2**62,
    -(2**63),
    0.5,
    float("nan"),
    float("inf"),
    True,
    "",
    "x" * 999,
    b"\x80",
    "ü",
]
LISTS = [[], [1, -1], [0.5, float("nan")], ["a"], [True], [b""]]
NUMBERS = [0, 1, -1, 2**62, -(2**63), 0.5, -0.5, float("nan"), float("inf"), [], [1], [0.5]]


def pick(generator: Generator, options: list) -> object:  # type: ignore[type-arg]
    return options[int(generator.integers(len(options)))]


def rubbish_arrays(generator: Generator) -> ArrayRecord:
    def array() -> Array:
        return Array(
            dtype=str(pick(generator, ["float64", "object", "", "O", "x" * 99])),
            shape=pick(generator, [(D,), (), (-1,), (10**12, 10**12), (0,) * 40]),  # type: ignore[arg-type]
            stype=str(pick(generator, ["numpy.ndarray"] * 9 + ["pickle", "torch"])),
            data=pick(generator, DATA)(generator),  # type: ignore[operator]
        )

    names = ["update"] + [str(pick(generator, NAMES)) for _ in range(int(generator.integers(3)))]
    return ArrayRecord({name: array() for name in names[int(generator.integers(2)) :]})


def rubbish_config(generator: Generator) -> ConfigRecord:
    count = int(generator.integers(4))
    return ConfigRecord(
        {pick(generator, NAMES): pick(generator, SCALARS + LISTS) for _ in range(count)}  # type: ignore[misc]
    )


def rubbish_counts(generator: Generator) -> MetricRecord:
    names = ["queries", "num_examples", *NAMES]
    count = int(generator.integers(4))
    return MetricRecord({pick(generator, names): pick(generator, NUMBERS) for _ in range(count)})  # type: ignore[misc]


RUBBISH = [rubbish_arrays, rubbish_config, rubbish_counts]
ANSWER_PARTS = {"tensors": rubbish_arrays, "counts": rubbish_counts, "failure": rubbish_config}
QUESTION_PARTS = {
    "shared": rubbish_arrays,
    "own": rubbish_arrays,
    "config": rubbish_config,
    "head": rubbish_config,
}


def with_rubbish(whole: RecordDict, parts: dict, generator: Generator) -> RecordDict:  # type: ignore[type-arg]
    """Replace, add or remove some records; mostly of the right kind."""
    content = dict(whole.items())
    for _ in range(1 + int(generator.integers(2))):
        name = str(pick(generator, [*parts, *parts, *parts, "seal", "more", ""]))
        what = generator.random()
        if what < 0.1 and name in content:
            del content[name]
        elif what < 0.8 and name in parts:
            content[name] = parts[name](generator)
        else:
            content[name] = pick(generator, RUBBISH)(generator)  # type: ignore[operator]
    return RecordDict(content)


def mutated(whole: RecordDict, generator: Generator) -> RecordDict | None:
    """Flip, cut, repeat or insert bytes of the protobuf; None when it no longer parses."""
    if generator.random() < 0.5:
        return _compat.damaged(whole, generator)
    data = _compat.recorddict_to_proto(whole).SerializeToString()
    i, j = sorted(int(k) for k in generator.integers(0, len(data) + 1, 2))
    spoilt = [
        data[:i] + data[j:],
        data[:j] + data[i:],
        data[:i] + generator.bytes(4) + data[i:],
        data[:i],
        generator.bytes(i),
    ][int(generator.integers(5))]
    try:
        return _compat.recorddict_from_proto(_compat.ProtoRecordDict.FromString(spoilt))
    except Exception:  # there is no message then
        return None


def sealed_question(content: RecordDict) -> RecordDict:
    checksum = 0
    for name in (*messages._COMMON, "own"):
        checksum = seals.checksum(name, content.get(name), checksum)
    content.pop("seal", None)
    content["seal"] = ConfigRecord({"crc32": checksum})
    return content


def sealed_answer(content: RecordDict) -> RecordDict:
    content.pop("seal", None)
    seal_answer(content, TOKEN)
    return content


def variants(whole: RecordDict, parts: dict, seal, generator: Generator) -> Iterator[RecordDict]:  # type: ignore[no-untyped-def, type-arg]
    """Yield one message of each sort: damaged on the way, or wrong from the start and sealed."""
    for content in [mutated(whole, generator) for _ in range(4)]:
        if content is not None:
            yield content
            yield seal(RecordDict(dict(content.items())))
    yield with_rubbish(whole, parts, generator)
    yield seal(with_rubbish(whole, parts, generator))


@pytest.fixture(autouse=True)
def nothing_runs_and_memory_stays() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert not SPRUNG.exists()
    assert after - before < 300_000, "kilobytes"


def outcome(decode: Callable[[], object]) -> str:
    """Return what came of decoding; anything but MessageError escapes."""
    try:
        decode()
    except MessageError as error:
        return str(error).split(":")[0][:24]
    return "decoded"


def test_questions_decode_or_are_refused() -> None:
    seen: Counter[str] = Counter()
    for number in range(400):
        generator = stream(number, "fuzz questions")
        for content in variants(QUESTION, QUESTION_PARTS, sealed_question, generator):
            seen[outcome(lambda: decode_exchange(content, Toy, client_id=0))] += 1  # noqa: B023
    assert seen.total() > 1200
    assert seen["decoded"] > 40
    assert len(seen) >= 5, seen


def test_answers_decode_or_are_refused() -> None:
    seen: Counter[str] = Counter()
    for number in range(400):
        generator = stream(number, "fuzz answers")
        whole = ANSWERS[N] if number % 4 else FAILURE
        for content in variants(whole, ANSWER_PARTS, sealed_answer, generator):
            seen[outcome(lambda: decode_reply(content, client_id=N, token=TOKEN))] += 1  # noqa: B023
    assert seen.total() > 1200
    assert seen["decoded"] > 40
    assert len(seen) >= 5, seen


def test_rubbish_of_one_client_costs_no_other_its_answer() -> None:
    """Through the collector, together with the answers of honest clients."""
    honest = [Arrival(client, ANSWERS[client]) for client in range(N)]
    seen: Counter[str] = Counter()
    for number in range(200):
        generator = stream(number, "fuzz collect")
        for content in variants(ANSWERS[N], ANSWER_PARTS, sealed_answer, generator):
            replies = collect(EXCHANGE, [Arrival(N, content), *honest])
            assert list(replies.client_ids)[:N] == list(range(N))
            assert torch.equal(replies.tensors["update"][:N], X.expand(N, D))
            assert (N in replies.failures) != (N in replies.client_ids)
            assert replies.tensors["update"].shape == (len(replies.client_ids), D)
            seen[replies.failures.get(N, "answered")[:30]] += 1
    assert seen.total() > 600
    assert len(seen) >= 6, seen


def test_rubbish_alone_is_used_only_if_it_is_what_is_expected() -> None:
    alone = EXCHANGE.select([N])
    for number in range(200):
        generator = stream(number, "fuzz alone")
        for content in variants(ANSWERS[N], ANSWER_PARTS, sealed_answer, generator):
            replies = collect(alone, [Arrival(N, content)])
            if N in replies.client_ids:
                update = replies.tensors["update"]
                assert update.shape == (1, D)
                assert update.is_floating_point()
            else:
                assert replies.failures[N]


@pytest.mark.parametrize("kind", range(len(DATA)))
def test_every_kind_of_array_data_decodes_or_is_refused(kind: int) -> None:
    for number in range(20):
        data = DATA[kind](stream(number, "data", kind))
        array = Array(dtype="float64", shape=(D,), stype="numpy.ndarray", data=data)
        content = RecordDict({"tensors": ArrayRecord({"update": array}), "counts": MetricRecord()})
        outcome(lambda: decode_reply(sealed_answer(content), client_id=N, token=TOKEN))  # noqa: B023


def test_the_trap_works_where_pickle_is_allowed() -> None:
    np.load(io.BytesIO(OBJECTS), allow_pickle=True)
    assert SPRUNG.exists()
    SPRUNG.rmdir()


ROOT = Path(__file__).parents[3]
SOURCES = [
    p
    for room in ("fedzo", "strategies", "clients", "scenarios")
    for p in (ROOT / room).rglob("*.py")
]
MODULES = {"pickle", "cPickle", "marshal", "shelve", "joblib", "dill", "cloudpickle", "jsonpickle"}
BUILTINS = {"eval", "exec", "__import__"}
TORCH = {"torch.load", "torch.save", "torch.jit.load", "torch.hub.load"}


def _tensors(call: ast.Call) -> bool:
    """Say whether a call of torch.load reads tensors alone."""
    said = [ast.unparse(k.value) for k in call.keywords if k.arg == "weights_only"]
    return ast.unparse(call.func) == "torch.load" and said == ["True"]


def executing(tree: ast.AST) -> list[str]:
    """Return what in some code reads bytes as code or objects."""
    found: list[str] = []
    safe = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call) and _tensors(node)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in MODULES]
        if isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{a.name}" for a in node.names}
            found += [*names & TORCH, *({str(node.module).split(".")[0]} & MODULES)]
        if isinstance(node, ast.Attribute) and ast.unparse(node) in TORCH and node not in safe:
            found.append(ast.unparse(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += {node.func.id} & BUILTINS
        if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            found += [] if ast.unparse(node.value) == "False" else ["allow_pickle"]
    return found


@pytest.mark.more
@pytest.mark.source_tree
def test_no_source_reads_bytes_as_code() -> None:
    assert len(SOURCES) > 40
    found = {str(path): executing(ast.parse(path.read_text())) for path in SOURCES}
    assert {path: names for path, names in found.items() if names} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "import joblib.externals",
        "from marshal import loads",
        "from torch import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "torch.save(x, path)",
        "np.load(path, allow_pickle=True)",
        "eval(text)",
        "exec(text)",
        "import shelve as s",
    ],
)
def test_such_reading_would_be_found(line: str) -> None:
    assert executing(ast.parse(line))
    assert not executing(ast.parse("model.eval(); np.load(path, allow_pickle=False)"))
    assert not executing(ast.parse("torch.load(path, weights_only=True)"))
