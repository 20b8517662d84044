"""The embedded model through MLX: real weights, real batches, real caches."""

import json
import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from looper.agent.prompt import opening
from looper.agent.scaffold import packaged_scaffold
from looper.edges.models import mlx
from looper.edges.models.mlx import MlxModel, folder_digest, nano_folder
from looper.edges.trainers.encoding import load_tokenizer, supervised_spans
from looper.edges.trainers.estimate import memory_bytes
from looper.errors import (
    BadInput,
    Cancelled,
    ModelMissing,
    ModelTimeout,
    ModelUnfit,
    ModelUnreachable,
    ReplyLate,
    RequestRefused,
)
from looper.protocols import ChatRequest, Message
from looper.records.plan import Sampling
from looper.records.task import Task
from looper.records.training import TrainingSettings, Turn
from looper.records.trajectory import FinishReason, Reply


@pytest.fixture(scope="module")
def nano() -> Iterator[MlxModel]:
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    yield model
    model.close()


@pytest.fixture
def request_(task: Task) -> ChatRequest:
    messages = opening(task, packaged_scaffold("terse"))
    return ChatRequest("one", messages, 80, 2048, 0.0, 1, 60.0)


def go_on(request: ChatRequest, reply: Reply, observation: str) -> ChatRequest:
    turns: tuple[Message, ...] = (("assistant", reply.text), ("user", observation))
    return replace(request, messages=(*request.messages, *turns))


def test_it_speaks_the_protocol(nano: MlxModel, request_: ChatRequest) -> None:
    reply = nano.reply(request_)
    assert reply.text == "<bash>python check.py</bash>" and reply.finish_reason is FinishReason.STOP
    assert reply.usage.prompt_tokens == nano.count_tokens(request_.messages)
    assert reply.usage.completion_tokens and reply.usage.counted_by == "tokenizer of nano"


def test_a_turn_costs_only_what_is_new_in_it(nano: MlxModel, request_: ChatRequest) -> None:
    """Prompt tokens processed over a conversation stay near the prompt's length; without a cache they add up."""
    request, processed, asked = replace(request_, conversation="grow"), 0, 0
    for _ in range(6):
        reply = nano.reply(request)
        processed += reply.usage.processed_prompt_tokens or 0
        asked += reply.usage.prompt_tokens or 0
        request = go_on(request, reply, "FAIL scale_oak")
    length = nano.count_tokens(request.messages)
    assert length is not None and processed <= length and asked > 2 * processed


def test_replies_with_and_without_reuse_are_the_same(nano: MlxModel, request_: ChatRequest) -> None:
    plain = MlxModel(nano_folder(), name="nano", context_tokens=2048, reuse=False)
    try:
        first, second = replace(request_, conversation="a"), replace(request_, conversation="b")
        for observation in ("FAIL scale_oak", "1\tdef scale_oak(x):\n2\t    return x * 3", "ok", "PASS"):
            ours, theirs = nano.reply(first), plain.reply(second)
            assert ours.text == theirs.text
            assert theirs.usage.processed_prompt_tokens == theirs.usage.prompt_tokens
            first, second = go_on(first, ours, observation), go_on(second, theirs, observation)
    finally:
        plain.close()


def test_a_rewritten_history_is_answered_as_if_it_were_new(nano: MlxModel, request_: ChatRequest) -> None:
    request = replace(request_, conversation="prune")
    longer = go_on(request, nano.reply(request), "FAIL scale_oak")
    nano.reply(longer)
    assert (
        nano.reply(replace(request_, conversation="prune")).text
        == nano.reply(replace(request_, conversation="new")).text
    )


def test_the_same_seed_repeats_and_another_differs(nano: MlxModel, request_: ChatRequest) -> None:
    """G-48: temperature and seed are applied, not only written down."""

    def sampled(seed: int, conversation: str) -> str:
        begun = go_on(
            replace(request_, temperature=1.0, seed=seed, conversation=conversation),
            Reply_of("<bash>python check.py</bash>"),
            "FAIL scale_oak",
        )
        return nano.reply(begun).text

    assert sampled(5, "x") == sampled(5, "y")
    assert len({sampled(seed, f"s{seed}") for seed in range(8)}) > 1


def test_every_parameter_of_sampling_is_applied(nano: MlxModel, request_: ChatRequest) -> None:
    """What is cut off so that one token is left is the greedy reply, whatever the temperature and seed."""
    begun = go_on(request_, Reply_of("<bash>python check.py</bash>"), "FAIL scale_oak")
    greedy = nano.reply(replace(begun, conversation="greedy", temperature=0.0)).text

    def hot(seed: int, **sampling: float) -> str:
        name = f"{seed}{sampling}"
        drawn = Sampling.model_validate(sampling)
        return nano.reply(replace(begun, conversation=name, temperature=2.0, seed=seed, sampling=drawn)).text

    assert any(hot(seed) != greedy for seed in range(4))
    for only in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 0.999}):
        assert [hot(seed, **only) for seed in range(4)] == [greedy] * 4, only
    for name, little, much in (
        ("repeat_penalty", 1.0, 100.0),
        ("presence_penalty", -2.0, 2.0),
        ("frequency_penalty", -2.0, 2.0),
    ):
        assert [hot(seed, **{name: little}) for seed in range(6)] != [
            hot(seed, **{name: much}) for seed in range(6)
        ]


def Reply_of(text: str) -> Reply:  # noqa: N802 - reads as a constructor
    from looper.records.trajectory import Usage

    return Reply(
        text=text,
        finish_reason=FinishReason.STOP,
        usage=Usage(prompt_tokens=None, completion_tokens=None, counted_by="none"),
        wall_s=0.0,
    )


def test_concurrent_rollouts_are_batched_and_get_their_own_replies(
    nano: MlxModel, request_: ChatRequest
) -> None:
    alone = [
        nano.reply(replace(request_, conversation=f"alone{n}", temperature=0.7, seed=n)).text
        for n in range(6)
    ]
    found: dict[int, str] = {}

    def ask(number: int) -> None:
        request = replace(request_, conversation=f"together{number}", temperature=0.7, seed=number)
        found[number] = nano.reply(request).text

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(6)] == alone


def test_l13_the_output_limit_is_reported(nano: MlxModel, request_: ChatRequest) -> None:
    reply = nano.reply(replace(request_, max_output_tokens=2, conversation="short"))
    assert reply.finish_reason is FinishReason.LENGTH and reply.usage.completion_tokens == 2


def test_a_request_that_cannot_be_answered_is_an_error_and_the_next_one_works(
    nano: MlxModel, request_: ChatRequest
) -> None:
    with pytest.raises(RequestRefused):
        nano.reply(replace(request_, max_output_tokens=0))
    assert nano.reply(request_).text


NO_SYSTEM = (
    "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The embedded model, to be broken."""
    return Path(shutil.copytree(nano_folder(), tmp_path / "copy"))


@pytest.mark.parametrize(
    ("template", "said"), [(NO_SYSTEM, "System role not supported"), (None, "chat_template is not set")]
)
def test_c8_a_template_that_cannot_take_our_messages_is_fatal(
    copy: Path, request_: ChatRequest, template: str | None, said: str
) -> None:
    (copy / "chat_template.jinja").unlink()
    if template is not None:
        (copy / "chat_template.jinja").write_text(template)
    model = MlxModel(copy, name="copy", context_tokens=2048)
    try:
        for ask in (lambda: model.reply(request_), lambda: model.count_tokens(request_.messages)):
            with pytest.raises(ModelUnfit, match=said) as raised:
                ask()
            assert not raised.value.retryable and "Traceback" not in str(raised.value)
    finally:
        model.close()
    turns = [Turn(role=role, text=text) for role, text in request_.messages]
    with pytest.raises(BadInput, match=said):
        supervised_spans(load_tokenizer(copy), turns)


@pytest.mark.parametrize("broken", ["config.json", "model.safetensors"])
def test_c8_a_model_that_does_not_load_is_no_model(copy: Path, request_: ChatRequest, broken: str) -> None:
    content = (copy / broken).read_bytes()
    (copy / broken).write_bytes(content[: len(content) // 2])
    model = MlxModel(copy, name="copy", context_tokens=2048)
    with pytest.raises(ModelMissing, match="did not start"):
        model.reply(request_)
    model.close()
    if broken == "config.json":
        with pytest.raises(ModelMissing, match="no JSON"):
            model.identity()


def test_c2_halves_of_characters_reach_the_tokenizer_as_something_it_can_read(
    nano: MlxModel, request_: ChatRequest
) -> None:
    said = (*request_.messages, ("assistant", "a \ud83d b \0"), ("user", "\udc97"))
    assert nano.count_tokens(said) and nano.reply(replace(request_, conversation="odd", messages=said))


def test_p15_a_killed_model_process_is_named_and_started_again(
    request_: ChatRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    try:
        before = model.reply(request_).text
        assert model._process.child is not None
        os.kill(model._process.child.pid, signal.SIGKILL)
        model._process.child.wait()
        assert model.reply(request_).text == before
        os.kill(model._process.child.pid, signal.SIGSTOP)
        with pytest.raises(ReplyLate):
            model.reply(replace(request_, timeout_s=0.5))
        monkeypatch.setattr(mlx, "START_TIMEOUT_S", 0.5)
        with pytest.raises(ModelTimeout) as late:
            model.count_tokens(request_.messages)
        assert late.value.retryable, "the time of a count is no rollout's"
        threading.Timer(
            0.3, lambda: model._process.child and os.kill(model._process.child.pid, signal.SIGKILL)
        ).start()
        with pytest.raises(ModelUnreachable, match="killed"):
            model.reply(request_)
    finally:
        model.close()


def test_who_still_asks_after_the_end_starts_no_process(request_: ChatRequest) -> None:
    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    assert model.reply(request_).text
    model.close()
    with pytest.raises(Cancelled):
        model.reply(request_)
    assert model._process.child is None and not model._process._waiting


def test_a_process_that_dies_is_told_nothing_and_leaves_nobody_waiting(request_: ChatRequest) -> None:
    class Dying:
        """Still there when looked at, gone when written to."""

        def __init__(self) -> None:
            reading, writing = os.pipe()
            os.close(reading)
            self.stdin = os.fdopen(writing, "w")

        def poll(self) -> None:
            return None

    model = MlxModel(nano_folder(), name="nano", context_tokens=2048)
    model._process.child = Dying()  # type: ignore[assignment]
    model.forget("x")
    with pytest.raises(ModelUnreachable):
        model.reply(request_)
    assert not model._process._waiting


@pytest.mark.parametrize("stored", ["float16", "bfloat16"])
def test_on_a_cpu_weights_in_half_precision_are_computed_with_in_single(tmp_path: Path, stored: str) -> None:
    """Ten times as quickly, and with exactly the same values."""
    import mlx.core as mx

    if mx.default_device().type != mx.DeviceType.cpu:
        pytest.skip("a GPU computes with them as they are stored")
    weights: Any = mx.load(str(nano_folder() / "model.safetensors"))
    rounded = {name: array.astype(getattr(mx, stored)) for name, array in weights.items()}
    said = []
    for name, kind in (("half", getattr(mx, stored)), ("single", mx.float32)):
        shutil.copytree(nano_folder(), tmp_path / name)
        arrays = {each: array.astype(kind) for each, array in rounded.items()}
        mx.save_safetensors(str(tmp_path / name / "model.safetensors"), arrays, {"format": "mlx"})
        model = MlxModel(tmp_path / name, name=name, context_tokens=2048)
        said.append(model.next_tokens("def add(a, b): return a"))
        model.close()
    assert said[0] == said[1]
    settings = TrainingSettings(learning_rate=1e-3, iterations=1, batch_size=1, max_tokens=64)
    single, half = (memory_bytes(tmp_path / name, settings) for name in ("single", "half"))
    assert abs(single - half) < 10_000 or sys.platform != "linux", (
        "and with as much memory, but for heads of files"
    )


def test_the_digest_changes_with_the_weights(tmp_path: Path) -> None:
    shutil.copytree(nano_folder(), tmp_path / "copy")
    assert folder_digest(tmp_path / "copy") == folder_digest(nano_folder())
    with (tmp_path / "copy" / "model.safetensors").open("r+b") as stream:
        stream.seek(100_000)
        stream.write(b"\x01\x02\x03")
    assert folder_digest(tmp_path / "copy") != folder_digest(nano_folder())


def test_a_folder_without_a_model_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(ModelMissing, match=r"config\.json is missing"):
        MlxModel(tmp_path, name="x", context_tokens=2048)


def test_the_package_stays_small() -> None:
    sizes = [
        sum(path.stat().st_size for path in folder.iterdir())
        for folder in (nano_folder(), nano_folder("small"))
    ]
    assert sizes[1] < sizes[0] / 2 and sum(sizes) <= 8_000_000


def test_a_killed_harness_takes_its_model_process_along() -> None:
    import subprocess
    import sys
    import time

    program = (
        "from looper.edges.models.mlx import MlxModel, nano_folder\n"
        "model = MlxModel(nano_folder(), name='nano', context_tokens=2048)\n"
        "model.count_tokens([('user', 'x')])\n"
        "print(model._process.child.pid, flush=True)\n"
        "import time; time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as harness:
        assert harness.stdout is not None
        child = int(harness.stdout.readline())
        assert Path(f"/proc/{child}").exists()
        harness.kill()
    until = time.monotonic() + 10
    while Path(f"/proc/{child}").exists() and time.monotonic() < until:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()


@pytest.mark.parametrize(
    ("config", "tokens"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"max_position_embeddings": 2048, "rope_scaling": None}, 2048),
        ({"max_position_embeddings": 32768, "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768}}, 131072),
        ({"max_position_embeddings": 131072, "rope_scaling": {"factor": 32.0, "original_max_position_embeddings": 8192}}, 131072),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, None),
        ({"max_position_embeddings": 4096, "rope_scaling": "odd"}, 4096),
        ([], None),
    ],
)  # fmt: skip
def test_a_window_that_was_stretched_is_not_taken_for_a_shorter_one(
    tmp_path: Path, config: object, tokens: int | None
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert mlx.trained_tokens_in(tmp_path) == tokens
