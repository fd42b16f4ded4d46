"""Everything that can go wrong, by name. Each message is one line that says what is wrong and
what to do.

RagError
├── ConfigurationError          a flag, a setting or a package is wrong or missing
├── StorageError                the object store failed
│   ├── ObjectNotFound
│   └── ConditionFailed         create-only or if-unchanged write lost the race
├── DatabaseError               an external database refused, or holds what is none of ours
│   └── DatabaseUnavailable     refused, reset, throttled or failed, again and again
├── BundleError                 a bundle cannot be served
│   ├── BundleMissing           no manifest, or a file of the manifest is not there
│   ├── BundleCorrupt           a file is truncated or altered, or the manifest cannot be read
│   ├── BundleMixed             files of two generations, or legs that disagree
│   ├── BundleTooNew            written by a newer format than this program reads
│   └── BundleMismatch          encoder or analyzer behave unlike those that built the bundle
├── DocumentError               one document cannot be indexed (its reason goes into the report)
│   ├── UnsupportedFormat
│   └── UnreadableDocument
├── BuildError                  a build as a whole cannot be finished
│   ├── GateRefused             the new version may not replace the current one
│   └── BuildStopped            it was asked to stop, and can go on from its checkpoint
├── EvaluationError             a collection, its judgements or a result cannot be used
└── RequestError                a request cannot be answered
    ├── InvalidRequest
    │   └── InvalidFilter
    ├── Unauthorized
    ├── Forbidden
    ├── NoSuchBundle
    ├── BundleLoaded            the name is taken by a bundle that is loaded
    ├── OutOfMemory             a bundle does not fit beside those that are loaded
    ├── NotAcceptable
    ├── PayloadTooLarge
    ├── UnsupportedMediaType
    ├── Overloaded
    ├── ModelFailure            encoder, index or reranker failed on this request
    │   └── RerankerFailure
    │       ├── RerankerUnavailable     refused, reset, 5xx
    │       ├── RerankerThrottled       429
    │       ├── RerankerTimeout         no scores before the deadline
    │       └── RerankerProtocolError   an answer that is not in the endpoint's protocol
    ├── GeneratorFailure
    │   ├── GeneratorUnavailable    refused, reset, 5xx
    │   │   └── GeneratorCircuitOpen    not asked: it failed too often a moment ago
    │   ├── GeneratorThrottled      429
    │   ├── GeneratorTimeout        nothing before the deadline
    │   │   └── GeneratorSkipped        not asked: there was no time left
    │   └── GeneratorProtocolError  an answer that is not in the endpoint's protocol
    ├── NotReady                loading or draining
    └── DeadlineExceeded

Which of them is which HTTP status is decided in rag/service/errors.py alone.
"""

from __future__ import annotations


class RagError(Exception):
    """Root of every error that this project raises on purpose."""


class ConfigurationError(RagError):
    pass


class StorageError(RagError):
    pass


class ObjectNotFound(StorageError):
    pass


class ConditionFailed(StorageError):
    pass


class DatabaseError(RagError):
    pass


class DatabaseUnavailable(DatabaseError):
    """`retry_after_s` is the database's own word for when to come back, in seconds; None: none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class BundleError(RagError):
    pass


class BundleMissing(BundleError):
    pass


class BundleCorrupt(BundleError):
    pass


class BundleMixed(BundleError):
    pass


class BundleTooNew(BundleError):
    pass


class BundleMismatch(BundleError):
    pass


class DocumentError(RagError):
    pass


class UnsupportedFormat(DocumentError):
    pass


class UnreadableDocument(DocumentError):
    pass


class BuildError(RagError):
    pass


class GateRefused(BuildError):
    pass


class BuildStopped(BuildError):
    pass


class EvaluationError(RagError):
    pass


class RequestError(RagError):
    pass


class InvalidRequest(RequestError):
    pass


class InvalidFilter(InvalidRequest):
    pass


class Unauthorized(RequestError):
    pass


class Forbidden(RequestError):
    pass


class NoSuchBundle(RequestError):
    pass


class BundleLoaded(RequestError):
    pass


class OutOfMemory(RequestError):
    pass


class NotAcceptable(RequestError):
    pass


class PayloadTooLarge(RequestError):
    pass


class UnsupportedMediaType(RequestError):
    pass


class Overloaded(RequestError):
    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class ModelFailure(RequestError):
    pass


class RerankerFailure(ModelFailure):
    pass


class RerankerUnavailable(RerankerFailure):
    pass


class RerankerThrottled(RerankerFailure):
    pass


class RerankerTimeout(RerankerFailure):
    pass


class RerankerProtocolError(RerankerFailure):
    pass


class GeneratorFailure(RequestError):
    """`retry_after_s` is the endpoint's own word for when to come back, in seconds; None: none."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class GeneratorUnavailable(GeneratorFailure):
    pass


class GeneratorCircuitOpen(GeneratorUnavailable):
    pass


class GeneratorThrottled(GeneratorFailure):
    pass


class GeneratorTimeout(GeneratorFailure):
    pass


class GeneratorSkipped(GeneratorTimeout):
    pass


class GeneratorProtocolError(GeneratorFailure):
    pass


class NotReady(RequestError):
    pass


class DeadlineExceeded(RequestError):
    pass
