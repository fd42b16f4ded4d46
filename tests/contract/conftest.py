"""A chat endpoint that is not ours: `transformers serve` over a tiny random model."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from aws_runtime import KEY, REGION, SECRET, FakeAwsRuntime

CHAT_TEMPLATE = (
    "{% for m in messages %}<|turn|>{{ m.role }}\n{{ m.content }}{% endfor %}<|turn|>assistant\n"
)


class ChatEndpoint(NamedTuple):
    url: str
    model: str


def make_chat_model(folder: Path) -> None:
    """A one-layer Llama over bytes, with random weights, that never ends of itself."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<s>", "</s>", "<|turn|>"]
    vocabulary = special + sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: i for i, token in enumerate(vocabulary)}
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(ids),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        initializer_range=1.0,  # wide, so that what is said depends on the whole prompt
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16384,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    model = LlamaForCausalLM(config)
    # Only ASCII letters and space may be said, so that every token is text at once.
    spoken = {ids["Ġ"], *(ids[c] for c in "abcdefghijklmnopqrstuvwxyz")}
    model.generation_config.suppress_tokens = [i for i in ids.values() if i not in spoken]
    model.save_pretrained(folder)


@pytest.fixture(scope="session")
def chat_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChatEndpoint]:
    """A real OpenAI-compatible server, offline, in a process of its own."""
    program = Path(sys.executable).with_name("transformers")
    if not program.exists() and not shutil.which("transformers"):
        pytest.skip("the `transformers` command is not installed: install transformers[serving]")
    folder = tmp_path_factory.mktemp("chat-model")
    make_chat_model(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    command = [str(program if program.exists() else "transformers"), "serve", str(folder)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        _wait_until_healthy(url, process, log)
        yield ChatEndpoint(url, str(folder))
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="session")
def aws_runtime() -> Iterator[FakeAwsRuntime]:
    """A fake of SageMaker's and Bedrock's runtimes; the environment holds credentials for it."""
    runtime = FakeAwsRuntime()
    runtime.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", KEY)
        patch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        patch.setenv("AWS_DEFAULT_REGION", REGION)
        yield runtime
    runtime.stop()


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(1200):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.1)
    pytest.fail(f"the chat endpoint did not start:\n{log.read_text('utf-8', 'replace')[-2000:]}")
