"""What is known of a build before a document is read."""

from __future__ import annotations

from pathlib import Path

from indexer.chunking import Chunker
from indexer.incremental.plan import Change, Plan, make_plan
from indexer.incremental.previous import Previous
from indexer.options import BuildOptions, bundle_digest, encoder_digest, parsing_digest
from indexer.pipeline.stages import StageOptions
from indexer.source import Source
from rag.index.analyzer import Analyzer, make_analyzer
from rag.models.encoder import EncoderConfig, reference, resolve
from rag.models.tokenizer import Tokenizer


class Setup:
    """A source and options, with all that follows from them alone.

    `parsing`, `encoder` and `bundle` are digests (64 hex digits) of what decides what becomes of a
    document before it is embedded, a text's vector, and a bundle beside its documents.
    """

    def __init__(self, source: Source, options: BuildOptions) -> None:
        self.source, self.options = source, options
        self.encoder_source = resolve(options.encoder)
        self.config = EncoderConfig.read(
            self.encoder_source,
            truncate_dim=options.truncate_dim,
            max_tokens=options.max_tokens,
            prompts=options.prompts,
        )
        tokenizer = Tokenizer.load(self.encoder_source)
        self.chunker = Chunker(tokenizer, self.config, options.chunker)
        self.analyzer: Analyzer = make_analyzer(options.analyzer)
        self.parsing = parsing_digest(source, self.config, self.chunker, self.analyzer)
        self.encoder = encoder_digest(self.config, options)
        self.bundle = bundle_digest(self.parsing, self.config, options)

    def stage_options(self) -> StageOptions:
        """How documents are parsed, for other processes."""
        chosen = self.analyzer.options
        if self.analyzer.name != "auto":
            chosen.pop("korean", None)  # their names say it
        analyzer = (self.analyzer.name, chosen)
        return StageOptions(self.encoder_source, self.config, self.options.chunker, analyzer)

    def plan(self, before: Previous | None, path: Path) -> Plan:
        """Lists the source and compares; see `make_plan`."""
        return make_plan(self.source, None if before is None else before.objects(), path)

    def usable(self, before: Previous | None) -> Previous | None:
        """The version before, if parsing its documents again would give the same."""
        same = before is not None and before.about.get("parsing") == self.parsing
        return before if same else None

    def has_vectors(self, before: Previous) -> bool:
        """Whether the vectors of the version before can stand for those of this one."""
        return before.has_vectors(self.options.runs_as, reference(self.config))

    def is_same(self, before: Previous | None, plan: Plan) -> bool:
        """Whether the bundle would be the version before once more."""
        return before is not None and plan.is_empty and before.about.get("bundle") == self.bundle

    def estimate(self, before: Previous | None, plan: Plan) -> float | None:
        """Seconds that the build will take, by what the one before took; None if none did."""
        if before is None or not (pace := before.about.get("pace")):
            return None
        if self.is_same(before, plan):
            return 0.0
        read = plan.to_read if self.usable(before) is not None else plan.total
        read = max(read - plan.counts[Change.RETRIED], 0)
        return float(pace["fixed_s"]) + read * float(pace["object_s"])
