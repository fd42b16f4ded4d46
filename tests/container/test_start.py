"""Checklist, Start: what an image runs, where it listens, what it may write."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sagemaker_local.hosting import FLAGS

LABEL = "com.amazonaws.sagemaker.capabilities."


@pytest.fixture(params=["inference", "indexer"])
def config(request: pytest.FixtureRequest, engine: Any) -> dict[str, Any]:
    """What an image says of itself."""
    image = request.getfixturevalue(request.param)
    found = json.loads(engine.call("image", "inspect", image))[0]["Config"]
    assert isinstance(found, dict)
    return found


def test_item_01_entrypoint_is_a_json_array(config: Any) -> None:
    assert isinstance(config["Entrypoint"], list)
    assert config["Entrypoint"][0].startswith("/opt/rag/bin/")
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert config.get("User", "") == ""


def test_item_01_process_1_is_ours(served: Any) -> None:
    command = served.container.execute("cat", "/proc/1/cmdline").split("\0")
    assert command[1:3] == ["/opt/rag/bin/rag", "serve"]


@pytest.mark.parametrize("image", ["inference", "indexer"])
def test_item_02_an_unknown_verb_is_one_line_and_a_failure(
    engine: Any, request: pytest.FixtureRequest, image: str
) -> None:
    done = engine.run("run", "--rm", request.getfixturevalue(image), "frobnicate")
    said = [line for line in done.stderr.decode().splitlines() if "healthcheck" not in line]
    assert done.returncode != 0
    assert len(said) == 1
    assert "frobnicate" in said[0]


def test_item_02_the_image_that_trained_also_serves(serve: Any, indexer: str) -> None:
    with serve(image=indexer) as service:
        assert service.ask().json()["passages"][0]["doc_id"] == "en/lamp.md"


def test_item_03_it_listens_on_every_address_at_8080(served: Any) -> None:
    # Published to this machine, so 8080 of the container's outer address answers.
    assert served.endpoint.ping() == 200
    assert "listening on 0.0.0.0:8080" in served.container.logs()


def test_item_04_the_platforms_port_is_bound_and_8080_is_not(serve: Any) -> None:
    with serve(SAGEMAKER_BIND_TO_PORT="8123", port=8123) as service:
        assert service.endpoint.ping() == 200
        probe = "import socket; socket.create_connection(('127.0.0.1', {}))"
        assert service.inside("python3", "-c", probe.format(8123)) == 0
        assert service.inside("python3", "-c", probe.format(8080)) != 0


def test_item_05_labels_are_only_for_what_works(config: Any) -> None:
    labels = {k.removeprefix(LABEL): v for k, v in config["Labels"].items() if LABEL in k}
    # The first is proven by item 4, the second by items 41 to 45.
    assert labels == {"accept-bind-to-port": "true", "multi-models": "true"}
    for name in ("title", "description", "licenses", "version", "revision"):
        assert config["Labels"][f"org.opencontainers.image.{name}"]


def test_item_06_it_runs_with_a_read_only_root_and_model(served: Any) -> None:
    assert "--read-only" in FLAGS
    assert served.inside("touch", "/opt/ml/model/x") != 0
    assert served.inside("touch", "/opt/rag/x") != 0
    assert served.ask().status == 200


def test_it_runs_as_any_user(serve: Any) -> None:
    with serve(flags=("--user", "12345:23456", "--cap-drop", "ALL")) as service:
        assert service.container.execute("id", "-u").strip() == "12345"
        assert service.ask().json()["answer"]
        # The compiled kernels were read from the image, so nobody had to compile and keep them.
        assert service.container.execute("find", "/tmp", "-type", "f").split() == []


def test_nothing_is_written_outside_tmp(engine: Any, inference: str, bundle: Any) -> None:
    from sagemaker_local.engine import Mount
    from sagemaker_local.hosting import Endpoint

    mounts = [Mount(bundle, "/opt/ml/model", read_only=True)]
    container = engine.start(
        inference, ["serve"], mounts=mounts, flags=["--publish", "127.0.0.1::8080"]
    )
    try:
        endpoint = Endpoint(container)
        endpoint.wait()
        assert endpoint.invoke(b'{"query": "lamp"}').status == 200
        changed = {line.split()[1] for line in engine.call("diff", container.name).splitlines()}
    finally:
        container.remove()
    # Mount points and the engine's own files are not the service's.
    own = ("/opt/ml", "/etc", "/run", "/dev", "/proc", "/sys")
    assert {p for p in changed if not p.startswith(("/tmp", *own)) and p != "/opt"} == set()


def test_the_health_check_is_that_of_ping(serve: Any, served: Any, inference: str) -> None:
    command = ["/opt/venv/bin/python", "-S", "/opt/rag/healthcheck.py"]
    assert served.inside(*command) == 0
    stated = json.loads(served.container.engine.call("image", "inspect", inference))[0]
    check = (stated["Config"].get("Healthcheck") or stated["Healthcheck"])["Test"]
    assert check == ["CMD", *command]
    with serve(SAGEMAKER_BIND_TO_PORT="8123", port=8123) as service:
        assert service.inside(*command) == 0
    with serve(model=None, ready=False, RAG_EXIT_ON_LOAD_FAILURE="false") as service:
        service.until(lambda: service.endpoint.ping() == 503)
        assert service.inside(*command) == 1
