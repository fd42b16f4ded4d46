"""Chunks: what they promise for any document, and where they are cut in ordinary ones."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from indexer.chunking import Chunker, ChunkerOptions
from indexer.chunking.graphemes import joins
from rag.errors import ConfigurationError, UnreadableDocument
from rag.models.encoder import EncoderConfig, resolve
from rag.models.tokenizer import Tokenizer
from rag.types import Block, BlockKind, Chunk, Document

DOCUMENTS = Path(__file__).parents[3].parent / "shared" / "data" / "documents"
ENGLISH = "The quick brown fox jumps over the lazy dog"
KOREAN = "국가유산청은 새로운 발굴 조사 결과를 공개했다"
HEADING, PARAGRAPH, LIST, TABLE, CODE = BlockKind
OPTIONS = ChunkerOptions(size=200, min_size=50)


@pytest.fixture(scope="module")
def config() -> EncoderConfig:
    return EncoderConfig.read(resolve("default"))


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(resolve("default"))


def byte_level() -> Tokenizer:
    """Every byte may be a token of its own, so a character may be four."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, show_progress=False, initial_alphabet=sorted(alphabet)
    )
    backend.train_from_iterator([ENGLISH, KOREAN] * 4, trainer)
    return Tokenizer(backend)


def unigram() -> Tokenizer:
    """Counts white space, and composes characters (NFKC) before it counts."""
    backend = Backend(models.Unigram())
    backend.normalizer = normalizers.NFKC()
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=120, show_progress=False, special_tokens=["<unk>"], unk_token="<unk>"
    )
    backend.train_from_iterator([ENGLISH, KOREAN] * 4, trainer)
    return Tokenizer(backend)


PHRASE = "dog ran. The quick fox "


def phrases() -> Tokenizer:
    """A token may end one sentence and begin the next: text that is cut has more than it had."""
    backend = Backend(models.BPE(unk_token="?"))
    trainer = trainers.BpeTrainer(vocab_size=200, show_progress=False, special_tokens=["?"])
    backend.train_from_iterator([PHRASE] * 4, trainer)
    return Tokenizer(backend)


@pytest.fixture(scope="module")
def tokenizers(tokenizer: Tokenizer) -> dict[str, Tokenizer]:
    return {
        "wordpiece": tokenizer, "bytes": byte_level(), "unigram": unigram(), "phrases": phrases(),
    }  # fmt: skip


def make(
    pieces: Sequence[tuple[BlockKind, str, int]], title: str = "Guide", between: str = "\n\n"
) -> Document:
    """A document of (kind, text, level); the first line of a table is its header."""
    text, blocks = "", []
    for number, (kind, piece, level) in enumerate(pieces):
        text += between if text else ""
        start = len(text)
        text += piece
        header = start + piece.index("\n") if kind is TABLE and "\n" in piece else None
        blocks.append(Block(kind, start, len(text), number + 1, level, header))
    return Document(
        "a/b.md", "s3://x/a/b.md", title, text, tuple(blocks), "ko", "markdown", {"k": ["v", 1]}
    )


def sentences(sentence: str, count: int) -> str:
    return " ".join(f"{sentence} {number}." for number in range(count))


def covered(document: Document, chunks: Sequence[Chunk]) -> bytearray:
    inside = bytearray(len(document.text))
    for chunk in chunks:
        inside[chunk.start : chunk.end] = b"\x01" * (chunk.end - chunk.start)
    return inside


def check(document: Document, chunks: Sequence[Chunk], chunker: Chunker, limit: int) -> None:
    """Everything that is promised for any document."""
    for chunk in chunks:
        assert chunk.text == document.text[chunk.start : chunk.end]
        assert chunk.text == chunk.text.strip() != ""
        assert (chunk.doc_id, chunk.uri, chunk.title) == ("a/b.md", "s3://x/a/b.md", document.title)
        assert (chunk.lang, chunk.format, chunk.metadata) == ("ko", "markdown", {"k": ["v", 1]})
        at = [b for b in document.blocks if b.start <= chunk.start < b.end]
        assert [chunk.page] == [b.page for b in at]
    assert all(chunker.tokens(chunks) <= limit)
    pairs = list(itertools.pairwise(chunks))
    assert all(a.start < b.start and a.end < b.end for a, b in pairs)
    if chunker.options.overlap == 0:
        assert all(a.end <= b.start for a, b in pairs)
    inside = covered(document, chunks)
    names = {name for chunk in chunks for name in chunk.headings}
    for block in document.blocks:
        text = document.text[block.start : block.end]
        lost = any(
            not inside[i] and not document.text[i].isspace() for i in range(block.start, block.end)
        )
        named = block.kind is HEADING and " ".join(text.split()) in names
        assert not lost or named


SIGNS = list(
    "가나다라마바사 한국어 ab .,!|`\n\t" "각e\u0301\u1112\u1161\u11ab\u0915\u094d\u0937"
    "👨\u200d👩\u200d👧👍🏽🇰🇷🇺🇸"
)  # fmt: skip


def texts(max_size: int) -> st.SearchStrategy[str]:
    """Half of them of letters, marks and emoji that belong together, half of anything."""
    signs = st.lists(st.sampled_from(SIGNS), max_size=max_size).map("".join)
    return st.one_of(signs, st.text(max_size=max_size))


long_texts = st.builds(
    lambda unit, times, joiner: joiner.join([unit] * times),
    st.one_of(texts(12), st.sampled_from([ENGLISH + ".", KOREAN + ".", PHRASE])),
    st.integers(1, 300),
    st.sampled_from(["", " ", "\n", ". ", "\n\n", "     "]),
)
block_texts = st.one_of(st.sampled_from(["", " ", "\n"]), texts(80), long_texts)
kinds = st.sampled_from([HEADING, HEADING, PARAGRAPH, PARAGRAPH, LIST, TABLE, CODE])
pieces = st.lists(st.tuples(kinds, block_texts, st.integers(1, 6)), max_size=14)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(
    pieces=pieces,
    title=st.one_of(st.just("Guide"), block_texts),
    between=st.sampled_from(["\n\n", " ", "\n" + " " * 40]),
    kind=st.sampled_from(["wordpiece", "bytes", "unigram", "phrases"]),
    limit=st.sampled_from([40, 64, 256]),
    prompt=st.sampled_from(["", "passage: "]),
    overlap=st.sampled_from([0, 10]),
    context=st.booleans(),
)
def test_promises_hold_for_any_document(
    tokenizers: dict[str, Tokenizer],
    config: EncoderConfig,
    pieces: list[tuple[BlockKind, str, int]],
    title: str,
    between: str,
    kind: str,
    limit: int,
    prompt: str,
    overlap: int,
    context: bool,
) -> None:
    limit += 10 * (kind != "wordpiece")  # these spend a token on each letter of the prompt
    encoder = replace(config, max_tokens=limit, prompts={"query": "", "passage": prompt})
    options = ChunkerOptions(overlap=overlap, context=context)
    chunker = Chunker(tokenizers[kind], encoder, options)
    document = make(pieces, title, between)
    chunks = chunker.chunks(document)
    check(document, chunks, chunker, limit)
    assert chunks == chunker.chunks(document)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(text=texts(40))
def test_graphemes_are_never_cut_where_the_standard_forbids_it(text: str) -> None:
    regex = pytest.importorskip("regex")
    ends = {match.end() for match in regex.finditer(r"\X", text)}
    for position in range(1, len(text)):
        if not joins(text, position):
            assert position in ends or _is_prepended(text[position - 1])


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("🇰🇷🇺🇸🇰🇷", 3), ("👨\u200d👩\u200d👧👍🏽", 2), ("한국", 2), ("\u1112\u1161\u11ab국", 2),
        ("cafe\u0301s", 5), ("\u0915\u094d\u0937\u0915", 2), ("\r\n\n", 2), ("1️⃣2️⃣", 2),
    ],
)  # fmt: skip
def test_graphemes_are_what_readers_count(text: str, parts: int) -> None:
    assert 1 + sum(not joins(text, position) for position in range(1, len(text))) == parts


def _is_prepended(character: str) -> bool:
    regex = pytest.importorskip("regex")
    return bool(regex.match(r"\p{GCB=Prepend}", character))


@pytest.mark.parametrize(
    "unit", ["가", "👨\u200d👩\u200d👧", "e\u0301", "\u1112\u1161\u11ab", "🇰🇷", "x", "한국어"]
)
def test_a_word_of_100_kb_is_cut_between_graphemes(
    tokenizer: Tokenizer, config: EncoderConfig, unit: str
) -> None:
    document = make([(PARAGRAPH, unit * (100_000 // len(unit.encode())), 0)])
    chunker = Chunker(tokenizer, config)
    chunks = chunker.chunks(document)
    check(document, chunks, chunker, 256)
    assert len(chunks) > 10
    if unit != "한국어":
        assert all(len(chunk.text) % len(unit) == 0 for chunk in chunks)


def test_pieces_that_have_more_tokens_than_their_text_had_are_cut_again(
    config: EncoderConfig,
) -> None:
    chunker = Chunker(phrases(), replace(config, max_tokens=40), ChunkerOptions(context=False))
    assert int(phrases().count([PHRASE * 2])[0]) == 2
    document = make([(PARAGRAPH, PHRASE * 80, 0)])
    chunks = chunker.chunks(document)
    check(document, chunks, chunker, 40)
    assert len(chunks) > 2


def test_sections_are_not_mixed_and_their_headings_are_the_context(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    document = make([
        (HEADING, "Guide", 1), (PARAGRAPH, sentences(ENGLISH, 6), 0),
        (HEADING, "설치", 2), (PARAGRAPH, sentences(KOREAN, 4), 0),
        (HEADING, "Linux", 3), (PARAGRAPH, sentences(ENGLISH, 7), 0),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert [chunk.headings for chunk in chunks] == [
        ("Guide",), ("Guide", "설치"), ("Guide", "설치", "Linux"),
    ]  # fmt: skip
    assert [chunk.context for chunk in chunks] == ["Guide", "Guide\n설치", "Guide\n설치 > Linux"]
    assert [chunk.page for chunk in chunks] == [2, 4, 6]


def test_small_sections_are_joined_only_below_their_common_parent(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    faq = [(HEADING, f"Question {n}?", 2) for n in range(6)]
    answers = [(PARAGRAPH, f"{ENGLISH}, and that is answer {n}.", 0) for n in range(6)]
    between = [piece for pair in zip(faq, answers, strict=True) for piece in pair]
    document = make([
        (HEADING, "FAQ", 1), *between,
        (HEADING, "Other", 1), (PARAGRAPH, sentences(ENGLISH, 9), 0),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert {chunk.headings for chunk in chunks} == {("FAQ",), ("Other",)}
    assert 1 < len(chunks) < 6
    assert all(chunk.text.startswith("Question") for chunk in chunks[:-1])
    apart = Chunker(tokenizer, config, ChunkerOptions(size=200, min_size=0)).chunks(document)
    assert [chunk.headings for chunk in apart[:6]] == [("FAQ", f"Question {n}?") for n in range(6)]


def test_headings_without_text_are_kept(tokenizer: Tokenizer, config: EncoderConfig) -> None:
    long = sentences(ENGLISH, 9)
    document = make([
        (HEADING, "A", 1), (HEADING, "Planned", 2), (HEADING, "B", 2), (PARAGRAPH, long, 0),
        (HEADING, "Last", 1),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert [(chunk.text, chunk.headings) for chunk in chunks] == [
        ("Planned", ("A",)), (long, ("A", "B")), ("Last", ()),
    ]  # fmt: skip


@pytest.mark.parametrize("sentence", [ENGLISH, KOREAN])
def test_paragraphs_are_cut_between_sentences_into_equal_pieces(
    tokenizer: Tokenizer, config: EncoderConfig, sentence: str
) -> None:
    document = make([(PARAGRAPH, sentences(sentence, 23), 0)])
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert all(chunk.text.startswith(sentence) and chunk.text.endswith(".") for chunk in chunks)
    lengths = [len(chunk.text) for chunk in chunks]
    assert len(chunks) > 1
    assert max(lengths) - min(lengths) <= 2 * len(sentence) + 10


def test_text_without_capital_letters_is_cut_after_full_stops(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    text = "the company, as of december 31, had credits of $20 million, which expire in 2018. " * 30
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(make([(PARAGRAPH, text, 0)]))
    assert len(chunks) > 2
    assert all(chunk.text.endswith("2018.") for chunk in chunks)


def test_blocks_are_packed_up_to_the_size_and_not_cut_where_they_fit(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    paragraphs = [(PARAGRAPH, sentences(ENGLISH, 6), 0)] * 7
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(make(paragraphs))
    assert [chunk.text.count("\n\n") for chunk in chunks] == [1, 2, 1]


def test_code_is_whole_where_it_fits_and_cut_between_lines_where_not(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    short = "def f():\n    return 1\n\n\ndef g():\n    return 2"
    functions = [f"def f{n}(x):\n    y = x + {n}\n    return y" for n in range(30)]
    document = make([
        (PARAGRAPH, sentences(ENGLISH, 16), 0), (CODE, short, 0), (PARAGRAPH, ENGLISH + ".", 0),
        (CODE, "\n\n".join(functions), 0),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert sum(short in chunk.text for chunk in chunks) == 1
    assert all(sum(f in chunk.text for chunk in chunks) == 1 for f in functions)
    nearly_full = "\n\n".join(functions[:14])
    document = make([(PARAGRAPH, ENGLISH, 0), (CODE, nearly_full, 0), (PARAGRAPH, ENGLISH, 0)])
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert sum(nearly_full in chunk.text for chunk in chunks) == 1


def test_what_introduces_code_stays_with_it(tokenizer: Tokenizer, config: EncoderConfig) -> None:
    code = "\n".join(f"value_{n} = compute({n})" for n in range(12))
    for lead in ("다음과 같이 실행합니다:", "Run this:"):
        document = make([
            (PARAGRAPH, sentences(ENGLISH, 7), 0), (PARAGRAPH, lead, 0), (CODE, code, 0),
            (PARAGRAPH, sentences(ENGLISH, 7), 0),
        ])  # fmt: skip
        chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
        assert sum(f"{lead}\n\n{code}" in chunk.text for chunk in chunks) == 1
    document = make([
        (PARAGRAPH, sentences(ENGLISH, 3), 0), (PARAGRAPH, "다음과 같다:", 0),
        (CODE, "\n".join([code, *code.split("\n")[:9]]), 0),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    assert [chunk.text[:3] for chunk in chunks] == ["The", "다음과"]


def test_every_part_of_a_table_has_its_header(tokenizer: Tokenizer, config: EncoderConfig) -> None:
    rows = [f"| {n}월 | 매출 {n * 100}만 원 |" for n in range(60)]
    table = "\n".join(["| 기간 | 실적 |", "|---|---|", *rows])
    after = [(PARAGRAPH, sentences(ENGLISH, 3), 0)] * 3
    document = make([(HEADING, "보고", 1), (TABLE, table, 0), *after])
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(document)
    inside = [chunk for chunk in chunks if ENGLISH not in chunk.text]
    assert len(inside) > 2
    assert all(row in "\n".join(c.text for c in inside).split("\n") for row in rows)
    assert inside[0].context == "Guide\n보고"
    assert {chunk.context for chunk in inside[1:]} == {"Guide\n보고\n| 기간 | 실적 |"}
    assert all(chunk.text.startswith("| ") and chunk.text.endswith(" |") for chunk in inside)


def test_the_rest_of_a_cut_table_stays_by_itself(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    chunker = Chunker(tokenizer, config, OPTIONS)
    for count in range(27, 48, 3):
        table = "\n".join(f"| {n} | value {n} | more |" for n in range(count))
        chunks = chunker.chunks(make([(TABLE, table, 0), *[(PARAGRAPH, f"{ENGLISH}.", 0)] * 14]))
        assert sum("more" in chunk.text for chunk in chunks) > 1
        assert not any("more" in chunk.text and ENGLISH in chunk.text for chunk in chunks)


def test_paragraphs_are_rather_cut_where_a_line_ends_with_its_sentence(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    lines = [sentences(ENGLISH, 5), sentences(ENGLISH, 8)] * 4
    chunks = Chunker(tokenizer, config, OPTIONS).chunks(make([(PARAGRAPH, "\n".join(lines), 0)]))
    assert len(chunks) > 3
    assert [line for chunk in chunks for line in chunk.text.split("\n")] == lines


@pytest.mark.parametrize("kind", [TABLE, CODE])
def test_overlap_is_whole_sentences_of_one_section_and_no_table_or_code(
    tokenizer: Tokenizer, config: EncoderConfig, kind: BlockKind
) -> None:
    rows = "\n".join(f"| {ENGLISH} | {n} |" for n in range(60))
    document = make([
        (HEADING, "A", 1), (PARAGRAPH, sentences(ENGLISH, 60), 0), (kind, rows, 0),
        (HEADING, "B", 1), (PARAGRAPH, sentences(KOREAN, 60), 0),
    ])  # fmt: skip
    chunks = Chunker(tokenizer, config, ChunkerOptions(size=200, overlap=40)).chunks(document)
    block = {b.kind: b for b in document.blocks}[kind]
    shared = 0
    for before, after in itertools.pairwise(chunks):
        if after.start >= before.end:
            continue
        shared += 1
        text = document.text[after.start : before.end]
        assert before.headings == after.headings
        assert text.startswith((ENGLISH, KOREAN))
        assert text.endswith(".")
        assert int(tokenizer.count([text])[0]) - tokenizer.special <= 40
        assert not document.text[before.end :].lstrip().startswith("|")
        assert before.end <= block.start or after.start >= block.end
    assert shared >= 4


def test_long_titles_and_paths_are_shortened_where_one_sees_it(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    names = [f"{level} {KOREAN}" for level in range(1, 7)]
    document = make(
        [*((HEADING, name, level) for level, name in enumerate(names, 1)),
         (PARAGRAPH, sentences(ENGLISH, 40), 0)],
        title="매우 " * 500,
    )  # fmt: skip
    chunker = Chunker(tokenizer, config)
    chunks = chunker.chunks(document)
    check(document, chunks, chunker, 256)
    for chunk in chunks:
        title, path = chunk.context.split("\n")
        assert title.startswith("매우 매우")
        assert title.endswith("…")
        assert len(title) < 60
        assert path.startswith("… > 6 국가")
        assert chunk.headings == tuple(names)
    assert len(chunks) == 3


def test_without_context_headings_stay_in_the_text(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    document = make([(HEADING, "설치", 1), (PARAGRAPH, sentences(ENGLISH, 9), 0)])
    (chunk,) = Chunker(tokenizer, config, ChunkerOptions(context=False)).chunks(document)
    assert chunk.context == ""
    assert chunk.text.startswith("설치\n\nThe quick")


def test_passages_are_measured_with_the_prompt(tokenizer: Tokenizer, config: EncoderConfig) -> None:
    prompts = {"query": "", "passage": "Represent this passage for retrieval: " * 20}
    encoder = replace(config, prompts=prompts)
    chunker = Chunker(tokenizer, encoder)
    document = make([(PARAGRAPH, sentences(ENGLISH, 40), 0)])
    counts = chunker.tokens(chunker.chunks(document))
    assert max(counts) <= 256
    assert chunker.options.size == 256 - 20 * 6 - 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "chunk size is 0 tokens"),
        ({"size": 100, "overlap": 51}, "chunk overlap is 51 tokens; give 0 to 50"),
        ({"overlap": -1}, "chunk overlap is -1 tokens"),
        ({"size": 100, "min_size": 60}, "chunk min_size is 60 tokens"),
    ],
)
def test_impossible_options_are_refused(options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ChunkerOptions(**options)


def test_what_the_encoder_cannot_read_is_refused(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    with pytest.raises(ConfigurationError, match=r"chunk size is 300 tokens, .* reads 254"):
        Chunker(tokenizer, config, ChunkerOptions(size=300))
    prompts = {"query": "", "passage": "word " * 240}
    with pytest.raises(ConfigurationError, match="at least 32 are needed"):
        Chunker(tokenizer, replace(config, prompts=prompts))
    with pytest.raises(UnreadableDocument, match="lone surrogate"):
        Chunker(tokenizer, config, OPTIONS).chunks(make([(PARAGRAPH, "broken \ud800 text", 0)]))


def test_the_reference_has_every_option_resolved(
    tokenizer: Tokenizer, config: EncoderConfig
) -> None:
    chunker = Chunker(tokenizer, config)
    assert chunker.reference() == {
        "name": "structure", "version": 1, "size": 254, "overlap": 0, "min_size": 31,
        "context": True,
    }  # fmt: skip
    assert Chunker(tokenizer, replace(config, max_tokens=128)).options.size == 126


@pytest.mark.parametrize("folder", ["fastapi-docs/ko", "ko-javascript-info/1-js", "ko-pdf-news"])
def test_promises_hold_for_korean_documents(
    tokenizer: Tokenizer, config: EncoderConfig, folder: str
) -> None:
    parsing = pytest.importorskip("indexer.parsing")
    files = sorted(p for p in (DOCUMENTS / folder).rglob("*") if p.suffix in (".md", ".pdf"))
    if not files:
        pytest.skip(f"no documents below {DOCUMENTS / folder}")
    chunker = Chunker(tokenizer, config)
    for path in files[:: len(files) // 6 + 1]:
        parsed = parsing.parse(path.read_bytes(), doc_id="a/b.md", uri="s3://x/a/b.md")
        document = replace(parsed, lang="ko", format="markdown", metadata={"k": ["v", 1]})
        check(document, chunker.chunks(document), chunker, 256)
